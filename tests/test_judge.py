"""Joint and separate search whose findings a race judges, and trainings with the recipe that a race tunes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jointsearch import compose_study
from jointsearch.jobs import TUNED
from jointsearch.loops.grid import CellsSettings, Grid
from jointsearch.loops.recipe import Recipe, SearchRecipe
from jointsearch.networks.create import plain_options
from jointsearch.search_kinds import Joint, OneAfterTheOther, PolicyOnly, SupernetSettings
from jointsearch.searchers.race import Race
from jointsearch.study import Study, run_study
from search_spaces.cells.random import random_genotype
from search_spaces.cells.space import CELL_SPACES
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
    assert "minus trivialaugment@random, shrunken" in page
    assert "6 whole trainings" in page
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
    assert of_photos.judge.trainings == 12


def test_all_rows_of_a_seed_train_with_the_recipe_that_the_race_chose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    race = Race(trainings=4, folds=2, untuned=("trivialaugment", "none"), family=False, tune="recipe")
    kind = PolicyOnly(race, "tiny_cnn", proposals=())  # type: ignore[arg-type]
    study = replace(STUDY, search=kind, controls=("none",), retrain=False)
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
    run_study(replace(study, retrain=True), tmp_path / "run")
    for row in ("found", "none"):
        recipe = json.loads((tmp_path / "run" / row / "seed3" / "settings.json").read_text())["recipe"]
        assert recipe["learning_rate"] == pytest.approx(0.06)
        assert recipe["weight_decay"] == pytest.approx(0.2 * STUDY.recipe.weight_decay)
    monkeypatch.chdir(tmp_path)
    assert run_script("retrain", "run=run", "controls=[]", "device=cpu", "threads=1") == 0
    recipe = json.loads((tmp_path / "run" / "retrained" / "found" / "seed3" / "settings.json").read_text())["recipe"]
    assert recipe["learning_rate"] == pytest.approx(0.06)


def test_a_seed_without_a_tuned_recipe_trains_as_given(tmp_path: Path) -> None:
    (tmp_path / "seed1").mkdir()
    (tmp_path / "seed1" / "result.json").write_text(json.dumps({TUNED: {"weight_decay": 5.0}}))
    grid = Grid(("none",), DIGITS, seeds=(0, 1), tuned=str(tmp_path / "seed{seed}" / "result.json"))
    assert grid.recipe_of(0) == grid.recipe
    assert grid.recipe_of(1) == replace(grid.recipe, weight_decay=5 * grid.recipe.weight_decay)
