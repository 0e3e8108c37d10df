"""The main command: policy and cells are searched and trained, kept by a stated rule, and used in another run."""

import hashlib
import json
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from jointsearch.compose import compose_study
from jointsearch.data.datasets import Digits
from jointsearch.data.sets import FoundSplits
from jointsearch.loops.grid import split_row
from jointsearch.networks import create
from jointsearch.networks.network_settings import NetworkSettings
from jointsearch.protocols import Scores
from jointsearch.runs.track import read_metrics
from jointsearch.searchers import differentiable
from jointsearch.through_step.hessian import largest_eigenvalue
from search_spaces.cells.derive import derive
from search_spaces.cells.random import random_genotype
from search_spaces.cells.space import CELL_SPACES
from search_spaces.genotype import PUBLISHED, Genotype
from search_spaces.policy import Policy
from tests.scripts_bench import refusal, run_script, search_alone

# Of 60 training images, one step an epoch.
SMALL = ["cells.channels=4", "cells.layers=3", "device=cpu"]
DATA = ["seeds=[0]", "dataset.reduced=120", "recipe.epochs=1", "recipe.batch_size=60", "threads=1"]
SEARCH = [
    *("supernet.channels=4", "supernet.layers=3", "search_recipe.epochs=3", "search_recipe.batch_size=60"),
    *("architecture.learning_rate=0.05", "supernet.space=small", "run=out", *SMALL, *DATA),
]
ALONE = search_alone(*SEARCH)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_main_command_leaves_policy_cells_and_a_table_with_its_controls(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_script("joint_search", *SEARCH) == 0
    printed = capsys.readouterr().out
    rows = re.findall(r"^\| ([a-z@]+) \| \d", printed, re.MULTILINE)
    assert sorted(rows) == ["found", "none", "trivialaugment", "trivialaugment@random"]
    found = folder / "out" / "search-seed0"
    genotype = Genotype.load(found / "genotype.json")
    assert len(Policy.load(found / "policy.json").sub_policies) == 25
    history = [row["genotype"] for row in read_metrics(found / "metrics.jsonl")]
    assert len(history) == 3
    assert Genotype.from_darts(history[-1]) == genotype
    trained = {row: Genotype.load(folder / "out" / row / "seed0" / "genotype.json") for row in rows}
    assert trained["found"] == trained["none"] == trained["trivialaugment"] == genotype
    assert trained["trivialaugment@random"] == random_genotype(CELL_SPACES["small"], 0)


LATE = ("searcher.from_epoch=4", "architecture.from_epoch=1")  # before which nothing that is best was learned


@pytest.mark.slow
@pytest.mark.parametrize(("keep", "begins", "epoch"), [("last", (), 6), ("best", (), 4), ("best", LATE, 5)])
def test_what_is_kept_is_of_the_epoch_that_the_rule_names(
    keep: str, begins: tuple[str, ...], epoch: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = iter([50.0, 60.0, 70.0, 70.0, 65.0, 60.0])
    monkeypatch.setattr(
        "jointsearch.loops.training.evaluate",
        lambda *_: Scores({"loss": 1.0, "accuracy": next(accuracies)}, "accuracy"),
    )
    assert run_script("joint_search", *ALONE, f"select_epoch={keep}", "search_recipe.epochs=6", *begins) == 0
    found = folder / "out" / "search-seed0"
    rows = read_metrics(found / "metrics.jsonl")
    result = json.loads((found / "result.json").read_text())
    assert (result["select_epoch"], result["selected_epoch"]) == (keep, epoch)
    kept = rows[epoch - 1]
    assert Genotype.load(found / "genotype.json") == Genotype.from_darts(kept["genotype"])
    # All that the result says of what was found is of that epoch, too.
    assert {"idle_share", "genotype", "effective_candidates"} <= (said := kept.keys() & result.keys())
    assert [result[name] for name in said] == [kept[name] for name in said]
    weights = (torch.tensor(result[f"weights/{kind}"]) for kind in ("normal", "reduction"))
    assert derive(CELL_SPACES["small"], *weights) == Genotype.load(found / "genotype.json")


@pytest.mark.slow
def test_the_budget_scales_both_kinds_of_epochs_and_where_learning_begins(folder: Path) -> None:
    begins = ["searcher.from_epoch=2", "architecture.from_epoch=1"]
    assert run_script("joint_search", *SEARCH, "budget=2", "controls=[]", *begins) == 0
    settings = json.loads(Path("out/search-seed0/settings.json").read_text())["search"]
    assert (settings["searcher"]["from_epoch"], settings["architecture"]["from_epoch"]) == (4, 2)
    assert json.loads((folder / "out/search-seed0/result.json").read_text())["epochs"] == 6
    assert json.loads((folder / "out/found/seed0/settings.json").read_text())["recipe"]["epochs"] == 2


def test_the_budget_scales_the_warm_up_too() -> None:
    recipe = compose_study("recipe.epochs=40", "recipe.warmup.epochs=10", budget=0.15).recipe
    assert recipe.warmup is not None
    assert (recipe.epochs, recipe.warmup.epochs) == (6, 2)


@pytest.mark.slow
def test_the_separate_search_learns_cells_under_the_policy_it_found_first(folder: Path) -> None:
    arguments = [*ALONE, "search=separate", "network=tiny_cnn"]
    assert run_script("joint_search", *arguments) == 0
    found = Policy.load("out/policy/search-seed0/policy.json")
    settings = json.loads(Path("out/search-seed0/settings.json").read_text())
    assert settings["policy"] == hashlib.sha256(found.to_json().encode()).hexdigest()[:16]
    assert Policy.load("out/search-seed0/policy.json") == found
    assert Genotype.load("out/search-seed0/genotype.json")
    first, second = (json.loads(Path("out", name, "searches.json").read_text()) for name in ("policy", ""))
    assert (first[0]["forward_equivalents"], second[0]["forward_equivalents"]) == (3 * 10, 3 * 5)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of seed 3 that ends with what it found."""
    run = tmp_path_factory.mktemp("searched") / "out"
    assert run_script("joint_search", *ALONE, f"run={run}", "seeds=[3]") == 0
    return run


@pytest.mark.slow
def test_policy_and_genotype_of_different_runs_train_together(folder: Path, searched: Path) -> None:
    shutil.copytree(searched, "one")
    assert run_script("joint_search", *ALONE, "run=other", "seeds=[5]") == 0
    shared = [*SMALL, *DATA, "controls=[]"]
    assert run_script("retrain", "run=one", *shared, "seeds=null") == 0
    assert (
        Path("one/retrained/found/seed3/genotype.json").read_text()
        == Path("one/search-seed3/genotype.json").read_text()
    )
    moved = ["policy=one/search-seed3/policy.json", "genotype=other", "run=both", "seeds=null"]
    assert run_script("retrain", *shared, *moved) == 0
    assert Path("both/policy/seed5/policy.json").read_text() == Path("one/search-seed3/policy.json").read_text()
    assert Path("both/policy/seed5/genotype.json").read_text() == Path("other/search-seed5/genotype.json").read_text()


WRONG = {
    "searcher.rewards.statistics=none": "live, frozen",
    "searcher=table": "search=policy",
    "searcher=random": "search=policy",
    "network=resnet18": "use it with search=policy, search=separate",
    "architecture.order=second searcher.rewards.epsilon=0": "architecture.order=first",
    "architecture.order=second searcher=shuffled_reward": "architecture.order=first",
    "supernet.channel_share=3": "supernet.channel_share is not a setting",
    "supernet.channels=6 supernet.variant=pc_darts": "a divisor",
    "search=separate network=tiny_cnn supernet.channels=6 supernet.variant=pc_darts": "a divisor",
    "searcher=first_order architecture.order=second": "searcher=differentiable",
    "supernet.space=dart": "darts",
    "supernet.layers=2": "from 3",
    "search_recipe.drop_rate=0.1": "search_recipe.drop_rate is not a setting",
    "controls=[none@nowhere]": "neither published nor a file",
    "controls=[none@missing.json]": "is not there",
    "architecture.from_epoch=3": "architecture.from_epoch is 3 of 3 epochs",
    "searcher.from_epoch=3": "searcher.from_epoch is 3 of 3 epochs",
    "search=policy network=tiny_cnn": "supernet, architecture, cells are not read by PolicyOnly and Race",
    "search=architecture searcher=first_order": "use it with search=joint, search=policy, search=separate",
    "search=architecture estimator=relax": "estimator is not read by CellsAlone",
    "search=architecture policy_space=pairs": "policy_space is not read by CellsAlone",
    "genotype=somewhere": "genotype is not read by Joint",
    "supernet=small": "as in supernet.space=",
    "policy_epochs=3": "use it with search=separate",
    "search=separate network=tiny_cnn searcher=trials policy_epochs=12": "policy_epochs",
    "search=separate network=tiny_cnn searcher=table policy_space.start=trivialaugment policy_epochs=2": "raise policy",
    "search_recipe.evaluate_every=2": "search_recipe.evaluate_every is not a setting",
    "search_recipe.optimizer=adamx": "search_recipe.optimizer is",
    "search_recipe.optimizer=adamw": "use search_recipe.optimizer=sgd or momentum (recipe may have any)\n",
    "searcher=first_order architecture.against_collapse.hessian_monitor=true": "set it to false",
    "architecture.hessian_monitor=true": "architecture.hessian_monitor is not a setting",
    "architecture.against_collapse.beta=1": "did you mean architecture.against_collapse.beta_decay?",
    "run='a{seed}'": "rename the folder",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_makes_no_sense_is_refused_with_a_remedy_before_anything_is_written(
    wrong: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert WRONG[wrong] in refusal(capsys, "joint_search", *SEARCH, *wrong.split())
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_a_run_folder_may_have_any_name_and_its_finds_train_once_more(folder: Path) -> None:
    assert run_script("joint_search", *SEARCH, "run=me@home/a@b", "controls=[none]") == 0
    assert Path("me@home/a@b/found/seed0/result.json").is_file()
    again = [*SMALL, *DATA, "controls=[]", "run=me@home/a@b", "recipe.batch_size=40"]
    for _ in range(2):  # the second time nothing is left to do
        assert run_script("retrain", *again) == 0
    (trained,) = Path("me@home/a@b/retrained").glob("*/seed0")
    assert trained.parent.name == "found"
    found = Path("me@home/a@b/search-seed0")
    assert (trained / "genotype.json").read_text() == (found / "genotype.json").read_text()
    assert (trained / "policy.json").read_text() == (found / "policy.json").read_text()


@pytest.mark.slow
def test_finds_on_images_of_another_folder_are_used_only_when_asked_for(
    folder: Path, searched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(searched, "out")
    trial = Path("out/search-seed3/settings.json")
    searched = json.loads(trial.read_text())
    searched["dataset"] |= {"path": "other.tar"}
    trial.write_text(json.dumps(searched))
    Path("out/study.json").unlink()  # as an older version leaves none
    capsys.readouterr()
    assert run_script("retrain", *SMALL, *DATA, "seeds=[3]", "controls=[]", "run=out") == 2
    assert "was on dataset.path=other.tar, and dataset.path is None" in capsys.readouterr().err


@pytest.mark.slow
def test_finds_on_other_images_are_used_only_when_asked_for(
    folder: Path, searched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(searched, "out")
    other = [*SMALL, "seeds=[3]", "controls=[]", "dataset=shapes", "dataset.reduced=64", "recipe.epochs=1"]
    assert run_script("retrain", *other, "run=out") == 2
    assert "was on dataset=digits, and dataset is shapes; give dataset=digits" in capsys.readouterr().err
    assert not Path("out/retrained").exists()


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ("trivialaugment@random", ("trivialaugment", "random")),
        ("me@home/policy.json", ("me@home/policy.json", None)),
        ("me@home/policy.json@other@place/genotype.json", ("me@home/policy.json", "other@place/genotype.json")),
        ("nobody@random", ("nobody@random", None)),
        ("none", ("none", None)),
    ],
)
def test_a_row_is_a_policy_and_perhaps_a_genotype(row: str, parts: tuple[str, str | None]) -> None:
    assert split_row(row) == parts


@pytest.mark.slow
def test_the_hessian_is_that_of_the_search_also_after_the_evaluation_and_a_restart(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(differentiable, "largest_eigenvalue", partial(largest_eigenvalue, iterations=3))
    watched = [*ALONE, "search_recipe.epochs=2", "architecture.against_collapse.hessian_monitor=true"]
    assert run_script("joint_search", *watched) == 0
    path = Path("out/search-seed0/result.json")
    before = path.read_text()
    path.unlink()
    assert run_script("joint_search", *watched) == 0
    assert json.loads(path.read_text()) | {"seconds": 0} == json.loads(before) | {"seconds": 0}
    rows = [row["hessian_largest"] for row in read_metrics(path.with_name("metrics.jsonl"))]
    assert json.loads(before)["hessian_largest"] == rows[-1]


@pytest.mark.slow
def test_a_study_reads_its_data_once_and_tries_every_network_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, built = list[Digits](), list[str]()
    find, new_network = Digits.find, create.create_network

    def counted(settings: Digits) -> FoundSplits:
        reads.append(settings)
        return find(settings)

    def counted_network(name: NetworkSettings, *rest: Any, **options: Any) -> nn.Module:
        built.append(name.name)
        return new_network(name, *rest, **options)

    monkeypatch.setattr(Digits, "find", counted)
    for module in ("plan", "task", "trainer", "training"):
        monkeypatch.setattr(f"jointsearch.loops.{module}.create_network", counted_network, raising=False)
    assert run_script("joint_search", *SEARCH, "controls=[none]") == 0
    assert len(reads) == 1
    # One search and two trainings, and the step that each of the two networks takes before anything is written.
    assert sorted(built) == ["jointsearch_cells"] * 3 + ["supernet"] * 2


def test_a_genotype_of_another_space_trains_and_a_folder_that_is_no_run_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(folder / "empty").mkdir()
    assert run_script("retrain", *SMALL, *DATA, "genotype=empty", "controls=[]") == 2
    assert "run folder of a search" in capsys.readouterr().err
    assert run_script("retrain", *SMALL, *DATA, "genotype=DARTS_V2", "controls=[]", "run=darts") == 0
    assert Genotype.load("darts/trivialaugment/seed0/genotype.json") == PUBLISHED["DARTS_V2"]
