"""Processes that share a study find what one finds, and end with the one that started them."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from jointsearch import run_study
from jointsearch.data.load import Loaded
from jointsearch.loops.recipe import Recipe
from jointsearch.loops.shared import in_turn
from jointsearch.loops.task import Task
from jointsearch.metrics.accuracy import Accuracy
from jointsearch.runs.run_folder import lock_folder
from jointsearch.search_kinds import PolicyOnly
from jointsearch.searchers.race import Race
from jointsearch.study import Study
from jointsearch.workers import helpers, threads_of
from search_spaces.errors import InputError
from tests.conftest import REPOSITORY
from tests.folders_bench import classes, settings, write_folder
from tests.kills import wait_for
from tests.runs_bench import DIGITS

WORDS = (
    *("search=policy", "searcher=race", "searcher.trainings=16", "searcher.folds=3", "network=tiny_cnn"),
    *("dataset=digits", "dataset.reduced=400", "dataset.validation=0", "seeds=[0,1]", "controls=[none]"),
    *("recipe.epochs=8", "recipe.precision=float32", "threads=1", "jobs=2"),
)


def study(**changes: Any) -> Study:
    kind = PolicyOnly(Race(trainings=12, folds=3), "tiny_cnn", proposals=())  # type: ignore[arg-type]
    recipe = Recipe(epochs=2, batch_size=50, precision="float32")
    given = {"dataset": DIGITS, "search": kind, "recipe": recipe, "seeds": (3,), "device": "cpu", "threads": 1}
    return Study(**given | changes)


def results(folder: Path) -> dict[str, Any]:
    """Every result of a run, but for the time that it took."""
    return {
        path.parent.relative_to(folder).as_posix(): {
            name: value for name, value in json.loads(path.read_text()).items() if name != "seconds"
        }
        for path in sorted(folder.rglob("result.json"))
    }


@pytest.mark.slow
def test_two_processes_of_a_study_find_what_one_finds(tmp_path: Path) -> None:
    run_study(study(), tmp_path / "one")
    run_study(study(jobs=2), tmp_path / "two")
    assert results(tmp_path / "two") == results(tmp_path / "one")


def command(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    script = [sys.executable, str(REPOSITORY / "scripts" / "joint_search.py")]
    return subprocess.Popen([*script, *words, f"run={folder}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def children_of(process: int) -> list[int]:
    """Processes that another one started, and still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            status, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it ended meanwhile
            continue
        if int(parent) == process and status != "Z":
            found.append(int(path.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.long
def test_helpers_end_with_the_process_that_started_them_and_others_may_join(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with command(folder, *WORDS) as first:
        wait_for(folder / "search-seed0" / "jobs" / "jobs.journal")
        helping = children_of(first.pid)
        assert helping
        time.sleep(1)
        first.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{one}").exists() for one in helping):
        assert time.monotonic() < deadline, "a helper outlives the process that started it"
        time.sleep(0.1)
    with command(folder) as again, command(folder, "jobs=1") as joined:
        assert again.wait() == joined.wait() == 0
    with command(tmp_path / "alone", *WORDS, "jobs=1") as alone:
        assert alone.wait() == 0
    assert results(folder) == results(tmp_path / "alone")
    assert (folder / "summary.md").read_bytes() == (tmp_path / "alone" / "summary.md").read_bytes()


def test_what_another_process_does_waits_until_it_lets_go(tmp_path: Path) -> None:
    order: list[str] = []
    busy, free = tmp_path / "busy", tmp_path / "free"
    lock = lock_folder(busy)
    lock.__enter__()

    def do_free() -> str:
        order.append("free")
        lock.__exit__(None, None, None)
        return "free"

    def do_busy() -> str:
        order.append("busy")
        return "busy"

    assert in_turn([(busy, do_busy), (free, do_free)]) == ["busy", "free"]
    assert order == ["free", "busy"]


def test_decoded_images_are_handed_over_as_they_are(tmp_path: Path) -> None:
    loaded = Loaded(settings(write_folder(tmp_path, classes(count=12)), test_share=0.25, validation=0))
    before = loaded.splits(0)
    handed = Loaded.__new__(Loaded)
    handed.__setstate__(loaded.__getstate__())
    assert handed._decoded
    assert sum(map(len, handed._decoded.values())) == sum(map(len, loaded._decoded.values()))
    assert handed.splits(0).digest == before.digest
    assert handed.fold_splits(0, 1, 3).digest == loaded.fold_splits(0, 1, 3).digest


def test_a_part_that_no_process_can_be_given_is_one_line(tmp_path: Path) -> None:
    class Mine(Accuracy):
        """Of a notebook."""

    with pytest.raises(InputError, match=r"jobs=2 starts processes.*or use jobs=1"):
        run_study(study(jobs=2), tmp_path, task=Task(new_metric=Mine))


def test_cores_are_shared() -> None:
    cores = len(os.sched_getaffinity(0))
    assert threads_of(1, None) is None, "one process has torch's choice"
    assert threads_of(1, 3) == threads_of(4, 3) == 3
    assert threads_of(cores, None) == threads_of(4 * cores, None) == 1
    assert torch.get_num_threads() >= 1


def broken(place: int) -> None:
    """Work that fails in every helper."""
    raise ValueError(f"helper {place} is broken")


@pytest.mark.slow
def test_helpers_that_fail_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with helpers(1, broken):
        deadline = time.monotonic() + 60
        while multiprocessing.active_children() and time.monotonic() < deadline:
            time.sleep(0.05)
    assert "1 of 1 processes that jobs=2 started failed; the others did their work" in caplog.text
