"""retrain run=SEARCH trains as the search would have: its data, network, cells and recipe, unless others are typed."""

import json
from pathlib import Path

import pytest

from jointsearch import Folder, compose_study
from jointsearch.commands import retrain
from jointsearch.compose import compose_words
from jointsearch.loops.grid import CellsSettings
from jointsearch.loops.recipe import Recipe
from jointsearch.networks.network_settings import NetworkSettings
from jointsearch.runs.run_folder import write_json
from jointsearch.study import Study
from search_spaces.controls import named_policy
from search_spaces.errors import InputError
from search_spaces.genotype import PUBLISHED

PHOTOS = ["dataset=folder", "dataset.path=photos/mine", "dataset.image_size=48", "dataset.reduced=100"]
POLICY = ["search=policy", "network=resnet18", "recipe.epochs=7", "recipe.warmup.epochs=2", *PHOTOS]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("photos/mine").mkdir(parents=True)
    return tmp_path


def ended(*words: str, typed: bool = True) -> Study:
    """A search in the folder out, of which all is there that trainings read: made with words, or from Python."""
    study, found = compose_study(*words), Path("out/search-seed4")
    found.mkdir(parents=True)
    named_policy("random-s1").save(found / "policy.json")
    if study.finds_cells:
        PUBLISHED["DARTS_V2"].save(found / "genotype.json")
    plain = study.of_trainings()
    write_json(found / "settings.json", {"dataset": plain["dataset"]})
    write_json(Path("out/study.json"), plain)
    if typed:
        write_json(Path("out/words.json"), {"command": "joint_search", "words": list(words), "plugins": False})
    return study


def retrained(*words: str) -> retrain.Settings:
    return retrain.of_search(retrain.read(compose_words("retrain", ["run=out", *words])))


def test_data_network_and_recipe_are_those_of_the_search(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    study = ended(*POLICY)
    grid = retrain.grid_of(retrained())
    assert grid.dataset == study.dataset == Folder("photos/mine", image_size=48, reduced=100)
    assert (grid.network, grid.recipe, grid.seeds) == (NetworkSettings("resnet18"), study.recipe, (4,))
    (told,) = caplog.messages
    assert told.startswith("As in the search out: dataset=folder dataset.path=photos/mine dataset.image_size=48 ")
    assert told.endswith("network=resnet18")
    assert " recipe.epochs=7 " in told
    assert " recipe.warmup.epochs=2 " in told
    assert "learning_rate" not in told  # which is that of any training


def test_what_is_typed_stays(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    ended(*POLICY)
    given = retrained("dataset.image_size=32", "recipe.epochs=9", "network=tiny_cnn")
    assert given.dataset == Folder("photos/mine", image_size=32, reduced=100)
    assert (given.recipe.epochs, given.recipe.batch_size, given.recipe.warmup.epochs) == (9, 64, 2)
    assert given.network == NetworkSettings("tiny_cnn")
    assert not {"image_size", "network", "recipe.epochs"} & set(caplog.messages[0].replace("=", " ").split())
    assert retrained("recipe=full").recipe == Recipe(epochs=200, evaluate_every=5)


def test_cells_have_the_size_and_random_ones_the_space_of_the_search(folder: Path) -> None:
    ended("dataset=digits", "cells.layers=5")
    given = retrained("controls=[none@random]")
    assert given.cells == CellsSettings(channels=8, layers=5)
    assert given.random_space == "small"
    grid = retrain.grid_of(given)
    assert (grid.genotype, grid.recipe.epochs, grid.recipe.drop_path) == ("out/search-seed{seed}/genotype.json", 40, 0)


def test_data_that_lie_nowhere_have_to_be_named_again(folder: Path) -> None:
    study = ended(*POLICY, typed=False)
    with pytest.raises(InputError, match=r"on dataset.path=mine, of which a run folder keeps only the name; give"):
        retrained()
    assert retrained("dataset.path=photos/mine").dataset == study.dataset
    assert retrained("dataset=folder", "dataset.path=photos/mine").dataset == study.dataset
    assert str(folder) not in json.dumps(study.of_trainings())


def test_other_data_are_used_only_when_asked_for(folder: Path) -> None:
    ended(*POLICY)
    with pytest.raises(InputError, match="was on dataset=folder, and dataset is shapes; give dataset=folder, or write"):
        retrained("dataset=shapes")
    with pytest.raises(InputError, match=r"was on dataset\.path=mine, and dataset.path is photos"):
        retrained("dataset.path=photos")
    given = retrain.read(compose_words("retrain", ["policy=out", "dataset=shapes", "run=elsewhere"]))
    assert given.network is None


def test_a_preset_beside_the_run_stays_too(folder: Path) -> None:
    ended(*POLICY)
    given = retrain.read(compose_words("retrain", ["run=out", "preset=fast_autoaugment2019"]))
    assert (given.network, given.recipe.batch_size) == (NetworkSettings("wide_resnet40_2"), 512)


def test_a_seed_that_was_not_searched_is_answered_with_those_that_were(folder: Path) -> None:
    ended(*POLICY)
    with pytest.raises(InputError, match=r"seeds is \[4, 7\], and out has no finished search with 7; choose from 4$"):
        retrain.grid_of(retrained("seeds=[4,7]"))
