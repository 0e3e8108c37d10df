"""The one training loop: it stops and goes on on the same bits, copies another training, and scores by any metric."""

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jointsearch.data.datasets import Digits
from jointsearch.data.load import Loaded
from jointsearch.data.sets import Batch, DataSplits
from jointsearch.data.standard import normalize
from jointsearch.loops.journal import Journal
from jointsearch.loops.plan import NewStepSearcher, Plan
from jointsearch.loops.recipe import Recipe, Warmup
from jointsearch.loops.retrain import BestWeights, PlainSteps, plain_steps
from jointsearch.loops.retrain import tested as result_of
from jointsearch.loops.task import CLASSIFICATION, Task
from jointsearch.loops.training import Training
from jointsearch.protocols import Moment, Needs, StepReport, TrainStep
from jointsearch.randomness import own_global_randomness
from jointsearch.runs.checkpoint import load_checkpoint
from jointsearch.runs.run_folder import StopSignal
from jointsearch.runs.track import Tracker, read_metrics
from search_spaces.controls import named_policy
from tests.kills import same
from tests.own_tasks import Brier, GroupWeights

# Images of four steps; averaging, clipping and warm-up have states of their own.
DIGITS = Digits(reduced=100, validation=60)
RECIPE = Recipe(
    epochs=4,
    batch_size=25,
    ema_decay=0.9,
    clip_gradient=5.0,
    warmup=Warmup(1),
    precision="float32",
    evaluate_every=1,
)
SPLITS = Loaded(DIGITS).splits(0)


def plan_in(folder: Path, seed: int = 0, recipe: Recipe = RECIPE, task: Task = CLASSIFICATION) -> Plan:
    policy = named_policy("trivialaugment")
    return Plan(folder, "tiny_cnn", recipe, DIGITS.standard, seed, policy, save_seconds=1e6, task=task)


@contextmanager
def opened(plan: Plan, new_searcher: NewStepSearcher | None = None, splits: DataSplits = SPLITS) -> Iterator[Training]:
    """A training in a folder, from its last checkpoint on."""
    loaded = load_checkpoint(plan.folder / "checkpoints") if plan.folder.is_dir() else None
    with own_global_randomness(plan.seed), Tracker(plan.folder) as tracker:
        journal = Journal(plan, tracker, StopSignal(), None if loaded is None else loaded.state)
        yield Training(plan, splits, new_searcher or plain_steps(plan), BestWeights(), journal)


def saved(folder: Path) -> dict[str, Any]:
    """The last checkpoint and the metrics of a folder."""
    loaded = load_checkpoint(folder / "checkpoints")
    assert loaded is not None
    metrics = (folder / "metrics.jsonl").read_bytes()
    return {key: loaded.state[key] for key in loaded.state if key != "seconds"} | {"metrics": metrics}


@pytest.mark.parametrize("reopened", [False, True])
def test_advancing_in_two_calls_is_advancing_in_one(reopened: bool, tmp_path: Path) -> None:
    recipe = replace(RECIPE, drop_rate=0.2)
    with opened(plan_in(tmp_path / "one", recipe=recipe)) as training:
        whole = training.advance(4)
    plan = plan_in(tmp_path / "two", recipe=recipe)
    with opened(plan) as training:
        training.advance(1)
        if not reopened:
            again = training.advance(4)
    if reopened:
        with opened(plan) as training:
            assert training.progress.epoch == 1
            again = training.advance(4)
    assert whole == again
    assert same(saved(tmp_path / "one"), saved(tmp_path / "two"))


def test_advancing_to_an_epoch_that_is_over_scores_and_changes_nothing(tmp_path: Path) -> None:
    with opened(plan_in(tmp_path)) as training:
        scores = training.advance(2)
        before = copy.deepcopy(training.trainer.state())
        assert training.advance(1) == training.advance(2) == scores
        assert same(training.trainer.state(), before)
        assert training.progress.epoch == 2


def test_a_training_that_copied_another_takes_the_same_steps_and_neither_changes_the_other(tmp_path: Path) -> None:
    first_plan, second_plan = plan_in(tmp_path / "first"), plan_in(tmp_path / "second", seed=1)
    with opened(first_plan) as first, opened(second_plan) as second:
        first.advance(2)
        second.advance(2)
        assert not same(first.trainer.state(), second.trainer.state())
        second.copy_from(first)
        copied = copy.deepcopy(first.trainer.state())
        assert same(second.trainer.state(), copied)
        second.advance(4)
        assert same(first.trainer.state(), copied)
        assert not same(second.trainer.state(), copied)
        first.advance(4)
        assert same(first.trainer.state(), second.trainer.state())
        assert first.trainer.learning_rate() == second.trainer.learning_rate()
        for name, generator in first.journal.generators.items():
            assert torch.equal(generator.get_state(), second.journal.generators[name].get_state())
    first_rows, second_rows = (read_metrics(plan.folder / "metrics.jsonl") for plan in (first_plan, second_plan))
    assert first_rows[2:] == second_rows[2:]
    assert first_rows[1] != second_rows[1]


def test_a_copy_keeps_the_learning_rate_that_is_its_own(tmp_path: Path) -> None:
    fast, slow = (replace(RECIPE, learning_rate=rate, schedule="none", warmup=None) for rate in (0.1, 0.01))
    with opened(plan_in(tmp_path / "first", recipe=fast)) as first:
        first.advance(1)
        with opened(plan_in(tmp_path / "second", recipe=slow)) as second:
            second.advance(1)
            second.copy_from(first)
            assert second.trainer.learning_rate() == pytest.approx(0.01)
            assert same(second.trainer.state()["optimizer"]["state"], first.trainer.state()["optimizer"]["state"])


