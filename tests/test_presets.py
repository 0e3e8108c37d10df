"""Presets and experiments beside what the user writes: what counts, what is refused, and who is named."""

import json
import re
from pathlib import Path

import pytest

from jointsearch.commands.command import run
from jointsearch.compose import compose_study, compose_words
from jointsearch.data.datasets import Cifar100
from jointsearch.report.page_run import read_run, training_images
from jointsearch.searchers.faster_aa import FasterAA
from jointsearch.searchers.random import RandomSearch
from search_spaces.errors import InputError
from tests.scripts_bench import refusal


@pytest.mark.parametrize("kind", ["joint", "separate", "architecture"])
def test_a_preset_of_ours_is_a_search_as_it_is(kind: str) -> None:
    assert compose_study(f"preset={kind}") == compose_study(f"search={kind}")


OVERRULED = {
    "joint_search preset=kashima2021 recipe=full": "recipe.epochs=200",
    "joint_search search=joint recipe=full": "recipe.epochs=200",
    "joint_search experiment=searches_cifar10_1000 search_recipe=cells": "search_recipe.epochs=50",
    "joint_search preset=dada2020_relax search_recipe=cells": "search_recipe.epochs=50",
    "retrain experiment=cifar10_1000 recipe=small": "recipe.epochs=60",
}


@pytest.mark.parametrize("command", OVERRULED)
def test_a_choice_that_a_preset_would_overrule_is_refused(command: str) -> None:
    script, whole, *words = command.split()
    with pytest.raises(InputError, match=rf"{whole}[a-z= ]* would overrule .*{re.escape(OVERRULED[command])}|{DIGITS}"):
        compose_words(script, [whole, *words])
    if not whole.startswith("search="):
        compose_words(script, ["preset=null", "experiment=null", *words, "dataset=cifar10"])


DIGITS = "^the sizes for this data set would overrule recipe=full in epochs"
# The searcher that the preset brings does not go with these, or the preset sets what they do not have.
UNFIT = {
    "preset=dada2020_gumbel searcher=shuffled_reward": "their control is searcher=random",
    "preset=dada2020_relax searcher=random": "policy_space, estimator are not read by PolicyOnly and RandomSearch",
    "preset=dada2020_relax searcher=table": "estimator is not read by PolicyOnly and Table",
    "preset=dada2020_relax estimator=reinforce": "estimator.draws=image",
    "preset=faster_aa2020 policy_space=pairs": "policy_space=stages",
    "preset=separate2021 estimator=gumbel": "estimator is not read by OneAfterTheOther and FasterAA",
}


# What a preset set and the user did not is said to be the preset's.
OF_A_PRESET = {
    "preset=dada2020_relax searcher=random": "leave preset=dada2020_relax out, or use it with searcher=differentiable",
    "preset=faster_aa2020 search=joint": "network is not read by Joint and FasterAA; leave preset=faster_aa2020 out",
    "preset=dada2020_gumbel searcher=shuffled_reward": "searcher.published are set by preset=dada2020_gumbel)",
    "preset=dada2020_relax estimator=reinforce": "(estimator.draws is set by preset=dada2020_relax)",
    "preset=dada2020_relax searcher.rewards.epsilon=0": "(searcher.published is set by preset=dada2020_relax)",
    "preset=kashima2021 architecture.order=second": "(searcher is set by preset=kashima2021)",
}


@pytest.mark.parametrize("words", OF_A_PRESET)
def test_an_error_names_the_preset_that_set_what_the_user_never_wrote(words: str) -> None:
    with pytest.raises(InputError, match=re.escape(OF_A_PRESET[words])):
        compose_study(*words.split())


def test_an_error_about_what_the_user_wrote_does_not_name_the_preset() -> None:
    with pytest.raises(InputError, match=r"wanted a number") as caught:
        compose_study("preset=dada2020_relax", "searcher.learning_rate=0")
    assert "preset" not in str(caught.value)


def test_a_preset_is_also_named_where_data_show_the_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert "is set by preset=fast_autoaugment2019)" in refusal(capsys, "retrain", "preset=fast_autoaugment2019")


HALVES = {
    "preset=faster_aa2020 searcher=trials": "is for searcher=faster_aa; with searcher=trials only this of it counts: "
    "network, search_recipe, search",
    "preset=darts2019_second search=joint": "is for search=architecture; with search=joint only this",
    "preset=faster_aa2020 searcher=faster_aa": None,
    "preset=dada2020_relax policy_space=trivialaugment": None,
    "experiment=searches_cifar10_1000 searcher=differentiable": None,
}


@pytest.mark.parametrize("words", HALVES)
def test_half_of_a_preset_is_told(words: str, caplog: pytest.LogCaptureFixture) -> None:
    compose_study(*words.split())
    said = HALVES[words]
    assert said in caplog.text if said else not caplog.text


@pytest.mark.parametrize("words", UNFIT)
def test_a_choice_that_does_not_go_with_a_preset_is_refused(words: str) -> None:
    with pytest.raises(InputError, match=re.escape(UNFIT[words])):
        compose_study(*words.split())


def test_a_choice_beside_a_preset_counts() -> None:
    kept = compose_study("preset=faster_aa2020", "searcher=faster_aa", "searcher.chunk=1", "dataset=cifar100")
    assert isinstance(kept.search.searcher, FasterAA)
    assert (kept.search.searcher.chunk, kept.dataset) == (1, Cifar100())
    own = ("experiment=searches_cifar10_1000", "searcher=differentiable", "policy_space=trivialaugment")
    for words in (own, ("preset=dada2020_relax", "policy_space=trivialaugment")):
        assert compose_study(*words).search.searcher.policy_space.start == "trivialaugment"
    assert isinstance(compose_study("preset=faster_aa2020", "searcher=random").search.searcher, RandomSearch)


WITHOUT_TRAININGS = {
    "retrain=false recipe.epochs=3": "recipe.epochs is for trainings, and retrain=false makes none; leave that out",
    "retrain=false controls=[none] recipe=full": "controls, recipe are for trainings, and retrain=false makes none",
    "experiment=searches_cifar10_1000 controls=[none]": "controls is for trainings, and retrain=false makes none",
    "experiment=searches_cifar10_1000": None,
    "preset=kashima2021 retrain=false dataset=cifar10": None,
    "retrain=false budget=0.5": None,
    "retrain=true recipe.epochs=3 controls=[none]": None,
}


@pytest.mark.parametrize("words", WITHOUT_TRAININGS)
def test_settings_of_trainings_are_refused_where_none_is_made(words: str) -> None:
    if said := WITHOUT_TRAININGS[words]:
        with pytest.raises(InputError, match=re.escape(said)):
            compose_study(*["search=policy", "searcher=trials"] * ("=full" in words), *words.split())
    else:
        assert compose_study(*words.split()).retrain == ("retrain=true" in words)


@pytest.mark.slow
def test_a_policy_may_be_searched_on_fewer_images_than_the_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["supernet.space=small", "supernet.channels=4", "supernet.layers=3", "search_recipe.epochs=1"]
    data = ["dataset=digits", "dataset.reduced=100", "retrain=false", "seeds=[0]", "run=out"]
    assert run("joint_search", ["preset=separate2021", *small, *data, "network=tiny_cnn", "policy_images=40"]) == 0
    policy, cells = (
        json.loads(Path(f"out/{folder}search-seed0/settings.json").read_text())["data"]["train"]
        for folder in ("policy/", "")
    )
    assert (policy, cells) == (20, 50)
    (first, *_) = read_run(Path("out")).searches
    assert len(training_images(first)) <= 20
