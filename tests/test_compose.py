"""From words to settings: groups, defaults, budgets, mistakes, and data sets that are fetched when they are absent."""

import importlib
import re
import socket
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from jointsearch.commands import joint_search
from jointsearch.commands.help import rows
from jointsearch.compose import CONFIGS, compose_study, compose_words, content, groups
from jointsearch.data import cifar, svhn
from jointsearch.data.datasets import DATASETS, Cifar100, Digits, Folder
from jointsearch.loops.recipe import Recipe, SearchRecipe
from jointsearch.search_kinds import POLICY_RECIPE
from jointsearch.settings import TARGET, build, target_class
from jointsearch.study import Study
from search_spaces.errors import InputError
from tests.scripts_bench import choices, refusal, run_script

UNKNOWN = {
    "recipe.epoch=3": "did you mean recipe.epochs?",
    "searcher.learning_rte=0.1": "did you mean searcher.learning_rate?",
    "dataset.standard.cutot=8": "did you mean dataset.standard.cutout?",
    "supernet.layer=3": "did you mean supernet.layers?",
    "seed=[0]": "did you mean seeds",
    "searcher.temperature=1": "is not a setting of searcher=Differentiable",
    "estimator.baseline=ema": "is not a setting of estimator=RelaxSettings",
    "policy_space.sub_policies=3": "is not a setting of policy_space=Pairs",
    "dataset.path=x": "is not a setting of dataset=Digits",
    "network=resnet18": "use it with search=policy, search=separate",
    "batch_size=5": "did you mean recipe.batch_size or search_recipe.batch_size?",
    "lr=0.1": "did you mean recipe.learning_rate or architecture.learning_rate or search_recipe.learning_rate or",
    "recipe.lr=0.1": "did you mean recipe.learning_rate?",
    "search=policy searcher=faster_aa searcher.lr=0.1": "did you mean searcher.learning_rate?",
    "dataset=/my/path": "/my/path is a place and no name of a data set; write dataset=folder dataset.path=/my/path",
    "policy_epochs=3": "use it with search=separate",
    "search=architecture estimator.temperature=1": "use it with searcher=differentiable",
    "search=policy supernet.layers=3": "use it with search=architecture, search=joint, search=separate",
}


RESEMBLES_NOTHING = ("zzz=1", "recipe.zzz=1", "recipe.optimizer=zzz")


@pytest.mark.parametrize("word", RESEMBLES_NOTHING)
def test_what_resembles_nothing_is_answered_with_three_names_and_not_with_all(word: str) -> None:
    with pytest.raises(InputError, match=r"choose one of the \d+ known ones, the nearest are \w+, \w+, \w+$"):
        compose_study(word)


@pytest.mark.parametrize("words", UNKNOWN)
def test_an_unknown_key_is_answered_with_what_was_wanted(words: str) -> None:
    with pytest.raises(InputError, match=re.escape(UNKNOWN[words])) as caught:
        compose_study(*words.split())
    assert "\n" not in str(caught.value)


def test_a_partial_group_keeps_the_defaults_of_its_data_set() -> None:
    standard = compose_study("dataset=folder", "dataset.standard.cutout=8").dataset.standard
    assert (standard.crop_padding, standard.flip, standard.cutout) == (4, False, 8)
    standard = compose_study("dataset=svhn", "dataset.standard.flip=true").dataset.standard
    assert (standard.crop_padding, standard.flip, standard.cutout) == (4, True, 20)


def test_the_words_of_one_composition_do_not_reach_the_next() -> None:
    before = compose_words("joint_search", ["dataset=svhn"])
    changed = compose_words("joint_search", ["dataset=svhn", "dataset.standard.crop_padding=1", "search_recipe.x=[1]"])
    assert changed.values["dataset"]["standard"]["crop_padding"] == 1
    changed.values["dataset"]["standard"]["flip"] = "changed"
    assert compose_words("joint_search", ["dataset=svhn"]) == before


def test_a_word_that_adds_counts_in_its_place() -> None:
    assert compose_words("joint_search", ["recipe.x=1", "++recipe.x=2"]).values["recipe"]["x"] == 2
    assert compose_words("joint_search", ["++recipe.x=2", "recipe.x=1"]).values["recipe"]["x"] == 1


def test_a_folder_in_python_is_the_folder_of_the_command_line() -> None:
    assert compose_study("dataset=folder").dataset == Folder()
    assert not Folder().standard.flip