class Rows:
    """Images that count how often each of them is read."""

    def __init__(self, images: Any) -> None:
        self.images, self.read = images, Counter[int]()

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> "Rows":
        return self

    def batches(self, order: Tensor, size: int) -> Iterator[Batch]:
        for batch in self.images.batches(order, size):
            self.read.update(batch.index.tolist())
            yield batch


class Looking(PlainSteps):
    """Plain steps that are handed validation images and write down of which step and which they are."""

    def __init__(self, needs: Needs, *parts: Any) -> None:
        super().__init__(*parts)
        self.needs = needs
        self.seen: list[tuple[int, int, list[list[int]]]] = []

    def step(self, train: Batch, validation: Sequence[Batch], at: Moment) -> StepReport:
        self.seen.append((at.epoch, at.step, [batch.index.tolist() for batch in validation]))
        return super().step(train, validation, at)


def looking(plan: Plan, needs: Needs) -> NewStepSearcher:
    def start(network: nn.Module, train_step: TrainStep, noise: torch.Generator) -> Looking:
        return Looking(needs, plain_steps(plan)(network, train_step, noise).augmenter, network, train_step, noise)

    return start


@pytest.mark.parametrize(
    ("needs", "looks"),
    [
        (Needs(0), []),
        (Needs(2, from_epoch=1, every=3), [(1, 0), (1, 3), (2, 2)]),
        (Needs(1, from_epoch=1), [(epoch, step) for epoch in (1, 2) for step in range(4)]),
        (Needs(1, epochs=(0, 2)), [(0, 0), (2, 0)]),
        (Needs(2, fixed=True, every=6), [(0, 0), (1, 2)]),
    ],
)
def test_validation_images_of_steps_that_do_not_want_them_are_never_read(
    needs: Needs, looks: list[tuple[int, int]], tmp_path: Path
) -> None:
    recipe = replace(RECIPE, epochs=3, evaluate_every=3)  # the last epoch is evaluated, on all 60
    plan, validation = plan_in(tmp_path, recipe=recipe), Rows(SPLITS.validation)
    splits: Any = replace(SPLITS, validation=validation)
    with opened(plan, looking(plan, needs), splits) as training:
        training.advance(3)
        seen = training.searcher.seen
    assert [(epoch, step) for epoch, step, batches in seen if batches] == looks
    assert all(len(batches) in (0, needs.batches) for _, _, batches in seen)
    expected = Counter(range(60))
    for _, _, batches in seen:
        assert all(len(batch) == 25 for batch in batches)
        expected.update(row for batch in batches for row in batch)
    assert validation.read == expected


def test_the_fixed_validation_batches_are_the_same_ones_for_every_step(tmp_path: Path) -> None:
    plan = plan_in(tmp_path)
    with opened(plan, looking(plan, Needs(2, fixed=True))) as training:
        training.advance(2)
        batches = [batches for _, _, batches in training.searcher.seen]
    assert len(batches) == 8
    assert all(one == batches[0] for one in batches)
    assert len({row for batch in batches[0] for row in batch}) == 50


def test_every_epoch_has_its_line_and_those_that_are_evaluated_have_scores(tmp_path: Path) -> None:
    with opened(plan_in(tmp_path, recipe=replace(RECIPE, epochs=5, evaluate_every=2))) as training:
        training.advance(5)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [(row["epoch"], row["step"]) for row in rows] == [(epoch, 4 * epoch) for epoch in range(1, 6)]
    scores = {"validation_loss", "validation_accuracy"}
    for row in rows:
        evaluated = scores if row["epoch"] in (2, 4, 5) else set()
        assert row.keys() == {"epoch", "step", "train_loss"} | evaluated


# --- a metric and an objective of one's own -------------------------------------------------------------------------


def test_of_a_metric_that_should_be_low_the_lowest_epoch_is_selected(tmp_path: Path) -> None:
    with opened(plan_in(tmp_path, recipe=replace(RECIPE, learning_rate=0.5), task=Task(new_metric=Brier))) as training:
        training.advance(4)
        kept = training.keeper
        assert isinstance(kept, BestWeights)
        values = [row["validation_brier"] for row in read_metrics(tmp_path / "metrics.jsonl")]
        assert len(set(values)) == 4
        assert (kept.epoch, kept.score) == (1 + values.index(min(values)), min(values))
        test = training.test_images
        batch = next(test.batches(torch.arange(len(test)), len(test)))
        result = result_of(training, kept, training.test(), training.plan.folder)
        with torch.no_grad():
            outputs = training.trainer.outputs(normalize(batch.images, DIGITS.standard)).softmax(1)
    expected = (outputs - nn.functional.one_hot(batch.labels, 10)).square().sum(1).mean()
    assert result["test_brier_selected"] == pytest.approx(float(expected), rel=1e-5)
    assert result["validation_brier_selected"] == min(values)
    assert result["metric"] == {"name": "brier", "unit": "", "higher_is_better": False}


def test_an_objective_of_ones_own_is_descended_and_its_state_is_in_the_checkpoint(tmp_path: Path) -> None:
    for name, stops in (("one", [4]), ("two", [1, 3, 4])):
        for stop in stops:
            with opened(plan_in(tmp_path / name, task=Task(GroupWeights, Brier))) as training:
                training.advance(stop)
    state = saved(tmp_path / "one")
    assert (state["trainer"]["objective"]["weights"] > 0).all()
    assert state["keeper"]["score"] == min(
        row["validation_brier"] for row in read_metrics(tmp_path / "one/metrics.jsonl")
    )
    assert same(state, saved(tmp_path / "two"))
    with opened(plan_in(tmp_path / "plain", task=Task(new_metric=Brier))) as training:
        training.advance(4)
    assert not same(state["trainer"]["network"], saved(tmp_path / "plain")["trainer"]["network"])
