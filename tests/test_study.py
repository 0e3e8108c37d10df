"""A whole study from Python: data and networks once, the same bits after a kill, nothing written after a mistake."""

import json
import re
import signal
from collections import Counter
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch

from jointsearch import Study, StudyResult, compose_study, run_study
from jointsearch.data.datasets import Digits, Folder
from jointsearch.loops import task as task_module
from jointsearch.loops.grid import Grid, run_grid
from jointsearch.loops.recipe import Recipe
from jointsearch.networks.network_settings import NetworkSettings
from jointsearch.report.comparison import compare
from jointsearch.search_kinds import CellsAlone, OneAfterTheOther, PolicyOnly, SupernetSettings
from jointsearch.searchers.differentiable import Differentiable
from jointsearch.searchers.random import RandomSearch
from jointsearch.searchers.spaces import Measured, Start
from jointsearch.searchers.table import Table
from jointsearch.study import Prepared, prepare
from search_spaces.errors import InputError
from search_spaces.policy import Policy
from tests.forked import forkserver
from tests.kills import same, wait_for
from tests.runs_bench import DIGITS, QUICK, differentiable

SHORT = Recipe(epochs=1, batch_size=50, precision="float32", evaluate_every=1)
CONTROLS = ("none", "trivialaugment")


def tiny_study(**changes: Any) -> Study:
    """A policy search on digits and its trainings beside controls, one epoch each."""
    search = PolicyOnly(differentiable(), "tiny_cnn", QUICK)
    usual = {"dataset": DIGITS, "search": search, "controls": CONTROLS, "seeds": (3,), "recipe": SHORT, "device": "cpu"}
    return Study(**usual | changes)


