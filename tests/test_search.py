"""A search leaves what it says, and no test image is ever looked at."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from jointsearch.compose import compose_study
from jointsearch.data import datasets
from jointsearch.data.datasets import Folder, Shapes
from jointsearch.data.load import Loaded, load_search_splits, load_splits
from jointsearch.data.sets import Batch, FoundSplits, ImageSet, StreamSet
from jointsearch.estimators.reinforce import ReinforceSettings
from jointsearch.estimators.relax import RelaxSettings
from jointsearch.loops import journal
from jointsearch.loops.recipe import Recipe, SearchRecipe
from jointsearch.loops.search import KeptFinding
from jointsearch.protocols import Context, Found, Moment, Needs, SearcherSettings, StepReport
from jointsearch.runs.track import read_metrics
from jointsearch.searchers.differentiable import CellsOnly, DifferentiableSearcher
from jointsearch.searchers.random import RandomSearch
from jointsearch.searchers.rewards import Stabilize
from jointsearch.searchers.spaces import Measured
from jointsearch.searchers.table import Table, Trials
from jointsearch.study import prepare, run_study
from search_spaces.controls import named_policy
from search_spaces.errors import InputError
from search_spaces.policy import Policy
from tests.runs_bench import DIGITS, QUICK, SEARCH, SPACE, differentiable, run_searches, search_study

REINFORCE = differentiable(estimator=ReinforceSettings())


def test_a_search_leaves_what_it_says(tmp_path: Path) -> None:
    (result,) = run_searches(search_study(REINFORCE, replace(QUICK, epochs=2)), tmp_path)
    folder = tmp_path / SEARCH
    assert {path.name for path in folder.iterdir()} == {
        ".lock", "birth.json", "checkpoints", "metrics.jsonl", "policy.json", "result.json", "settings.json"
    }  # fmt: skip
    assert len(Policy.load(folder / "policy.json").sub_policies) == 6
    assert (result["seed"], result["epochs"], result["steps"], result["skipped_steps"]) == (3, 2, 10, 0)
    assert result["forward_equivalents"] == 10 * (3 + 3 + 4)
    rows = read_metrics(folder / "metrics.jsonl")
    assert [row["epoch"] for row in rows] == [1, 2]
    assert {"train_loss", "validation_loss", "validation_accuracy", "idle_share", "share/Rotate"} <= set(rows[0])
    identity = json.loads((folder / "settings.json").read_text())
    assert identity["search"]["searcher"]["magnitude_gradient"] == "pathwise"


def test_a_finished_search_is_read_and_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run_searches(search_study(), tmp_path)
    monkeypatch.setattr(journal, "load_checkpoint", None)
    assert run_searches(search_study(), tmp_path) == first


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"recipe": replace(QUICK, epochs=2)}, "search_recipe.epochs was 1, is 2"),
        ({"network": "wide_resnet16_1"}, "network"),
        ({"dataset": replace(DIGITS, reduced=400)}, "dataset.reduced"),
        ({"searcher": differentiable(shuffled=True)}, "[(]searcher.shuffled was False, is True"),
        ({"searcher": differentiable(estimator=RelaxSettings(scoring="joint"))}, "[(]searcher.estimator.scoring was"),
        ({"select_epoch": "best"}, "[(]select_epoch was 'last', is 'best'"),
    ],
)
def test_a_run_folder_of_other_settings_is_refused_by_name(change: dict[str, Any], named: str, tmp_path: Path) -> None:
    run_searches(search_study(), tmp_path)
    for refusing in (run_searches, prepare):
        with pytest.raises(InputError, match=named):
            refusing(search_study(**change), tmp_path)


def test_a_seed_of_other_settings_is_refused_before_the_first_seed_is_searched(tmp_path: Path) -> None:
    run_searches(search_study(recipe=replace(QUICK, epochs=2)), tmp_path)
    with pytest.raises(InputError, match=f"{SEARCH} was begun"):
        run_study(search_study(seeds=(4, 3)), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [str(SEARCH)]


def steps_of(
    monkeypatch: pytest.MonkeyPatch,
    skipped: frozenset[int] = frozenset(),
) -> list[tuple[Batch, tuple[Batch, ...], float]]:
    """Every step's training batch, validation batches and step size; the steps of these numbers say they skipped."""
    seen: list[tuple[Batch, tuple[Batch, ...], float]] = []
    step = DifferentiableSearcher.step

    def watched(searcher: Any, train: Batch, validation: Any, at: Moment) -> StepReport:
        seen.append((train, tuple(validation), at.step_size))
        report = step(searcher, train, validation, at)
        return replace(report, skipped=True) if len(seen) in skipped else report

    monkeypatch.setattr(DifferentiableSearcher, "step", watched)
    return seen


