"""What Python makes where nothing is said is what the command line makes: data, recipes, device."""

from pathlib import Path
from typing import Any

import pytest
import torch

from jointsearch import Cifar10, Coco, Digits, Grid, NetworkSettings, Standard, Study, Voc, compose_study
from jointsearch.commands import retrain
from jointsearch.compose import compose_words
from jointsearch.data.datasets import DATASETS
from jointsearch.loops import plan as plan_module
from jointsearch.loops.plan import Plan
from jointsearch.loops.recipe import Recipe
from jointsearch.search_kinds import CellsAlone, Joint, OneAfterTheOther, PolicyOnly
from jointsearch.settings import build

KINDS: dict[str, Any] = {
    "joint": Joint,
    "policy": PolicyOnly,
    "architecture": CellsAlone,
    "separate": OneAfterTheOther,
}


def of_retrain(*words: str) -> retrain.Settings:
    return build(retrain.Settings, compose_words("retrain", words).values)


@pytest.mark.parametrize("name", DATASETS)
def test_a_data_set_is_the_same_in_python_and_in_every_command(name: str) -> None:
    assert compose_study(dataset=name).dataset == DATASETS[name]() == of_retrain(f"dataset={name}").dataset


@pytest.mark.parametrize(("name", "cls"), [("voc", Voc), ("coco", Coco)])
def test_a_data_set_with_objects_is_the_same_in_python_and_in_detect(name: str, cls: Any) -> None:
    values = compose_words("detect", [f"dataset={name}"]).values["dataset"]
    assert build(cls, values, "dataset") == cls()


SMALLER = ("digits", "folder", "hf")  # where cells are searched, by configs/specialized


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in KINDS for name in DATASETS if kind == "policy" or name not in SMALLER]
)
def test_a_study_searches_and_trains_as_the_command_line_does(kind: str, name: str) -> None:
    composed, made = compose_study(f"search={kind}", dataset=name), Study(DATASETS[name](), KINDS[kind]())
    assert (made.search, made.recipe, made.device) == (composed.search, composed.recipe, composed.device)


def test_a_recipe_that_is_given_stays_even_where_it_holds_the_defaults() -> None:
    assert Study(Cifar10(), recipe=Recipe()).recipe == Recipe()
    assert compose_study("search=policy", "recipe.epochs=7", dataset="cifar10").recipe == Recipe(
        epochs=7, batch_size=64
    )


def test_a_grid_trains_as_retrain_does() -> None:
    made, composed = Grid(("none",), Digits()), of_retrain()
    assert (made.dataset, made.recipe) == (composed.dataset, composed.recipe)
    assert made.network == NetworkSettings(retrain.NETWORK)


@pytest.mark.parametrize("has_gpu", [True, False])
def test_a_plan_takes_the_gpu_where_there_is_one(has_gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: asked.append(True) or has_gpu)
    plan = Plan(Path("x"), "tiny_cnn", Recipe(), Standard(), seed=0)
    assert asked
    assert plan.device.type == ("cuda" if has_gpu else "cpu")
    assert plan_module.choose_device("cpu").type == "cpu"