@pytest.mark.parametrize("name", DATASETS)
def test_a_data_set_has_the_same_defaults_in_python_and_on_the_command_line(name: str) -> None:
    assert compose_study(dataset=name).dataset == DATASETS[name]()
    text = (CONFIGS / "dataset" / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith(f"# python scripts/retrain.py dataset={name}")


def test_every_named_data_set_has_its_yaml() -> None:
    named = ["bccd", "celeba", "coco", "imagenet", "voc", "waterbirds"]
    assert sorted([*DATASETS, *named]) == groups()["dataset"]


# These are what their names say, and differ from the class that they start from.
DIFFERENT = {"searcher=shuffled_reward", "policy_space=trivialaugment"}
NAMED = [word for group in ("searcher", "estimator", "policy_space") for word in choices(group)]


@pytest.mark.parametrize("word", [word for word in NAMED if word not in DIFFERENT and not word.endswith("=none")])
def test_a_choice_has_the_same_defaults_in_python_and_on_the_command_line(word: str) -> None:
    group, _, name = word.partition("=")
    whole = {key: value for key, value in content(CONFIGS / group / f"{name}.yaml").items() if key != TARGET}
    cls = target_class(content(CONFIGS / group / f"{name}.yaml")[TARGET])
    assert not whole
    assert build(cls, whole) == cls()


@pytest.mark.parametrize("word", choices("search"))
def test_a_search_has_the_same_defaults_in_python_and_on_the_command_line(word: str) -> None:
    kind = compose_study(word, dataset="cifar10").search
    assert kind == type(kind)()


def test_a_recipe_of_a_search_is_whole_also_where_the_search_has_another_one() -> None:
    study: Any = compose_study("search=policy", "search_recipe=cells", "searcher=differentiable")
    assert study.search.search_recipe == SearchRecipe()


def test_recipes_of_a_search_have_the_same_defaults_in_python_and_on_the_command_line() -> None:
    for name, recipe in (("cells", SearchRecipe()), ("policy", POLICY_RECIPE)):
        assert build(SearchRecipe, content(CONFIGS / "search_recipe" / f"{name}.yaml")) == recipe
    for name in ("cells", "small", "full"):
        assert build(Recipe, content(CONFIGS / "recipe" / f"{name}.yaml"))


def test_the_budget_multiplies_epochs_of_searches_trainings_and_where_they_begin_to_learn() -> None:
    words = ("search=separate", "policy_epochs=10", "search_recipe.epochs=50", "architecture.from_epoch=6")
    study = compose_study(*words, "recipe.epochs=30", budget=0.5)
    kind: Any = study.search
    assert (kind.policy_epochs, kind.search_recipe.epochs, kind.architecture.from_epoch) == (5, 25, 3)
    assert study.recipe.epochs == 15
    assert compose_study("search=policy", budget=0.001).recipe.epochs == 1
    for wrong in (0, -1, 2000):
        with pytest.raises(InputError, match=r"wanted a number from 0\.0001 to 1000"):
            compose_study(budget=wrong)


def test_python_values_and_words_say_the_same() -> None:
    words = ("search=policy", "network=wide_resnet16_1", "seeds=[0,2]", "retrain=false", "threads=null")
    values = {"search": "policy", "network": "wide_resnet16_1", "seeds": (0, 2), "retrain": False, "threads": None}
    assert compose_study(*words) == compose_study(**values)
    assert isinstance(compose_study().dataset, Digits)
    assert isinstance(compose_study(), Study)


@pytest.mark.parametrize("script", ["joint_search", "retrain", "detect"])
def test_help_lists_every_setting_once_with_its_comment(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_script(script, "--help") == 0
    printed = capsys.readouterr().out
    head, _, listed = printed.partition("Settings, with the values that they have now:\n")
    lines = re.findall(r"^  ([a-z_.]+)=.*?  # (.+)$", listed, re.MULTILINE)
    module = importlib.import_module(f"jointsearch.commands.{script}")
    composed = compose_words(script, [])
    given = joint_search.read(composed) if script == "joint_search" else build(module.Settings, composed.values)
    assert [name for name, _ in lines] == [row.name for row in rows(given)]
    assert len({name for name, _ in lines}) == len(lines) <= 70
    first = head.partition("Most used:\n")[2].partition("\n\n")[0]
    shown = set(re.findall(r"^  ([a-z_.]+)=", first, re.MULTILINE))
    assert shown == set(module.MOST_USED) - unused(given)
    assert (
        "  dataset=bccd|coco|shapes"
        if script == "detect"
        else "  dataset=celeba|cifar10|cifar100|colored_digits|digits"
    ) in first


def unused(given: Any) -> set[str]:
    """Those of the most used that are no setting of the search that is chosen."""
    names = {row.name for row in rows(given)} | set(groups()) | {item.name for item in fields(given)}
    assert is_dataclass(given)
    return {"network"} - names


NAMED_SETS = ("cifar10", "cifar100", "svhn")


def without_network(*_: object, **__: object) -> None:
    raise OSError("no network")


def test_a_named_data_set_downloads_unless_forbidden() -> None:
    assert compose_study("dataset=cifar100").dataset == Cifar100(download=True)
    assert all(DATASETS[name]().download for name in NAMED_SETS)


@pytest.mark.parametrize("name", NAMED_SETS)
@pytest.mark.parametrize("script", ["joint_search", "retrain", "check_data"])
def test_an_absent_data_set_without_a_network_is_one_line_and_leaves_nothing_behind(
    script: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket, "getaddrinfo", without_network)
    if script == "check_data":
        assert run_script(script, f"dataset={name}") == 2
        assert "cannot be downloaded (" in capsys.readouterr().out
    else:
        message = refusal(
            capsys, script, f"dataset={name}", "search=policy" if script == "joint_search" else "seeds=[0]"
        )
        assert "cannot be downloaded (" in message
        assert "set dataset.path to where it is" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMED_SETS)
def test_a_forbidden_download_is_not_attempted(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    attempts = list[str]()
    for module in (cifar, svhn):
        monkeypatch.setattr(module, "fetch", lambda url, *rest: attempts.append(url))
    monkeypatch.chdir(tmp_path)
    message = refusal(capsys, "retrain", f"dataset={name}", "dataset.download=false")
    assert "leave dataset.download=false out" in message
    assert not attempts


@pytest.mark.parametrize("word", ["searcher.estimator=gumbel", "searcher.policy_space.top=5", "search.cells.layers=7"])
def test_a_group_written_inside_another_one_is_refused_and_not_ignored(word: str) -> None:
    with pytest.raises(InputError, match=r"is a group of its own; write "):
        compose_study(word)


def test_a_preset_whose_choices_are_not_read_is_refused() -> None:
    with pytest.raises(InputError, match="not read by"):
        compose_study("preset=joint_trivialaugment", "search=architecture")


def test_a_budget_never_leaves_nothing_to_learn() -> None:
    study = compose_study("searcher.from_epoch=39", "budget=0.1")
    assert study.search.searcher.from_epoch == 3  # type: ignore[attr-defined]
    assert study.search.search_recipe.epochs == 4  # type: ignore[attr-defined]


@pytest.mark.parametrize("budget", [0.5, 0.3, 0.1, 0.05, 0.0001])
@pytest.mark.parametrize(
    "words", ["search=policy", "search=policy searcher=trials searcher.measurements=10", "search=separate"]
)
def test_a_small_budget_leaves_every_search_by_trials_its_two_measurements(words: str, budget: float) -> None:
    more = ["searcher=trials", "policy_epochs=20"] if words == "search=separate" else []
    stage = compose_study(*words.split(), *more, budget=budget).search.stages()[0]
    stage.check_epochs(10)  # refuses what does not fit
    assert stage.recipe.epochs == max(3, round(20 * budget))
    assert stage.searcher(None, 0).measurements >= 2


def test_epochs_that_were_too_few_without_a_budget_stay_too_few() -> None:
    stage = compose_study("search=policy", "search_recipe.epochs=2", budget=0.5).search.stages()[0]
    with pytest.raises(InputError, match="take an epoch each in the second half of 2 epochs"):
        stage.check_epochs(10)


@pytest.mark.parametrize("data", ["folder", "hf"])
@pytest.mark.parametrize("search", ["joint", "architecture", "separate"])
def test_a_folder_gets_sizes_for_some_thousand_photos(data: str, search: str) -> None:
    study: Any = compose_study(f"dataset={data}", f"search={search}")
    assert (study.search.supernet.channels, study.search.supernet.layers, study.search.cells.layers) == (8, 3, 3)
    assert (study.search.search_recipe.epochs, study.recipe.epochs, study.recipe.drop_path) == (25, 60, 0)


def test_a_preset_or_an_experiment_keeps_its_own_sizes_on_a_folder() -> None:
    for word in ("preset=kashima2021", "preset=darts2019_first"):
        study: Any = compose_study("dataset=folder", word)
        assert (study.search.cells.channels, study.search.cells.layers) == (36, 20)
        assert (study.recipe.epochs, study.recipe.batch_size, study.recipe.drop_path) == (600, 96, 0.2)
    study = compose_study("experiment=cells_cifar10_1000")
    assert (study.search.search_recipe.epochs, study.recipe.epochs) == (40, 200)
