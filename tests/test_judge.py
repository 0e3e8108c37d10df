"""Joint and separate search whose findings a race judges, and trainings with the recipe that a race tunes."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jointsearch import compose_study
from jointsearch.data.load import Loaded
from jointsearch.jobs import TUNED
from jointsearch.loops.grid import CellsSettings, Grid
from jointsearch.loops.recipe import Recipe, SearchRecipe
from jointsearch.loops.training import Training
from jointsearch.networks.create import plain_options
from jointsearch.networks.supernet import SupernetSettings
from jointsearch.search_kinds import Joint, OneAfterTheOther, PolicyOnly
from jointsearch.searchers.race import Race
from jointsearch.study import Study, run_study
from search_spaces.cells.random import random_genotype
from search_spaces.cells.space import CELL_SPACES
from search_spaces.controls import named_policy
from search_spaces.errors import InputError
from search_spaces.genotype import Genotype
from search_spaces.policy import Policy
from tests.runs_bench import DIGITS, SEARCH, differentiable
from tests.scripts_bench import run_script

JUDGE = Race(trainings=6, folds=2, at_once=2, untuned=("trivialaugment", "none"), family=False)
PARTS: dict[str, Any] = {
    "searcher": differentiable(),
    "supernet": SupernetSettings("small", 4, 3),
    "search_recipe": SearchRecipe(epochs=1, batch_size=50),
    "cells": CellsSettings(4, 3),
    "judge": JUDGE,
}
KINDS = {"joint": Joint(**PARTS), "separate": OneAfterTheOther(network="tiny_cnn", **PARTS)}  # type: ignore[arg-type]
STUDY = Study(
    dataset=DIGITS,
    recipe=Recipe(epochs=1, batch_size=50, learning_rate=0.02, precision="float32"),
    controls=("trivialaugment@random",),
    seeds=(3,),
    device="cpu",
    threads=1,
)


@pytest.mark.parametrize("name", KINDS)
def test_a_race_judges_pairs_of_policy_and_cells(name: str, tmp_path: Path) -> None:
    result = run_study(replace(STUDY, search=KINDS[name]), tmp_path)
    race = result.searches[-1]
    assert race["control"] == "trivialaugment@random"
    assert race["trainings"] == 6
    assert {row["arm"] for row in race["arms"]} >= {"trivialaugment@random", "found@found", "found@random"}
    before = tmp_path / "proposal-found" / SEARCH
    jobs = {
        path.parent.parent.name: json.loads(path.with_name("settings.json").read_text()) for path in _jobs(tmp_path)
    }
    of_random = random_genotype(CELL_SPACES["small"], 3)
    for arm, cells in {
        "trivialaugment@random": of_random,
        "found@found": Genotype.load(before / "genotype.json"),
    }.items():
        told = jobs[arm]["network_options"]
        assert told["genotype"] == plain_options({"genotype": cells})["genotype"]
        assert (told["channels"], told["layers"]) == (4, 3)
    chosen = race["chosen"]
    policy, _, cells_of = chosen.partition("@")
    assert result.policy == (Policy.load(before / "policy.json") if policy == "found" else result.policy)
    if cells_of == "random":
        assert result.genotype == of_random
    assert result.comparison is not None
    assert {row.policy for row in result.comparison.rows} == {"found", "trivialaugment@random"}
    page = result.report.read_text()
    assert "better than trivialaugment@random by, shrunken" in page
    assert "6 whole trainings" in page
    # Two rows, or one where the control is handed over; 500 images in ten steps, of three forward-equivalents each.
    assert re.search(r"trainings took [^(]* \((30|60) forward-equivalents\)\. The searches before them took", page)
    assert re.search(r"more \([0-9,]+ forward-equivalents, with 6 whole trainings\)", page)
    assert "The race handed over" in page
    assert "The policy did not move" not in page, "what was proposed only is told of as handed over"


def _jobs(folder: Path) -> list[Path]:
    """A result of every arm that was trained."""
    return [
        next(arm.glob("*/result.json"))
        for arm in (folder / SEARCH / "jobs").iterdir()
        if list(arm.glob("*/result.json"))
    ]


def test_judge_is_a_word_of_the_command_line() -> None:
    joint: Any = compose_study("judge=race").search
    assert joint.judge == Race()
    assert compose_study("search=separate", "judge.trainings=12").search.judge == Race(trainings=12)  # type: ignore[attr-defined]
    assert compose_study().search.judge is None  # type: ignore[attr-defined]
    of_photos: Any = compose_study("dataset.path=photos", dataset="folder").search
    assert of_photos.judge.trainings == 20


def tuning(trainings: int, **changes: Any) -> Study:
    """A study whose race tunes the recipe."""
    race = Race(trainings, folds=2, untuned=("trivialaugment", "none"), family=False, tune="recipe")
    return replace(STUDY, search=PolicyOnly(race, "tiny_cnn", proposals=()), **changes)  # type: ignore[arg-type]


def test_all_rows_of_a_seed_train_with_the_recipe_that_the_race_chose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tuning(trainings=4, controls=("none",), retrain=False)
    searched = run_study(study, tmp_path / "run")
    path = tmp_path / "run" / SEARCH / "result.json"
    assert set(searched.searches[0][TUNED]) == {"learning_rate", "weight_decay"}
    assert "All rows train with" in searched.report.read_text()
    tried = {
        json.loads(one.with_name("settings.json").read_text())["recipe"]["learning_rate"]
        for one in _jobs(tmp_path / "run")
    }
    assert tried <= {0.02 * factor for factor in (0.3, 1.0, 3.0)}
    assert len(tried) > 1
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {TUNED: {"learning_rate": 3.0, "weight_decay": 0.2}}))
    other = tmp_path / "run" / "search-seed4"
    shutil.copytree(path.parent, other)
    (other / "result.json").write_text(json.dumps(told | {TUNED: {"learning_rate": 0.3, "weight_decay": 1.0}}))
    identity = json.loads((other / "settings.json").read_text())
    digest = Loaded(DIGITS).fold_splits(4, 0, 2).digest
    identity |= {"seed": 4, "data": identity["data"] | {"digest": digest}}
    (other / "settings.json").write_text(json.dumps(identity))
    both = replace(study, seeds=(3, 4), retrain=True)
    result = run_study(both, tmp_path / "run")
    assert run_study(both, tmp_path / "run").comparison == result.comparison, "a finished study is read"
    for row in ("found", "none"):
        rates = []
        for seed in (3, 4):
            settings = json.loads((tmp_path / "run" / row / f"seed{seed}" / "settings.json").read_text())
            rates.append(settings["tuned"]["learning_rate"])
            assert settings["recipe"]["learning_rate"] == 0.02, "as it was given"
        assert rates == pytest.approx([0.06, 0.006])
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert run_script("retrain", "run=run", "controls=[]", "device=cpu", "threads=1") == 0
        assert "recipe.learning_rate x3, recipe.weight_decay x0.2" in capsys.readouterr().out
    settings = json.loads((tmp_path / "run" / "retrained" / "found" / "seed3" / "settings.json").read_text())
    assert settings["tuned"]["learning_rate"] == pytest.approx(0.06)


def test_a_seed_without_a_tuned_recipe_trains_as_given(tmp_path: Path) -> None:
    (tmp_path / "seed1").mkdir()
    (tmp_path / "seed1" / "result.json").write_text(json.dumps({TUNED: {"weight_decay": 5.0}}))
    grid = Grid(("none",), DIGITS, seeds=(0, 1), tuned=str(tmp_path / "seed{seed}" / "result.json"))
    assert grid.recipe_of(0) == grid.recipe
    assert grid.recipe_of(1) == replace(grid.recipe, weight_decay=5 * grid.recipe.weight_decay)


@pytest.mark.parametrize(
    ("weight_decay", "told"), [(0.3, "recipe.weight_decay by 5"), (0.0, "recipe.weight_decay, which is 0")]
)
def test_a_recipe_that_cannot_be_multiplied_is_refused_before_anything_is_written(
    weight_decay: float, told: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=told):
        run_study(
            tuning(trainings=4, controls=(), recipe=replace(STUDY.recipe, weight_decay=weight_decay)), tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()


def test_a_rate_that_makes_trainings_diverge_is_no_end_of_the_race(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverged = []

    def advance(training: Training, epochs: int) -> Any:
        if training.plan.recipe.learning_rate != STUDY.recipe.learning_rate:
            for weight in training.trainer.network().parameters():
                weight.data.fill_(float("nan"))
            diverged.append(training.plan.folder)
            raise training.plan.diverged("the training loss is nan")
        return whole(training, epochs)

    whole = Training.advance
    monkeypatch.setattr(Training, "advance", advance)
    result = run_study(tuning(trainings=8, retrain=False), tmp_path)
    assert result.searches[0]["trainings"] == 8
    assert diverged
    assert result.searches[0][TUNED]["learning_rate"] == 1.0


def test_other_settings_or_proposals_of_a_judge_are_refused_before_anything_is_searched_again(tmp_path: Path) -> None:
    study = replace(STUDY, search=KINDS["joint"], retrain=False)
    run_study(study, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    other = replace(KINDS["joint"], judge=replace(JUDGE, trainings=8))  # type: ignore[type-var]
    with pytest.raises(InputError, match="trainings was 6, is 8"):
        run_study(replace(study, search=other), tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")} == before
    (tmp_path / "proposal-found" / SEARCH / "policy.json").write_text(named_policy("autoaugment").to_json())
    with pytest.raises(InputError, match=r"found\.found was"):
        run_study(study, tmp_path)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["judge.untuned=[none]"], "judge.untuned lacks"),
        (["search=policy", "searcher.untuned=[none]"], "searcher.untuned lacks"),
        (["search=policy", "proposals=[dada2020_relax]", "search_recipe.epochs=80"], "search_recipe is not read"),
    ],
)
def test_errors_name_the_setting_that_was_typed(words: list[str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        compose_study(*words)


def test_torchrun_is_refused_where_a_search_makes_many_trainings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("jointsearch.study.processes", lambda: 2)
    with pytest.raises(InputError, match="use jobs=2 without torchrun"):
        run_study(replace(STUDY, search=KINDS["joint"]), tmp_path / "run")
