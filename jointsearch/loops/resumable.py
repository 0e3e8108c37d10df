"""What every run that can be killed has in common: its folder, its checkpoints, its generators, its clock."""

import logging
import time
from collections.abc import Callable
from typing import Any

import torch

from jointsearch.checkpoint import generator_states, load_checkpoint, restore_generator_states, save_checkpoint
from jointsearch.data.sets import DataSplits
from jointsearch.loops.trial import Trial, check_identity, write_identity
from jointsearch.randomness import own_global_randomness
from jointsearch.run_folder import StopSignal, lock_folder, write_json
from jointsearch.track import Tracker
from search_spaces.plain_json import read_json

logger = logging.getLogger(__name__)


class Interrupted(Exception):
    """A signal stopped the run after a step; its state is saved."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by signal {signal_number}; the state is saved, the same command with run= goes on")
        self.exit_code = 128 + signal_number


class Journal:
    """What a run keeps beside its own state: metrics, named generators, and the time it took."""

    def __init__(self, trial: Trial, tracker: Tracker, stop: StopSignal, state: dict[str, Any] | None) -> None:
        self.trial, self.tracker, self.stop = trial, tracker, stop
        self.state = state  # of the run that is gone on with; None at the beginning of a new one
        self.generators = {
            name: torch.Generator().manual_seed(trial.seed * 2 + place) for place, name in enumerate(("order", "noise"))
        }
        self.began = self.saved = time.monotonic()
        self.seconds_before = 0.0

    def resume(self) -> None:
        """Put metrics, clock and generators where the checkpoint left them; called last, when all else is restored."""
        self.tracker.rewind(0 if self.state is None else self.state["metrics_bytes"])
        if self.state is not None:
            self.seconds_before = self.state["seconds"]
            restore_generator_states(self.state["generators"], self.generators)

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write a checkpoint of the whole run."""
        kept = {
            "metrics_bytes": self.tracker.offset(),
            "seconds": self.seconds(),
            "generators": generator_states(self.generators),
        }
        try:
            save_checkpoint(self.trial.folder / "checkpoints", step, state | kept)
        except FloatingPointError as error:  # a variance may overflow under a loss that is still a number
            raise self.trial.diverged(f"after {step} steps {error}") from None
        self.saved = time.monotonic()

    def is_due(self) -> bool:
        """Whether a checkpoint is to be written now: a signal came, or the last one is old."""
        return self.stop.received is not None or time.monotonic() - self.saved >= self.trial.save_seconds

    def give_way(self) -> None:
        """End here if a signal came; the state has been saved."""
        if self.stop.received is not None:
            raise Interrupted(self.stop.received)

    def seconds(self) -> float:
        """Time so far, pauses left out."""
        return self.seconds_before + time.monotonic() - self.began


def carry_out(
    trial: Trial, splits: DataSplits, settings: dict[str, Any] | None, work: Callable[[Journal], dict[str, Any]]
) -> dict[str, Any]:
    """The result of `work` in the folder of a trial, or the one that is there already; `settings` are for W&B."""
    with lock_folder(trial.folder), own_global_randomness(trial.seed):
        check_identity(trial, splits)
        result_path = trial.folder / "result.json"
        if result_path.is_file():
            return read_json(result_path, "result")
        loaded = load_checkpoint(trial.folder / "checkpoints")
        for warning in () if loaded is None else loaded.warnings:
            logger.warning(warning)
        # Before anything else is written: W&B may refuse to start.
        tracker = Tracker(trial.folder, trial.wandb_mode, settings, trial.name)
        write_identity(trial, splits)
        with StopSignal() as stop, tracker:
            journal = Journal(trial, tracker, stop, None if loaded is None else loaded.state)
            result = work(journal)
        write_json(result_path, result)
        journal.give_way()
        return result