@pytest.mark.parametrize("batches", [1, 2])
def test_over_an_epoch_every_training_and_every_validation_image_is_seen(
    batches: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = steps_of(monkeypatch)
    recipe = replace(QUICK, epochs=2, batch_size=40)
    run_searches(search_study(differentiable(stabilize=Stabilize(validation_batches=batches)), recipe), tmp_path)
    assert len(seen) == 14
    for epoch in (seen[:7], seen[7:]):  # 250 images of each half
        assert sorted(torch.cat([train.index for train, _, _ in epoch]).tolist()) == list(range(250))
        index = torch.cat([batch.index for _, validation, _ in epoch for batch in validation])
        assert all([len(batch.index) for batch in validation] == [40] * batches for _, validation, _ in epoch)
        assert len(index) == 280 * batches
        assert sorted(index[:250].tolist()) == list(range(250))  # each once before any comes again
    assert not torch.equal(seen[0][1][0].index, seen[7][1][0].index)


def test_as_in_the_released_code_every_step_may_see_the_first_validation_batch_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = steps_of(monkeypatch)
    run_searches(search_study(differentiable(published="code"), replace(QUICK, epochs=2)), tmp_path)
    assert len(seen) == 10
    assert all(torch.equal(validation[0].index, seen[0][1][0].index) for _, validation, _ in seen)
    assert len(seen[0][1][0].index.unique()) == 50
    assert len(seen[0][1][0].labels.unique()) == 10


def test_the_step_size_of_a_reward_is_the_learning_rate_of_its_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = steps_of(monkeypatch)
    run_searches(search_study(recipe=replace(QUICK, epochs=2, learning_rate=0.2)), tmp_path)
    cosine = [0.1 * (1 + torch.cos(torch.tensor(torch.pi * step / 10))) for step in range(10)]
    assert [size for _, _, size in seen] == pytest.approx([float(size) for size in cosine], rel=1e-5)


def test_three_steps_in_a_row_without_a_reward_end_a_search_and_two_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps_of(monkeypatch, frozenset({2, 3, 5, 7, 8, 9}))  # of the first search, which has 5 steps, and of the second
    (result,) = run_searches(search_study(), tmp_path / "two")
    assert result["skipped_steps"] == 3
    with pytest.raises(
        InputError,
        match=r"no number in 3 steps in a row of epoch 1: .* lower search_recipe\.learning_rate",
    ):
        run_searches(search_study(), tmp_path / "three")


def test_a_search_whose_rewards_become_no_numbers_says_so(tmp_path: Path) -> None:
    recipe = replace(QUICK, epochs=20, learning_rate=100.0, weight_decay=1.0)
    with pytest.raises(InputError, match=r"diverged; lower search_recipe\.learning_rate"):
        run_searches(search_study(recipe=recipe), tmp_path)


class Watched:
    """Rows of digits; how often each was read is known afterwards."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images, self.rows = images, Counter()

    def read(self, row: int) -> torch.Tensor:
        self.rows[row] += 1
        return self.images[row]


FOLDER = Folder(path="anywhere", in_memory="never", validation=0)


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """What FOLDER reads: 200 images for training and validation, 100 test images."""
    digits = datasets.read_digits().subset(torch.arange(300))
    source = Watched(digits.images)
    whole = StreamSet(source, torch.arange(300), digits.labels, digits.classes, digits.image_shape, 0)
    found = FoundSplits(whole.subset(torch.arange(200)), None, whole.subset(torch.arange(200, 300)))
    monkeypatch.setattr(Folder, "find", lambda settings: found)
    return source


def test_no_test_image_is_ever_read(source: Watched, tmp_path: Path) -> None:
    run_study(search_study(dataset=FOLDER), tmp_path)  # with the checks before it, and the report
    assert set(source.rows) == set(range(200))


MEASURED = Measured(ops=SPACE.ops)


@pytest.mark.parametrize(
    ("searcher", "looks"),
    [
        (Trials(MEASURED, measurements=2, trial_steps=2, validation_batches=2), 2),
        (Table(MEASURED, every=3, from_epoch=1, validation_batches=2), 3),  # of the last eight steps
        (differentiable(from_epoch=2, stabilize=Stabilize(validation_batches=2)), 4),
    ],
)
def test_validation_images_are_read_for_the_steps_that_look_at_them(
    searcher: SearcherSettings, looks: int, source: Watched, tmp_path: Path
) -> None:
    run_searches(search_study(searcher, replace(QUICK, epochs=3, batch_size=25), dataset=FOLDER), tmp_path)
    trained = every_epoch_is_evaluated = 3 * 100
    assert source.rows.total() == trained + every_epoch_is_evaluated + 2 * 25 * looks


@pytest.mark.parametrize("seed", [0, 1])
def test_the_halves_are_disjoint_stratified_and_all_of_the_training_images(seed: int) -> None:
    whole, halves = load_splits(DIGITS, seed), load_search_splits(DIGITS, seed)
    assert (len(halves.train), len(halves.validation), len(halves.test)) == (250, 250, 0)
    parts = [torch.unique(rows(part), dim=0) for part in (halves.train, halves.validation)]
    together = torch.unique(rows(whole.train), dim=0)
    assert len(parts[0]) + len(parts[1]) == len(together)
    assert torch.equal(torch.unique(torch.cat(parts), dim=0), together)
    counts = [part.labels.bincount() for part in (halves.train, halves.validation)]
    assert int((counts[0] - counts[1]).abs().max()) <= 1


def test_a_search_may_be_given_some_of_the_training_images() -> None:
    loaded = Loaded(DIGITS)
    parts = loaded.search_splits(3, 100)
    assert (len(parts.train), len(parts.validation)) == (50, 50)
    together = {tuple(row.tolist()) for part in (parts.train, parts.validation) for row in rows(part)}
    assert together <= {tuple(row.tolist()) for row in rows(loaded.splits(3).train)}
    assert len(together) == 100
    assert sorted(torch.cat([parts.train.labels, parts.validation.labels]).bincount().tolist()) == [10] * 10
    assert loaded.search_splits(3, 10_000).digest == loaded.search_splits(3).digest


def test_a_half_without_a_class_is_refused() -> None:
    with pytest.raises(InputError, match=r"no image left for training.*a search trains on half of them"):
        load_search_splits(replace(DIGITS, reduced=10), 0)


def rows(images: ImageSet) -> torch.Tensor:
    return images.images.flatten(1)


def test_halves_differ_between_seeds() -> None:
    # The same training images for every seed, before they are halved.
    digits = replace(DIGITS, reduced=None)
    first, second = (load_search_splits(digits, seed).train.images for seed in (0, 1))
    assert not torch.equal(first, second)


def test_the_validation_images_that_a_data_set_brings_along_validate(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = datasets.read_shapes()
    monkeypatch.setattr(datasets, "read_shapes", lambda: drawn)  # drawing them takes a second
    shapes = Shapes(reduced=100)
    whole, parts = load_splits(shapes, 0), load_search_splits(shapes, 0)
    assert torch.equal(parts.train.images, whole.train.images)
    assert torch.equal(parts.validation.images, whole.validation.images)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (100, 800, 0)


def test_a_random_search_trains_nothing_and_finds_the_random_policy_of_its_seed(tmp_path: Path) -> None:
    results = run_searches(search_study(RandomSearch(), seeds=(3, 4)), tmp_path)
    assert [result["forward_equivalents"] for result in results] == [0, 0]
    found = [Policy.load(tmp_path / f"search-seed{seed}" / "policy.json") for seed in (3, 4)]
    assert found[0] == named_policy("random-s3")
    assert found[0] != found[1]


@pytest.mark.parametrize(
    "word", ["precision=bf16", "mixing.mixup=0.2", "label_smoothing=0.1", "auxiliary_weight=0.4", "ema_decay=0.9"]
)
def test_a_search_recipe_has_nothing_under_which_no_reward_can_be_measured(word: str) -> None:
    name = word.partition("=")[0].partition(".")[0]
    with pytest.raises(InputError, match=f"search_recipe.{name} is not a setting"):
        compose_study("search=policy", f"search_recipe.{word}")


def test_a_search_trains_in_float32_on_plain_labels_and_looks_at_every_epoch() -> None:
    plain = {"precision": "float32", "evaluate_every": 1, "mixing": None, "warmup": None, "timm": None}
    plain |= {"label_smoothing": 0.0, "auxiliary_weight": 0.0, "ema_decay": 0.0, "drop_rate": 0.0, "drop_path": 0.0}
    settings = SearchRecipe(epochs=7, learning_rate=0.5)
    assert vars(settings.whole()) == vars(settings) | plain
    assert settings.whole() == Recipe(**vars(settings) | plain)


def test_facts_that_are_numbers_or_words_are_written_for_every_epoch_and_lists_are_not() -> None:
    facts = {"count": 3, "share": 0.5, "done": True, "word": "a", "list": [1]}
    searcher = SimpleNamespace(found=lambda: Found(facts=facts), needs=Needs(0))
    training: Any = SimpleNamespace(searcher=searcher, progress=SimpleNamespace(epoch=1))
    assert KeptFinding("last").consider(training, None) == {name: facts[name] for name in facts if name != "list"}


def test_a_search_of_cells_on_a_network_without_any_says_so() -> None:
    step: Any = None
    context = Context(torch.nn.Linear(1, 1), step, DIGITS.standard, torch.Generator(), 1)
    with pytest.raises(InputError, match="this network has none to choose; use search=architecture"):
        CellsOnly(named_policy("none")).start(context)
