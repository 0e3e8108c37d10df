"""Two processes of torchrun do the work of one: what equals one process, what is equal between them, and who writes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from jointsearch.data.load import Loaded
from jointsearch.distributed import Part
from search_spaces.errors import InputError
from tests.conftest import REPOSITORY
from tests.kills import same
from tests.torchrun_bench import DIGITS, SEARCHES, WORKS, Came, read, searched

START = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
PATIENCE = 300  # seconds that a run may take on a busy machine; none should take a tenth of it
SCRIPTS = REPOSITORY / "scripts"
QUICK = ["controls=[]", "seeds=[0]", "network=tiny_cnn", "dataset=digits", "device=cpu", "recipe.batch_size=64"]


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    """Two processes with one thread each, started in a folder."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*START, *words], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("together")


@pytest.fixture(scope="module")
def two(folder: Path) -> tuple[Came, Came]:
    """What each of two processes came to; before them, one process began a search that they are to go on with."""
    searched(folder / "two" / "refused", *SEARCHES["exact"])
    # Not by its exit code: a process of gloo may abort after all work is done (pytorch issue 190489).
    said = start(folder, str(REPOSITORY / "tests" / "torchrun_bench.py"), str(folder)).communicate(timeout=PATIENCE)
    assert (folder / "0" / "state").is_file(), said
    return read(folder / "0"), read(folder / "1")


@pytest.fixture(scope="module")
def one(folder: Path) -> dict[str, Any]:
    """What one process comes to."""
    names = ("mlp", "cnn_one_step", "exact", "table", "first_order")
    return {name: WORKS[name](folder / "one" / name) for name in names}


def tensors(state: Any) -> Iterator[Tensor]:
    """The floating-point tensors of a state, in order."""
    if isinstance(state, Tensor) and state.is_floating_point():
        yield state
    elif isinstance(state, dict | list | tuple):
        for part in state.values() if isinstance(state, dict) else state:
            yield from tensors(part)


def apart(left: Any, right: Any) -> float:
    """The largest difference between two states."""
    pairs = zip(tensors(left), tensors(right), strict=True)
    return max(float((one.double() - other.double()).abs().max()) for one, other in pairs if one.numel())


def test_21_steps_under_a_random_policy_with_mixing_are_those_of_one_process(
    two: tuple[Came, Came], one: dict[str, Any]
) -> None:
    of_two, of_one = two[0].works["mlp"], one["mlp"]
    assert of_two["steps"] == of_one["steps"] == 21
    for part in ("network", "averaged", "optimizer"):
        assert apart(of_two[part], of_one[part]) < 1e-5
    assert of_two["scores"] == pytest.approx(of_one["scores"], rel=1e-5)
    # The last batch of an epoch is too small for two processes.
    assert len(Loaded(DIGITS).splits(0).train) % 74 == 2


@pytest.mark.parametrize("name", [name for name in WORKS if name != "refused"])
def test_two_processes_end_with_the_same_bits(name: str, two: tuple[Came, Came]) -> None:
    mine, others = (came.works[name] for came in two)
    assert mine["steps"] == others["steps"] > 0
    assert same(mine, others)


def test_joint_search_and_policy_search_take_20_steps(two: tuple[Came, Came]) -> None:
    assert [two[0].works[name]["steps"] for name in ("joint", "policy")] == [20, 20]


def test_running_means_are_the_means_over_both_halves_of_a_batch(two: tuple[Came, Came], one: dict[str, Any]) -> None:
    # Before any step both trainings have the same weights, so that the first layer sees the same maps: the mean of the
    # means of two halves is that of the whole. Batch variances are taken within a half, and so are smaller.
    of_two, of_one = two[0].works["cnn_one_step"]["network"], one["cnn_one_step"]["network"]
    assert of_two["stage1.1.running_mean"].abs().max() > 1e-3
    assert apart(of_two["stage1.1.running_mean"], of_one["stage1.1.running_mean"]) < 1e-6
    assert apart(of_two["stage1.1.running_var"], of_one["stage1.1.running_var"]) < 1e-2
    assert apart(of_two["stage3.1.running_var"], of_one["stage3.1.running_var"]) > 1e-6


@pytest.mark.parametrize("name", ["exact", "table", "first_order"])
def test_a_search_without_batch_statistics_learns_what_one_process_learns(
    name: str, two: tuple[Came, Came], one: dict[str, Any]
) -> None:
    of_two, of_one = two[0].works[name], one[name]
    learned = [of_two["learned"], of_one["learned"]]
    if name == "exact":
        # Surrogates of RELAX begin at 0, where Adam makes a step out of rounding.
        learned = [state["policy"]["soft"] for state in learned]
    # Adam divides a gradient by its own size, which makes the rounding of a small one larger.
    assert apart(*learned) < 1e-3
    assert apart(of_two["network"], of_one["network"]) < 1e-5


