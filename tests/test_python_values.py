"""What a notebook hands to the settings: objects, paths, ranges, dicts; and what it is told where that does not fit."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jointsearch import Digits, Folder, Recipe, Study, compose_study
from jointsearch.loops.recipe import SearchRecipe, Warmup
from jointsearch.search_kinds import CellsAlone, Joint, OneAfterTheOther, PolicyOnly
from jointsearch.searchers.faster_aa import FasterAA
from jointsearch.searchers.spaces import Start
from jointsearch.searchers.table import Trials
from search_spaces.errors import InputError


def composed(*words: str, **settings: Any) -> Callable[[], Study]:
    return lambda: compose_study(*words, **settings)


def test_objects_take_the_place_of_names_and_bring_what_goes_with_them() -> None:
    search, recipe = PolicyOnly(Trials(measurements=3), "tiny_cnn"), Recipe(epochs=3)
    study = compose_study(dataset=Digits(reduced=100), search=search, recipe=recipe)
    assert (study.dataset, study.search, study.recipe) == (Digits(reduced=100), search, recipe)
    assert study.controls == compose_study("search=policy").controls
    by_name: Any = compose_study("search=policy", searcher=FasterAA(learning_rate=0.5)).search
    assert by_name.searcher == FasterAA(learning_rate=0.5)
    start = Start("autoaugment", share="none")
    kind: Any = compose_study("search=policy", "searcher=differentiable", policy_space=start).search
    assert kind.searcher.policy_space == start


@pytest.mark.parametrize("path", ["a b,c", Path("a, b [c]=d"), "${HOME}", "it's", "42", "null"])
def test_a_path_may_have_any_characters(path: Any) -> None:
    study = compose_study("dataset=folder", **{"dataset.path": path})
    assert study.dataset == Folder(path=str(path)) == compose_study(dataset=Folder(path=str(path))).dataset


@pytest.mark.parametrize(
    "seeds", [range(3), [0, 1, 2], (0, 1, 2), np.arange(3)], ids=lambda seeds: type(seeds).__name__
)
def test_sequences_are_lists_of_their_entries(seeds: Any) -> None:
    assert compose_study(seeds=seeds).seeds == (0, 1, 2)


def test_a_dict_sets_what_it_holds_and_leaves_the_rest() -> None:
    recipe = compose_study(recipe={"epochs": 4, "warmup": {"epochs": 2}}).recipe
    assert recipe == compose_study("recipe.epochs=4", "recipe.warmup.epochs=2").recipe
    assert compose_study(recipe={"warmup": Warmup(2)}).recipe.warmup == Warmup(2)
    assert compose_study(dataset={"standard": {"cutout": 2}}).dataset.standard.crop_padding == 1


REFUSED = {
    "run, a value": (composed(run="x"), 'name the folder in run_study(study, "X")'),
    "run, a word": (composed("run=x"), "run is no setting of a study; leave it out here"),
    "budget": (composed(budget="x"), "budget is x; wanted a number"),
    "a class": (composed(dataset=Digits), "give a settings object, a dict of settings, or one of celeba,"),
    "a number": (composed(search=3), "search is 3; give a settings object"),
    "unfit": (composed(dataset=Recipe()), "dataset=Recipe does not fit here, because it has no name, standard,"),
    "unfit class": (composed(recipe=Digits()), "recipe=digits does not fit here; use recipe=recipe"),
    "beside": (composed("recipe.epochs=3", recipe=Recipe()), "recipe.epochs is given beside recipe=Recipe(...)"),
    "inside": (composed(search=PolicyOnly(), network="resnet18"), "set it in the object that is given as search"),
    "mistyped": (composed(search=PolicyOnly(), sed=(0,)), "did you mean seeds"),
    "name": (lambda: Study(dataset="digits"), "as in dataset=Digits(), or compose_study(dataset='digits')"),
    "none": (lambda: Study(dataset=None), "Study.dataset is None; wanted settings, as in dataset=Digits()"),
    "object": (lambda: Study(dataset=Recipe()), "Study.dataset=Recipe does not fit here, because it has no name,"),
    "class": (lambda: Study(recipe=Recipe), "wanted settings, as in recipe=Recipe()"),
    "searcher": (lambda: PolicyOnly(Digits()), "PolicyOnly.searcher=Digits does not fit here, because it has no start"),
    "searcher of joint": (lambda: Joint("first_order"), "wanted settings, as in searcher=Differentiable()"),
    "network": (
        lambda: PolicyOnly(network=3),
        "PolicyOnly.network is 3; wanted settings, as in network=NetworkSettings()",
    ),
    "policy": (lambda: CellsAlone(policy=None), "CellsAlone.policy is None; wanted a text"),
    "epochs": (lambda: OneAfterTheOther(policy_epochs="x"), "policy_epochs is 'x'; wanted a whole number or null"),
    "recipe": (lambda: OneAfterTheOther(search_recipe=Recipe()), "use OneAfterTheOther.search_recipe=searchrecipe"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_answered_with_what_to_write(case: str) -> None:
    make: Any = REFUSED[case][0]
    with pytest.raises(InputError, match=re.escape(REFUSED[case][1])):
        make()


@pytest.mark.parametrize(
    "settings", [{"search_recipe": SearchRecipe(epochs=60_000)}, {"recipe": Recipe(epochs=60_000)}]
)
def test_a_budget_that_is_too_much_is_named(settings: dict[str, Any]) -> None:
    with pytest.raises(
        InputError, match=r"^budget=1000 does not fit these epochs \(.*epochs is 60000000.*give another b"
    ):
        compose_study("search=policy", budget=1000, **settings)
