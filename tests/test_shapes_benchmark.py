"""What counts as the known answer of the shapes, by hand, and one round of the benchmark on a few of them."""

import dataclasses

import pytest
import torch

from jointsearch.benchmarks import shapes
from jointsearch.benchmarks.shapes import OPS, ShapesOutcome, op_shares, shapes_outcome
from jointsearch.benchmarks.words import ON_SHAPES, SHAPES
from jointsearch.commands import benchmark
from jointsearch.commands.benchmark import searcher_of
from jointsearch.commands.command import run
from jointsearch.data.datasets import Shapes
from jointsearch.data.shapes import SHAPES_ANSWER
from search_spaces.policy import OpChoice, Policy, SubPolicy

GOOD = {op: 1.1 for op in SHAPES_ANSWER["recover"]} | {op: 0.9 for op in SHAPES_ANSWER["avoid"]}


def test_every_op_of_the_answer_has_to_lie_on_its_side() -> None:
    assert ShapesOutcome(GOOD, 0, 0, 0, 0).matches
    for op in GOOD:
        assert not ShapesOutcome({**GOOD, op: 1.0}, 0, 0, 0, 0).matches


def test_shares_of_ops_by_hand() -> None:
    rotate, invert = OpChoice("Rotate", 0.5, 0.5), OpChoice("Invert", 1.0)
    policy = Policy((SubPolicy((rotate, invert), 3.0), SubPolicy((invert,), 1.0), SubPolicy((), 1.0)))
    assert op_shares(policy) == pytest.approx({"Rotate": 1.5 / 5.5, "Invert": 4 / 5.5})
    assert op_shares(policy)["Cutout"] == 0
    assert op_shares(Policy((SubPolicy(()),)))["Rotate"] == 0


@pytest.mark.parametrize("name", SHAPES)
def test_every_search_of_the_benchmark_has_all_ops_of_the_answer_to_choose_from(name: str) -> None:
    settings = searcher_of([*ON_SHAPES, *SHAPES[name]])
    start = settings.policy_space.policy()
    assert {choice.op for sub_policy in start.sub_policies for choice in sub_policy.ops} == set(OPS)
    shares = op_shares(start)
    assert [shares[op] * len(OPS) for op in GOOD] == pytest.approx([1.0] * len(GOOD))


@pytest.mark.slow
def test_a_round_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "RECIPE", dataclasses.replace(shapes.RECIPE, epochs=3, evaluate_every=3))
    short = ["searcher.trial_steps=1", "searcher.measurements=2", "searcher.validation_batches=2"]
    outcome = shapes_outcome(searcher_of([*ON_SHAPES, *SHAPES["the same, longer"], *short]), 0, Shapes(reduced=96))
    assert outcome.over_uniform.keys() == GOOD.keys()
    assert 0 < outcome.accuracy < 100
    assert 0 < outcome.start_accuracy < 100
    # 3 steps, of which those of the last two epochs are measured: 17 rows, a step and 2 validation batches each.
    assert outcome.forward_equivalents == 3 * 3 + 2 * 17 * (3 + 2)


@pytest.mark.parametrize("task", ["planted", "shapes"])
def test_a_device_that_a_benchmark_would_not_use_is_refused(
    task: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "choose_device", torch.device)
    monkeypatch.setattr(benchmark, f"print_{task}", lambda settings: None)
    assert run("benchmark", [f"task={task}", "device=cuda"]) == 2
    assert f"task={task} runs on the CPU" in capsys.readouterr().err
