"""A search that is killed anywhere ends with the same bits, and no test image is ever looked at."""

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import sklearn.datasets  # noqa: F401  imported for the fork server, like the next line
import torch
import torch._dynamo

from jointsearch.data import load
from jointsearch.data.load import DataSettings, load_search_splits, load_splits
from jointsearch.data.sets import Batch, FoundSplits, ImageSet, StreamSet
from jointsearch.data.standard import Standard
from jointsearch.loops import resumable
from jointsearch.loops.recipe import Recipe
from jointsearch.loops.searches import SearchGrid, run_searches
from jointsearch.searchers.differentiable import DifferentiableSearcher
from jointsearch.searchers.make import new_searcher, search_settings
from jointsearch.settings import as_plain
from jointsearch.track import read_metrics
from search_spaces.controls import named_policy
from search_spaces.errors import InputError
from search_spaces.policy import Policy

SPACE = {"ops": ["Rotate", "Invert", "Brightness", "TranslateX"]}
# Everything that has a state of its own: averaging, dropout, clipping, warm-up.
RECIPE = Recipe(
    epochs=4, batch_size=50, drop_rate=0.2, ema_decay=0.9, clip_gradient=5.0, warmup_epochs=1, precision="float32"
)
DIGITS = DataSettings("digits", reduced=500, test_share=0.4167)


def grid_of(
    searcher: dict[str, Any] | None = None,
    estimator: dict[str, Any] | None = None,
    groups: dict[str, Any] | None = None,
    **changes: Any,
) -> SearchGrid:
    settings = search_settings(
        {
            "searcher": {"name": "differentiable"} | (searcher or {}),
            "policy_space": SPACE,
            "estimator": estimator or {"name": "reinforce"},
            **(groups or {}),
        }
    )
    return SearchGrid(
        start=lambda seed: settings.policy_space.policy(),
        settings=as_plain(settings),
        new_searcher=lambda seed: new_searcher(settings, Standard(), seed, changes.get("recipe", RECIPE).epochs),
        **({"dataset": DIGITS, "seeds": (3,), "network": "tiny_cnn", "recipe": RECIPE} | changes),
    )


SEARCH = Path("search-seed3")
QUICK = Recipe(epochs=1, batch_size=50, precision="float32")


def test_a_search_leaves_what_it_says(tmp_path: Path) -> None:
    (result,) = run_searches(grid_of(recipe=dataclasses.replace(QUICK, epochs=2)), tmp_path)
    folder = tmp_path / SEARCH
    assert {path.name for path in folder.iterdir()} == {
        ".lock", "birth.json", "checkpoints", "found.json", "metrics.jsonl", "result.json", "start.json", "trial.json"
    }  # fmt: skip
    assert len(Policy.load(folder / "found.json").sub_policies) == 6
    assert (result["seed"], result["epochs"], result["steps"], result["skipped_steps"]) == (3, 2, 10, 0)
    assert result["forward_equivalents"] == 10 * (3 + 3 + 4)
    rows = read_metrics(folder / "metrics.jsonl")
    assert [row["epoch"] for row in rows] == [1, 2]
    assert {"train_loss", "validation_loss", "validation_accuracy", "idle_share", "share/Rotate"} <= set(rows[0])
    identity = json.loads((folder / "trial.json").read_text())
    assert identity["search"]["searcher"]["through_step"] == "finite_difference"


def test_a_finished_search_is_read_and_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run_searches(grid_of(recipe=QUICK), tmp_path)
    monkeypatch.setattr(resumable, "load_checkpoint", None)
    assert run_searches(grid_of(recipe=QUICK), tmp_path) == first


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"recipe": dataclasses.replace(QUICK, epochs=2)}, "search_recipe.epochs was 1, is 2"),
        ({"network": "wide_resnet16_1"}, "network"),
        ({"dataset": dataclasses.replace(DIGITS, reduced=400)}, "dataset.reduced"),
        ({"searcher": {"rewards": "shuffled"}}, "[(]searcher.rewards was 'real', is 'shuffled'"),
        ({"estimator": {"name": "reinforce", "scoring": "joint"}}, "[(]estimator.scoring was"),
    ],
)
def test_a_run_folder_of_other_settings_is_refused_by_name(change: dict[str, Any], named: str, tmp_path: Path) -> None:
    run_searches(grid_of(recipe=QUICK), tmp_path)
    with pytest.raises(InputError, match=named):
        run_searches(grid_of(**{"recipe": QUICK} | change), tmp_path)


