"""The benchmark measures what it says: every library on the same pictures, in turn."""

from dataclasses import replace

import pytest
import torch

from jointsearch.benchmarks import search_step, trainings
from jointsearch.benchmarks.augmentation import compare_libraries, compare_policies, photographs, share_of_step
from jointsearch.benchmarks.search_step import step_costs
from jointsearch.benchmarks.timing import time_in_turn
from jointsearch.benchmarks.words import GRADIENTS
from jointsearch.commands.benchmark import stage_of
from jointsearch.commands.command import run


def test_calls_take_turns_and_each_is_warmed_up_once() -> None:
    order: list[str] = []
    timings = time_in_turn({name: lambda name=name: order.append(name) for name in "ab"}, rounds=3, block_seconds=0.0)
    assert "".join(order) == "aabb" + "ab" * 3
    assert set(timings) == {"a", "b"}


def test_a_slower_call_has_the_longer_median() -> None:
    small, large = torch.rand(8, 8), torch.rand(400, 400)
    timings = time_in_turn({"small": lambda: small @ small, "large": lambda: large @ large}, 3, 0.01)
    assert timings["large"] > 5 * timings["small"]


def test_photographs_are_the_same_on_every_call_and_not_flat() -> None:
    first, second = photographs(6, 32), photographs(6, 32)
    assert torch.equal(first, second)
    assert first.shape == (6, 3, 32, 32)
    assert (first.float().std((1, 2, 3)) > 5).all()


def test_every_library_is_timed_on_one_thread_and_the_threads_come_back() -> None:
    before = torch.get_num_threads()
    timings = compare_libraries(size=16, batch=4, rounds=1, block_seconds=0.0)
    assert len(timings) == 7
    assert all(seconds > 0 for seconds in timings.values())
    assert torch.get_num_threads() == before


def test_two_draws_are_timed_beside_two_ops_of_randaugment() -> None:
    timings = compare_policies(size=16, batch=4, rounds=1, block_seconds=0.0)
    assert {"randaugment-n2-m15", "trivialaugment-x2"} < set(timings)
    assert all(seconds > 0 for seconds in timings.values())


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_front_end_is_timed_beside_a_training_step(precision: str) -> None:
    timings = share_of_step("tiny_cnn", 16, precision, torch.device("cpu"), rounds=1)
    assert set(timings) == {"front-end", "training step"}


def test_the_script_refuses_an_unknown_task(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("benchmark", ["task=augmnt"]) == 2
    assert "augment" in capsys.readouterr().err


def test_a_search_step_is_set_beside_the_plain_step_of_the_same_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_step, "BLOCK_SECONDS", 0.2)
    monkeypatch.setattr(search_step, "peak_gigabytes", lambda search, *_: 1.0 if search is None else 2.0)
    searches = {
        "default": stage_of(GRADIENTS),
        "fixed": stage_of([*GRADIENTS, "searcher.magnitude_gradient=none"]),
    }
    costs = step_costs(searches, "tiny_cnn", 16, torch.device("cpu"), rounds=1)
    assert [costs[name].forward_equivalents for name in ("plain", "default", "fixed")] == [3, 10, 8]
    assert [costs[name].peak_gigabytes for name in ("plain", "default", "fixed")] == [1, 2, 2]
    assert costs["default"].seconds > costs["plain"].seconds
    assert costs["plain"].augmentation_seconds is None
    assert 0 < costs["default"].augmentation_seconds < costs["default"].seconds


@pytest.mark.slow
def test_the_peak_memory_is_that_of_the_step_and_not_of_whoever_asks() -> None:
    ballast = torch.ones(2**28)  # 1 GiB here, and none of it there
    peak = search_step.peak_gigabytes(stage_of(GRADIENTS), "tiny_cnn", 16, torch.device("cpu"))
    assert 0.1 < peak < 1.5
    assert ballast.sum() > 0


def test_a_training_by_hand_is_the_same_training_as_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both take as many steps on as many images, under the same policy, with the same learning rates."""
    steps: dict[str, list[tuple[int, float]]] = {}

    step = torch.optim.SGD.step

    def watched(self: torch.optim.SGD, *rest: object) -> object:
        steps[kind].append((seen.pop(), self.param_groups[0]["lr"]))
        return step(self, *rest)  # type: ignore[arg-type]

    seen: list[int] = []
    plain_augment = trainings.augment

    def augment(images: torch.Tensor, *rest: object) -> torch.Tensor:
        seen.append(len(images))
        return plain_augment(images, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    monkeypatch.setattr(trainings, "augment", augment)
    monkeypatch.setattr("jointsearch.augmenters.with_policy.augment", augment)
    case = trainings.cases()["digits, 60 epochs"]
    for kind, train in {"ours": trainings.ours_of, "plain": trainings.plain_of}.items():
        steps[kind] = []
        train(case, torch.device("cpu"), 2)
    assert len(steps["plain"]) == 2 * -(-len(case.splits.train) // case.recipe.batch_size)
    assert [size for size, _ in steps["ours"]] == [size for size, _ in steps["plain"]]
    assert [rate for _, rate in steps["ours"]] == pytest.approx([rate for _, rate in steps["plain"]])


def test_the_table_of_trainings_has_a_row_for_every_case(monkeypatch: pytest.MonkeyPatch) -> None:
    name, case = next(iter(trainings.cases().items()))
    first = {name: replace(case, timed=2)}
    monkeypatch.setattr(trainings, "cases", lambda: first)
    table = trainings.trainings_table(torch.device("cpu"), rounds=1)
    assert len(table.splitlines()) == 3
    assert "digits, 60 epochs" in table
