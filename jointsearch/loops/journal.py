"""What a training keeps in its folder: checkpoints, metrics, generators and the time it took."""

import logging
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from typing import Any

import torch

from jointsearch.data.sets import DataSplits
from jointsearch.distributed import from_first, is_first, largest, of_each, place
from jointsearch.loops.plan import Plan, check_identity, write_identity
from jointsearch.protocols import State
from jointsearch.randomness import own_global_randomness
from jointsearch.runs.checkpoint import generator_states, load_checkpoint, restore_generator_states, save_checkpoint
from jointsearch.runs.run_folder import RESULT_FILE, StopSignal, lock_folder, write_json
from jointsearch.runs.track import Tracker, tell_again
from search_spaces.plain_json import read_json

logger = logging.getLogger(__name__)


class Interrupted(Exception):
    """A signal stopped the run; its state is saved."""

    def __init__(self, signal_number: int, saved: str = "the state is saved") -> None:
        super().__init__(f"stopped by signal {signal_number}; {saved}, the same command with run= continues")
        self.exit_code = 128 + signal_number


class NoTracker:
    """The tracker of a process beside the first, which writes for all."""

    def log(self, step: int, metrics: Mapping[str, float | int | str]) -> None:
        """Nothing is written."""

    def offset(self) -> int:
        """Nothing is there."""
        return 0

    def rewind(self, offset: int) -> None:
        """Nothing is there."""


def named_generators(seed: int) -> dict[str, torch.Generator]:
    """The generators of a training's own draws, as they begin."""
    return {name: torch.Generator().manual_seed(seed * 2 + place) for place, name in enumerate(("order", "noise"))}


class Journal:
    """Metrics, named generators and the clock of one training, beside its own state.

    Of several processes all call it at the same moments, and the first writes.
    """

    def __init__(self, plan: Plan, tracker: Tracker | NoTracker, stop: StopSignal, state: State | None) -> None:
        self.plan, self.tracker, self.stop = plan, tracker, stop
        stop.answer = self.answer if is_first() else None
        self.state = state  # of the training that is resumed; None for a new one
        self.generators = named_generators(plan.seed)
        self.signal = 0  # that any process had received when it was last asked what is due
        self.began = self.saved = time.monotonic()
        self.seconds_before = 0.0

    def resume(self) -> None:
        """Put metrics, clock and generators where the checkpoint left them; called last, when all else is restored."""
        kept = 0 if self.state is None else self.state["metrics_bytes"]
        from_first(lambda: self.tracker.rewind(kept))
        if self.state is not None:
            self.seconds_before = self.state["seconds"]
            of_all = [self.state["generators"], *self.state.get("generators_of_others", ())]
            restore_generator_states(of_all[place()], self.generators)
        elif place():
            # Dropout of other images is other noise. Seeds are below 2**32, so that no other training has this one.
            torch.manual_seed(self.plan.seed + place() * 2**32)

    def save(self, step: int, state: State) -> None:
        """Write a checkpoint of the whole training."""
        first, *others = of_each(generator_states(self.generators))
        kept: State = {"metrics_bytes": self.tracker.offset(), "seconds": self.seconds(), "generators": first}
        if others:
            kept["generators_of_others"] = others
        from_first(lambda: self._write(step, state | kept))
        self.saved = time.monotonic()

    def _write(self, step: int, state: State) -> None:
        try:
            save_checkpoint(self.plan.folder / "checkpoints", step, state)
        except FloatingPointError as error:  # a variance may overflow under a loss that is still a number
            raise self.plan.diverged(f"after {step} steps {error}") from None

    def is_due(self) -> bool:
        """Whether a checkpoint is to be written now: a signal came, or the last one is old."""
        late = time.monotonic() - self.saved >= self.plan.save_seconds
        self.signal, due = largest(self.stop.received or 0, late)
        return bool(self.signal or due)

    def answer(self, number: int) -> str:
        """What a person is told at once when a signal comes."""
        again = "press Ctrl-C again" if number == signal.SIGINT else "send it again"
        return (
            f"stopping after this step; {again} to stop at once (what was done since the last save, "
            f"{time.monotonic() - self.saved:.0f} seconds ago, is lost then)"
        )

    def break_off(self) -> None:
        """In the middle of a step, end if a signal came; what was done since the last save is done again."""
        (self.signal,) = largest(self.stop.received or 0)
        if self.signal:
            raise Interrupted(self.signal, "a measurement was left undone, the state before it is saved")

    def give_way(self) -> None:
        """End here if a signal had come when it was last asked what is due; the state has been saved."""
        if self.signal:
            raise Interrupted(self.signal)

    def seconds(self) -> float:
        """Time so far, without pauses."""
        return self.seconds_before + time.monotonic() - self.began


def carry_out(plan: Plan, splits: DataSplits, work: Callable[[Journal], dict[str, Any]]) -> dict[str, Any]:
    """The result of `work` in the folder of a plan, or the one that is there already."""
    trackers: list[Tracker] = []

    def begin() -> None:
        trackers.append(Tracker(plan.folder, plan.board))  # before anything else is written: W&B may refuse to start
        write_identity(plan, splits)

    with ExitStack() as lock, own_global_randomness(plan.seed):
        result, state = from_first(lambda: _found(plan, splits, lock))
        if result is not None:
            return result
        from_first(begin)
        with StopSignal() as stop, trackers[0] if trackers else nullcontext():
            journal = Journal(plan, trackers[0] if trackers else NoTracker(), stop, state)
            result = work(journal)
            from_first(lambda: write_json(plan.folder / RESULT_FILE, result))
            journal.is_due()
        journal.give_way()
        return from_first(lambda: result or {})


def _found(plan: Plan, splits: DataSplits, lock: ExitStack) -> tuple[dict[str, Any] | None, State | None]:
    """The result that the folder of a plan holds, or else the state; from now on nobody else may write there."""
    lock.enter_context(lock_folder(plan.folder))
    check_identity(plan, splits)
    result_path = plan.folder / RESULT_FILE
    if result_path.is_file():
        tell_again(plan.folder, plan.board)
        return read_json(result_path, "result"), None
    loaded = load_checkpoint(plan.folder / "checkpoints")
    for warning in () if loaded is None else loaded.warnings:
        logger.warning(warning)
    return None, None if loaded is None else loaded.state
