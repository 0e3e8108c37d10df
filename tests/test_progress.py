"""A run says how far it is, and answers a signal at once: also in the middle of a long measurement."""

import io
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from tqdm import tqdm

from jointsearch.data.datasets import Digits
from jointsearch.data.sets import DataSplits, ImageSet
from jointsearch.loops import progress
from jointsearch.loops.grid import Grid, run_grid
from jointsearch.loops.journal import Interrupted
from jointsearch.loops.plan import Plan
from jointsearch.loops.progress import Course, Shown
from jointsearch.loops.recipe import Recipe
from jointsearch.loops.search import search
from jointsearch.protocols import Context, Needs, StepSearcher, TrainStep
from jointsearch.runs.checkpoint import load_checkpoint
from tests.runs_bench import Stopping
from tests.table_bench import MOVED, some, trials

# Three steps an epoch of three; the two last epochs begin with a measurement of 3 rows x 4 steps.
SEARCH = trials("Rotate", "Invert", levels=1, trial_steps=4, validation_batches=2)
PLAN = Plan(
    Path("out/search-seed5"),
    "tiny_cnn",
    Recipe(epochs=3, batch_size=16, precision="float32"),
    MOVED,
    5,
    SEARCH.policy_space.policy(),
    search={},
    save_seconds=1e6,
)


def searched(plan: Plan, stop_at: int | None = None) -> Stopping:
    """The training step of a search that ended, or was stopped by a signal in this call of its training step."""
    train, judges = (ImageSet(part.images, part.labels, ("a", "b")) for part in (some(40, 1), some(40, 2)))
    steps: list[Stopping] = []

    def stopping(network: nn.Module, train_step: TrainStep, noise: Any) -> StepSearcher:
        steps.append(Stopping(train_step, stop_at))
        return SEARCH.start(Context(network, steps[0], MOVED, noise, plan.recipe.epochs))

    ends = nullcontext() if stop_at is None else pytest.raises(Interrupted, match="a measurement was left undone")
    with ends:
        search(plan, DataSplits(train, judges, judges.subset(judges.labels[:0])), stopping)
    return steps[0]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return replace(PLAN, folder=tmp_path / "search-seed5")


def test_a_signal_ends_a_measurement_within_a_step_of_training_and_keeps_what_was_before(
    plan: Plan, capfd: pytest.CaptureFixture[str]
) -> None:
    # Three steps of the first epoch, the step before the measurement, and the sixth of its twelve.
    assert searched(plan, stop_at=3 + 1 + 6).calls == 3 + 1 + 6
    loaded = load_checkpoint(plan.folder / "checkpoints")
    assert loaded is not None
    assert loaded.step == 3  # although nothing was due to be saved before 10^6 seconds
    assert not (plan.folder / "result.json").exists()
    told = "stopping after this step; send it again to stop at once (what was done since the last save, 0 seconds ago"
    assert told in capfd.readouterr().err


class Eager(tqdm):
    """A bar that is drawn at every move."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, mininterval=0)


class Clock:
    """A clock that stands still until it is moved."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bool], io.StringIO]]:
    """Replaces the error output by a file, or by a terminal."""

    def replaced(terminal: bool) -> io.StringIO:
        stream = io.StringIO()
        monkeypatch.setattr(stream, "isatty", lambda: terminal, raising=False)
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return replaced


def test_without_a_terminal_there_is_a_line_every_ten_seconds_that_counts_measurements(
    clock: Clock, stderr: Callable[[bool], io.StringIO]
) -> None:
    written = stderr(False)
    plan = replace(PLAN, show_progress=True, place="search 1 of 2")
    # 30 steps, and after the first of the third epoch a measurement that costs as much as 60 of them.
    with Shown(plan, Needs(1, epochs=(2,), cost=180), 10, (0, 3)) as shown:
        for step in range(1, 11):
            clock.now += 2
            shown.at(0, step)
        shown.at(2, 0)
        clock.now = 40
        shown.at_part(4, 6)
        clock.now = 45
        shown.at_part(5, 6)
        clock.now = 90
        shown.at(3, 0)
    lines = written.getvalue().splitlines()
    assert [line.removeprefix("search 1 of 2: seed 5: ") for line in lines] == [
        "epoch 1 of 3",
        "epoch 1 of 3, about 02:50 left",  # 5 of 90 in 10 seconds
        "epoch 1 of 3, about 02:40 left",
        "epoch 3 of 3, measuring op 4 of 6, about 00:30 left",  # 20 + 1 + 30 of 90 in 40 seconds
        "epoch 3 of 3, about 00:00 left",
        "done in 01:30",
    ]


def test_a_terminal_gets_a_bar_that_moves_during_a_measurement(
    plan: Plan, stderr: Callable[[bool], io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "tqdm", Eager)
    written = stderr(True)
    searched(replace(plan, show_progress=True, place="search 1 of 1"))
    bars = written.getvalue().split("\r")
    shares = [int(found[1]) for bar in bars if (found := re.search(r"(\d+)%.*measuring op 2 of 3", bar))]
    # Each measurement is worth (3 x (3 x 4 + 2)) / 3 = 14 steps beside 9: from a third to two thirds of it.
    assert shares[0] == int(100 * (3 + 1 + 14 / 3) / 37)
    assert shares[-1] == int(100 * (6 + 14 + 1 + 14 / 3) / 37)
    assert all(bar.startswith("search 1 of 1: seed 5") for bar in bars if "measuring" in bar)


def test_every_training_of_a_grid_says_its_place(tmp_path: Path, stderr: Callable[[bool], io.StringIO]) -> None:
    written = stderr(False)
    recipe = Recipe(epochs=1, batch_size=50, precision="float32")
    grid = Grid(("none", "trivialaugment"), Digits(reduced=100, validation=0), (0, 1), "tiny_cnn", recipe)
    run_grid(grid, tmp_path, show_progress=True)
    ends = [line for line in written.getvalue().splitlines() if "done in" in line]
    assert [
        re.sub(r", about \S+ to the end", ", about T to the end", line[: line.index(": done")]) for line in ends
    ] == [
        "training 1 of 4: none seed 0",
        "training 2 of 4, about T to the end: trivialaugment seed 0",
        "training 3 of 4, about T to the end: none seed 1",
        "training 4 of 4, about T to the end: trivialaugment seed 1",
    ]


def test_the_time_to_the_end_is_that_of_what_was_carried_out_and_not_of_what_was_read(clock: Clock) -> None:
    course = Course("training", 4)
    assert course.next(finished=True) == "training 1 of 4"
    clock.now += 1  # reading it
    assert course.next(finished=False) == "training 2 of 4"
    clock.now += 100
    assert course.next(finished=False) == "training 3 of 4, about 03:20 to the end"
    clock.now += 50
    assert course.next(finished=False) == "training 4 of 4, about 01:15 to the end"


def test_a_signal_of_the_keyboard_is_answered_in_its_own_words(
    plan: Plan, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "kill", lambda process, _: signal.raise_signal(signal.SIGINT))
    searched(plan, stop_at=10)
    assert "press Ctrl-C again to stop at once" in capfd.readouterr().err