# Data and networks


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often digits were read, and networks built."""
    counted = Counter[str]()
    find, create = Digits.find, task_module.create_network

    def found(settings: Digits) -> Any:
        counted["read"] += 1
        return find(settings)

    def created(network: NetworkSettings, *rest: Any) -> Any:
        counted[network.name] += 1
        return create(network, *rest)

    monkeypatch.setattr(Digits, "find", found)
    monkeypatch.setattr(task_module, "create_network", created)
    return counted


def test_preparing_reads_the_data_once_builds_each_network_once_and_writes_nothing(
    counts: Counter[str], tmp_path: Path
) -> None:
    study = tiny_study(seeds=(3, 4, 5))
    prepared = prepare(study, tmp_path)
    assert counts == {"read": 1, "tiny_cnn": 2}  # one is searched on, one is trained
    assert isinstance(prepared, Prepared)
    assert prepared.seconds.keys() == {"Policy", "trainings"}
    assert all(seconds > 0 for seconds in prepared.seconds.values())
    assert list(tmp_path.iterdir()) == []


def test_a_search_of_two_stages_builds_every_network_once_to_prepare(counts: Counter[str], tmp_path: Path) -> None:
    supernet = SupernetSettings(space="small", channels=4, layers=3)
    search = OneAfterTheOther(RandomSearch(), "tiny_cnn", supernet=supernet, search_recipe=QUICK)
    prepare(tiny_study(search=search), tmp_path)
    assert counts == {"read": 1, "tiny_cnn": 1, "supernet": 1, "jointsearch_cells": 1}


def test_a_whole_study_reads_the_data_once_and_builds_a_network_for_each_try_search_and_training(
    counts: Counter[str], tmp_path: Path
) -> None:
    result = run_study(tiny_study(), tmp_path)
    tries, searches, trainings = 2, 1, 1 + len(CONTROLS)
    assert counts == {"read": 1, "tiny_cnn": tries + searches + trainings}
    assert result.report.is_file()


def test_a_prepared_study_is_carried_out_without_reading_or_trying_again(counts: Counter[str], tmp_path: Path) -> None:
    prepared = prepare(tiny_study(), tmp_path)
    run_study(prepared)
    assert counts == {"read": 1, "tiny_cnn": 6}


def test_a_finished_study_is_read_and_builds_only_the_networks_of_its_tries(
    counts: Counter[str], tmp_path: Path
) -> None:
    first = run_study(tiny_study(), tmp_path)
    counts.clear()
    again = run_study(tiny_study(), tmp_path)
    assert counts == {"read": 1, "tiny_cnn": 2}
    assert again == first


# The result

FEW = ("searcher.trainings=3", "proposals=[]", "recipe.epochs=1")
FEWER = ("search_recipe.epochs=3", "searcher.measurements=2", "searcher.trial_steps=1", "recipe.epochs=1")


def test_the_result_holds_what_lies_in_the_folder(tmp_path: Path) -> None:
    said: list[str] = []
    result = run_study(tiny_study(seeds=(3, 4)), tmp_path, said.append)
    assert result.folder == tmp_path
    found = {seed: Policy.load(tmp_path / f"search-seed{seed}" / "policy.json") for seed in (3, 4)}
    assert result.policies == found
    assert result.policy == found[3]
    assert (result.genotypes, result.genotype) == ({}, None)
    assert result.searches == json.loads((tmp_path / "searches.json").read_text())
    assert [search["seed"] for search in result.searches] == [3, 4]
    assert result.comparison == compare([tmp_path])
    assert {row.policy for row in result.comparison.rows} == {"found", *CONTROLS}
    assert result.comparison.to_markdown() in said[-1]
    assert result.report == tmp_path / "report.html"


def test_without_retraining_a_study_ends_with_what_was_found(tmp_path: Path) -> None:
    result = run_study(tiny_study(retrain=False), tmp_path)
    assert result.policy is not None
    assert result.comparison is None
    assert {path.name for path in tmp_path.iterdir()} == {
        *("search-seed3", "searches.json", "report.html", "pictures.safetensors", "study.json")
    }


@pytest.mark.slow
def test_the_ten_lines_of_a_notebook_give_policy_comparison_and_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = compose_study("search=policy", "network=wide_resnet16_1", *FEW, dataset="digits", seeds=(0,))
    result = run_study(study, "runs/mine")  # goes on where it was interrupted
    assert isinstance(result, StudyResult)
    assert isinstance(result.policy, Policy)
    assert result.genotype is None
    assert result.comparison is not None
    assert {row.policy for row in result.comparison.rows} == {"found", "none", "random", "trivialaugment"}
    assert result.report == Path("runs/mine/report.html")
    assert "<html" in result.report.read_text(encoding="utf-8")


# Kills


def go(folder: str) -> None:
    torch.set_num_threads(1)
    run_study(tiny_study(save_seconds=0.0), folder)


def left_behind(folder: Path) -> dict[str, bytes]:
    """All that a study leaves but what tells the time, the pages, and checkpoints."""
    names = ("policy.json", "settings.json", "metrics.jsonl", "summary.json", "summary.md")
    files = {str(path.relative_to(folder)): path.read_bytes() for name in names for path in folder.rglob(name)}
    for path in folder.rglob("result.json"):
        result = json.loads(path.read_text())
        result.pop("seconds")
        files[str(path.relative_to(folder))] = json.dumps(result).encode()
    return files


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    return forkserver()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, processes: Any) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed")
    child = processes.Process(target=go, args=(str(folder),))
    child.start()
    child.join(120)
    assert child.exitcode == 0
    files = left_behind(folder)
    assert len([name for name in files if name.endswith("metrics.jsonl")]) == 4
    assert {"summary.json", "search-seed3/policy.json", "found/seed3/policy.json"} <= files.keys()
    return files


@pytest.mark.slow
@pytest.mark.parametrize(
    "seen",
    [
        "search-seed3/settings.json",
        "search-seed3/checkpoints",
        "search-seed3/result.json",
        "found/seed3/checkpoints",
        "none/seed3/checkpoints",
    ],
)
def test_a_killed_study_ends_with_the_same_bits(
    seen: str, tmp_path: Path, processes: Any, undisturbed: dict[str, bytes]
) -> None:
    child = processes.Process(target=go, args=(str(tmp_path),))
    child.start()
    wait_for(tmp_path / seen)
    child.kill()
    child.join(30)
    assert child.exitcode == -signal.SIGKILL
    assert not (tmp_path / "summary.json").exists()
    go(str(tmp_path))
    assert same(left_behind(tmp_path), undisturbed)


# Mistakes


UNKNOWN = Start("trivialagment", share="none")


def policy_search(**changes: Any) -> PolicyOnly:
    return PolicyOnly(**{"searcher": differentiable(), "network": "tiny_cnn", "search_recipe": QUICK} | changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dataset": replace(DIGITS, reduced=10)}, "no image left for training"),
        ({"dataset": Folder(path="missing")}, "missing"),
        ({"search": policy_search(network="resnet81")}, "did you mean resnet18"),
        ({"search": policy_search(searcher=differentiable(from_epoch=1))}, "nothing would be learned"),
        ({"search": policy_search(searcher=Table(Measured(), every=1000))}, "fewer than 2 measurements"),
        (
            {"search": policy_search(search_recipe=replace(QUICK, optimizer="adamw"))},
            "does not step along the gradient",
        ),
        (
            {"search": policy_search(searcher=Table(Measured(), every=1)), "select_epoch": "best"},
            "use select_epoch=last",
        ),
        ({"controls": ("trivialagment",)}, "did you mean trivialaugment"),
        ({"controls": ("none@random",)}, "none@random"),
        ({"recipe": replace(SHORT, drop_path=0.2)}, "has no paths to drop"),
        ({"device": "cuda:99"}, "cuda:99"),
    ],
)
def test_a_study_with_a_mistake_says_so_and_writes_nothing(
    changes: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=re.escape(said)):
        run_study(tiny_study(**changes), "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"search": policy_search(network="resnet81"), "retrain": False}, "did you mean resnet18"),
        ({"search": policy_search(network="resnet81")}, "did you mean resnet18"),
        ({"search": policy_search(searcher=Differentiable(policy_space=UNKNOWN))}, "did you mean trivialaugment"),
        ({"search": CellsAlone(policy="trivialagment")}, "did you mean trivialaugment"),
        ({"search": CellsAlone(), "controls": ("none@DARTS_V3",)}, "did you mean DARTS_V2"),
        ({"controls": ("trivialagment",)}, "did you mean trivialaugment"),
        ({"device": "cuda:99"}, "cuda:99"),
    ],
)
def test_what_needs_no_data_is_refused_before_any_are_read(
    changes: dict[str, Any], said: str, counts: Counter[str], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        prepare(tiny_study(**changes), tmp_path)
    assert not counts


@pytest.mark.parametrize("retrained", [True, False])
def test_a_run_folder_that_cannot_be_made_is_refused_before_any_data_are_read(
    retrained: bool, counts: Counter[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file is no folder\); choose a writable folder"):
        prepare(tiny_study(retrain=retrained), tmp_path / "file" / "run")
    with pytest.raises(InputError, match="choose a writable folder"):
        run_grid(Grid(("none",), DIGITS), tmp_path / "file")
    assert not counts


def test_a_grid_of_an_unknown_network_is_refused_before_any_data_are_read() -> None:
    with pytest.raises(InputError, match="did you mean resnet18"):
        Grid(("none",), DIGITS, network="resnet81")


def test_a_study_without_a_folder_says_what_to_call() -> None:
    with pytest.raises(InputError, match=re.escape('call run_study(study, "runs/mine")')):
        run_study(tiny_study())


def test_a_folder_whose_name_stands_for_seeds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds \{seed\}, which stands for a seed in paths; rename the folder"):
        prepare(tiny_study(), tmp_path / "{seed}")


def test_a_control_that_would_share_a_folder_with_the_finding_is_refused() -> None:
    with pytest.raises(InputError, match=r"control .*found\.json would share a folder with what is found"):
        tiny_study(controls=("elsewhere/found.json",))


# Words


def test_words_and_values_compose_the_same_study() -> None:
    words = compose_study("search=policy", "network=tiny_cnn", "dataset=shapes", "seeds=[1,2]", "retrain=false")
    values = compose_study(search="policy", network="tiny_cnn", dataset="shapes", seeds=(1, 2), retrain=False)
    assert words == values
    assert (words.seeds, words.retrain, words.dataset.name) == ((1, 2), False, "shapes")


def test_a_budget_multiplies_the_epochs_of_search_and_training() -> None:
    words = ("search=policy", "searcher=differentiable", "search_recipe.epochs=20", "recipe.epochs=40")
    study = compose_study(*words, "searcher.from_epoch=10", "recipe.warmup.epochs=5", budget=0.2)
    search = study.search
    assert isinstance(search, PolicyOnly)
    assert isinstance(search.searcher, Differentiable)
    assert (search.search_recipe.epochs, search.searcher.from_epoch) == (4, 2)
    assert study.recipe.warmup is not None
    assert (study.recipe.epochs, study.recipe.warmup.epochs) == (8, 1)