def test_a_seed_of_other_settings_is_refused_before_the_first_seed_is_searched(tmp_path: Path) -> None:
    run_searches(grid_of(recipe=dataclasses.replace(QUICK, epochs=2)), tmp_path)
    grid = grid_of(recipe=QUICK)
    with pytest.raises(InputError, match=f"{SEARCH} was begun"):
        run_searches(dataclasses.replace(grid, seeds=(4, *grid.seeds)), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [str(SEARCH)]


def steps_of(
    monkeypatch: pytest.MonkeyPatch,
    skipped: frozenset[int] = frozenset(),
) -> list[tuple[Batch, tuple[Batch, ...], float]]:
    """Every step's training batch, validation batches and step size; the steps of these numbers say they skipped."""
    seen: list[tuple[Batch, tuple[Batch, ...], float]] = []
    step = DifferentiableSearcher.step

    def watched(searcher: Any, train: Batch, judges: Any, size: float, epoch: int) -> dict[str, Any]:
        if not train.images.any():  # the step on blank images that comes before a search
            return step(searcher, train, judges, size, epoch)
        seen.append((train, tuple(judges), size))
        metrics = step(searcher, train, judges, size, epoch)
        return metrics | {"skipped": torch.tensor(True)} if len(seen) in skipped else metrics

    monkeypatch.setattr(DifferentiableSearcher, "step", watched)
    return seen


@pytest.mark.parametrize("batches", [1, 2])
def test_over_an_epoch_every_training_and_every_validation_image_is_seen(
    batches: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = steps_of(monkeypatch)
    run_searches(
        grid_of({"validation_batches": batches}, recipe=dataclasses.replace(QUICK, epochs=2, batch_size=40)), tmp_path
    )
    assert len(seen) == 14
    for epoch in (seen[:7], seen[7:]):  # 250 images of each half
        assert sorted(torch.cat([train.index for train, _, _ in epoch]).tolist()) == list(range(250))
        judged = torch.cat([judge.index for _, judges, _ in epoch for judge in judges])
        assert all([len(judge.index) for judge in judges] == [40] * batches for _, judges, _ in epoch)
        assert len(judged) == 280 * batches
        assert sorted(judged[:250].tolist()) == list(range(250))  # each once before any comes again
    assert not torch.equal(seen[0][1][0].index, seen[7][1][0].index)


def test_as_in_the_released_code_every_step_may_see_the_first_validation_batch_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = steps_of(monkeypatch)
    run_searches(grid_of({"first_validation_batch_only": True}, recipe=dataclasses.replace(QUICK, epochs=2)), tmp_path)
    assert len(seen) == 10
    assert all(torch.equal(judges[0].index, seen[0][1][0].index) for _, judges, _ in seen)
    assert len(seen[0][1][0].index.unique()) == 50
    assert len(seen[0][1][0].labels.unique()) == 10


def test_the_step_size_of_a_reward_is_the_learning_rate_of_its_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = steps_of(monkeypatch)
    recipe = dataclasses.replace(QUICK, epochs=2, learning_rate=0.2)
    run_searches(grid_of(recipe=recipe), tmp_path)
    cosine = [0.1 * (1 + torch.cos(torch.tensor(torch.pi * step / 10))) for step in range(10)]
    assert [size for _, _, size in seen] == pytest.approx([float(size) for size in cosine], rel=1e-5)


def test_three_steps_in_a_row_without_a_reward_end_a_search_and_two_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps_of(monkeypatch, frozenset({2, 3, 5, 7, 8, 9}))  # of the first search, which has 5 steps, and of the second
    (result,) = run_searches(grid_of(recipe=QUICK), tmp_path / "two")
    assert result["skipped_steps"] == 3
    with pytest.raises(
        InputError,
        match=r"no number in 3 steps in a row of epoch 1: .* lower search_recipe\.learning_rate",
    ):
        run_searches(grid_of(recipe=QUICK), tmp_path / "three")


def test_a_search_whose_rewards_become_no_numbers_says_so(tmp_path: Path) -> None:
    recipe = Recipe(epochs=20, batch_size=50, learning_rate=100.0, weight_decay=1.0, precision="float32")
    with pytest.raises(InputError, match=r"diverged; lower search_recipe\.learning_rate"):
        run_searches(grid_of(recipe=recipe), tmp_path)


class Watched:
    """Rows of digits; how often each was read is known afterwards."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images, self.rows = images, Counter()

    def read(self, row: int) -> torch.Tensor:
        self.rows[row] += 1
        return self.images[row]


FOLDER = DataSettings("folder", path="anywhere", in_memory="never")


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """What FOLDER reads: 200 images to train and judge, 100 to test."""
    digits = load.read_digits().subset(torch.arange(300))
    source = Watched(digits.images)
    whole = StreamSet(source, torch.arange(300), digits.labels, digits.classes, digits.image_shape, 0)
    found = FoundSplits(whole.subset(torch.arange(200)), None, whole.subset(torch.arange(200, 300)))
    monkeypatch.setattr(load, "_found", lambda settings: found)
    return source


def test_no_test_image_is_ever_read(source: Watched, tmp_path: Path) -> None:
    run_searches(grid_of(dataset=FOLDER, recipe=QUICK), tmp_path)
    assert set(source.rows) == set(range(200))


@pytest.mark.parametrize(
    ("searcher", "judged"),
    [
        ({"name": "table", "every": None, "measurements": 2, "trial_steps": 2}, 2),
        ({"name": "table", "every": 3, "from_epoch": 1}, 3),  # of the last eight steps
        ({"name": "differentiable", "from_epoch": 2}, 4),
    ],
)
def test_validation_images_are_read_for_the_steps_that_look_at_them(
    searcher: dict[str, Any], judged: int, source: Watched, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(QUICK, epochs=3, batch_size=25)
    run_searches(grid_of({**searcher, "validation_batches": 2}, dataset=FOLDER, recipe=recipe), tmp_path)
    trained = every_epoch_is_evaluated = 3 * 100
    assert source.rows.total() == trained + every_epoch_is_evaluated + 2 * 25 * judged


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


def test_a_half_without_a_class_is_refused() -> None:
    with pytest.raises(InputError, match=r"no image left for training.*a search trains on half of them"):
        load_search_splits(dataclasses.replace(DIGITS, reduced=10), 0)


def rows(images: ImageSet) -> torch.Tensor:
    return images.images.flatten(1)


def test_halves_differ_between_seeds() -> None:
    digits = dataclasses.replace(
        DIGITS, reduced=None
    )  # the same training images for every seed, before they are halved
    first, second = (load_search_splits(digits, seed).train.images for seed in (0, 1))
    assert not torch.equal(first, second)


def test_the_validation_images_that_a_data_set_brings_are_the_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = load.read_shapes()
    monkeypatch.setattr(load, "read_shapes", lambda: drawn)  # drawing them takes a second, and every look draws again
    shapes = DataSettings("shapes", reduced=100)
    whole, parts = load_splits(shapes, 0), load_search_splits(shapes, 0)
    assert torch.equal(parts.train.images, whole.train.images)
    assert torch.equal(parts.validation.images, whole.validation.images)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (100, 800, 0)


def test_a_random_search_trains_nothing_and_finds_the_random_policy_of_its_seed(tmp_path: Path) -> None:
    settings = search_settings({"searcher": {"name": "random"}, "policy_space": {}, "estimator": {}})
    grid = dataclasses.replace(
        grid_of(recipe=QUICK),
        settings=as_plain(settings),
        new_searcher=lambda seed: new_searcher(settings, Standard(), seed, QUICK.epochs),
        seeds=(3, 4),
    )
    results = run_searches(grid, tmp_path)
    assert [result["forward_equivalents"] for result in results] == [0, 0]
    found = [Policy.load(tmp_path / f"search-seed{seed}" / "found.json") for seed in (3, 4)]
    assert found[0] == named_policy("random-s3")
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("recipe", "remedy"),
    [
        (dataclasses.replace(QUICK, precision="bf16"), "search_recipe.precision=float32"),
        (dataclasses.replace(QUICK, precision="auto"), "search_recipe.precision=float32"),
        (dataclasses.replace(QUICK, mixup=0.2), "set both to 0 in search_recipe"),
        (dataclasses.replace(QUICK, cutmix=1.0), "set both to 0 in search_recipe"),
    ],
)
def test_recipes_under_which_no_reward_can_be_measured_are_refused(recipe: Recipe, remedy: str) -> None:
    with pytest.raises(InputError, match=remedy):
        grid_of(recipe=recipe)