def test_a_signal_to_one_process_stops_both_after_a_step_and_the_search_ends_as_if_undisturbed(
    two: tuple[Came, Came],
) -> None:
    for came in two:
        ended = came.works["interrupted"].pop("ended", "")
        assert "stopped by signal 15" in ended
        assert same(came.works["interrupted"], came.works["policy"])


def test_two_processes_do_not_continue_what_one_began(two: tuple[Came, Came]) -> None:
    for came in two:
        assert "was begun by 1 process(es), and 2 would continue it" in came.works["refused"]["reason"]


def test_one_process_does_not_continue_what_two_began(two: tuple[Came, Came], folder: Path) -> None:
    with pytest.raises(InputError, match=r"was begun by 2 process\(es\), and 1 would continue it.*give another run"):
        searched(folder / "two" / "exact", *SEARCHES["exact"])


def test_only_the_first_process_writes(two: tuple[Came, Came]) -> None:
    assert len(two[0].wrote) > 100
    assert not two[1].wrote


def test_parts_are_neighbours_that_make_up_the_batch_and_weigh_as_much_as_they_hold() -> None:
    images = torch.arange(5)
    first, second = Part(slice(0, 2), 5), Part(slice(2, 5), 5)
    assert first.of(images).tolist() + second.of(images).tolist() == [0, 1, 2, 3, 4]
    assert (first.weight, second.weight) == (0.4, 0.6)
    assert replace(first, rows=slice(0, 5), copies=2).weight == 0.5


def test_a_mistake_in_the_settings_is_told_once_and_ends_both(tmp_path: Path) -> None:
    done = start(tmp_path, str(SCRIPTS / "retrain.py"), *QUICK, "recipe.epochs=many")
    _, said = done.communicate(timeout=PATIENCE)
    assert done.returncode
    assert [line for line in said.splitlines() if line.startswith("error: ")] == [
        line for line in said.splitlines() if "recipe.epochs" in line and "many" in line
    ]
    assert said.count("error: ") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.long
def test_ctrl_c_of_torchrun_saves_and_the_same_command_ends_as_if_undisturbed(tmp_path: Path) -> None:
    words = [str(SCRIPTS / "retrain.py"), "policy=trivialaugment", *QUICK, "recipe.epochs=40"]
    _, said = start(tmp_path, *words).communicate(timeout=PATIENCE)  # the first process alone names the folder
    [undisturbed] = (tmp_path / "runs" / "retrain").glob("*/*/trivialaugment/seed0")
    assert (undisturbed / "result.json").is_file(), said
    stopped = tmp_path / "stopped" / "trivialaugment" / "seed0"
    running = start(tmp_path, *words, "run=stopped")
    deadline, metrics = time.monotonic() + PATIENCE, stopped / "metrics.jsonl"
    while not metrics.is_file() or metrics.read_bytes().count(b"\n") < 5:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=PATIENCE)
    assert said.count("error: ") == 1
    assert "the state is saved" in said
    assert not (stopped / "result.json").is_file()
    printed, _ = start(tmp_path, *words, "run=stopped").communicate(timeout=PATIENCE)
    assert printed.count("Written to stopped/summary.md") == 1
    assert (stopped / "metrics.jsonl").read_bytes() == (undisturbed / "metrics.jsonl").read_bytes()


@pytest.mark.slow
@pytest.mark.long
def test_a_study_in_two_processes_prints_and_reports_once_and_compare_refuses_two(tmp_path: Path) -> None:
    small = ["supernet.space=small", "supernet.channels=4", "supernet.layers=3", "cells.channels=4", "cells.layers=3"]
    epochs = ["search_recipe.epochs=1", "recipe.epochs=1", "recipe.auxiliary_weight=0"]
    words = ["controls=[]", "seeds=[0]", "dataset=digits", "device=cpu", *small, *epochs, "run=joint"]
    printed, said = start(tmp_path, str(SCRIPTS / "joint_search.py"), *words).communicate(timeout=PATIENCE)
    assert printed.count("On one page, with pictures: joint/report.html") == 1, said
    assert (tmp_path / "joint" / "report.html").is_file()
    _, said = start(tmp_path, str(SCRIPTS / "compare.py"), "joint").communicate(timeout=PATIENCE)
    assert said.count("error: compare does its work in one process; start it without torchrun") == 1


@pytest.mark.slow
@pytest.mark.long
def test_a_detector_is_trained_in_two_processes(tmp_path: Path) -> None:
    words = ["dataset=shapes", "dataset.reduced=16", "network=tiny_cnn", "recipe.batch_size=8", "recipe.epochs=1"]
    words += ["seeds=[0]", "device=cpu", "run=detect"]
    printed, said = start(tmp_path, str(SCRIPTS / "detect.py"), *words).communicate(timeout=PATIENCE)
    assert printed.count("On one page, with pictures: detect/report.html") == 1, said
    result = json.loads((tmp_path / "detect" / "scratch" / "seed0" / "result.json").read_text())
    assert result["metric"]["name"] == "AP"
