"""Every experiment, and every preset on a data set of its paper, composes and takes a step, on a few small images."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jointsearch.commands import retrain
from jointsearch.compose import compose_study, compose_words, offered
from jointsearch.data.load import Loaded
from jointsearch.device import choose_device
from jointsearch.loops.grid import check_grid
from jointsearch.study import prepare
from search_spaces.errors import InputError
from tests.test_my_photos import draw_photos

# Each makes a study small, where it has the setting.
SMALLER = (
    *("network=tiny_cnn", "supernet.channels=4", "supernet.layers=3", "cells.channels=4", "cells.layers=3"),
    *("recipe.auxiliary_weight=0", "recipe.batch_size=8", "search_recipe.batch_size=8", "policy_images=40"),
    *("searcher.folds=2", "proposals=[]", "dataset.reduced=60", "dataset.validation=10"),
)
OF_KASHIMA = [f"experiment=kashima2021_table preset={one}" for one in ("separate2021", "darts2019_first")]
ON_IMAGENET = [f"preset={one} dataset=imagenet" for one in ("dada2020_relax", "ohl2019")]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of small images."""
    draw_photos(folder := tmp_path_factory.mktemp("data") / "photos", 40)
    return folder


def small(command: str, words: list[str], photos: Path) -> list[str]:
    """The words, with the photos in the place of the data set, and with what makes it short."""
    named = any(word.startswith("dataset=") for word in words)
    data = [f"dataset.path={photos}", f"dataset.test_path={photos}", "dataset.image_size=32", "dataset.workers=0"]
    words = [*words, *([] if named else ["dataset=folder"]), *data]
    for more in SMALLER:
        words = [*words, more] if composes(command, [*words, more]) else words
    return words


def composes(command: str, words: list[str]) -> bool:
    try:
        read(command, words)
    except InputError:
        return False
    return True


def read(command: str, words: list[str]) -> Any:
    """The study, or the trainings, of some words."""
    if command == "retrain":
        return retrain.grid_of(retrain.read(compose_words("retrain", [*words, "seeds=[0]"])))
    return compose_study(*words, device="cpu", seeds=(0,), threads=1)


def experiments(command: str) -> Iterator[str]:
    yield from (f"experiment={name}" for name in offered("experiment", command))


@pytest.mark.parametrize("words", [*experiments("joint_search"), *OF_KASHIMA, *ON_IMAGENET])
def test_a_search_takes_a_step(words: str, photos: Path, tmp_path: Path) -> None:
    study = read("joint_search", small("joint_search", words.split(), photos))
    prepared = prepare(study, tmp_path / "out")
    assert set(prepared.seconds) >= {stage.outcome for stage in prepared.stages}
    assert ("trainings" in prepared.seconds) == study.retrain
    assert all(seconds > 0 for seconds in prepared.seconds.values())


@pytest.mark.parametrize(
    "words", [*experiments("retrain"), "preset=fast_autoaugment2019 dataset=imagenet policy=trivialaugment"]
)
def test_a_training_takes_a_step(words: str, photos: Path, tmp_path: Path) -> None:
    grid = read("retrain", small("retrain", words.split(), photos))
    assert check_grid(grid, tmp_path / "out", Loaded(grid.dataset), device=choose_device("cpu")) > 0
