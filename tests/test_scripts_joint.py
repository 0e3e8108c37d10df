"""The main command: policy and cells are searched and trained, kept by a stated rule, and used in another run."""

import importlib
import json
import re
from pathlib import Path

import pytest
import torch

from jointsearch.loops.trials import split_row
from jointsearch.settings import build
from jointsearch.track import read_metrics
from scripts import door, joint_search
from search_spaces.cells.derive import derive
from search_spaces.cells.random import random_genotype
from search_spaces.cells.space import CELL_SPACES
from search_spaces.genotype import PUBLISHED, Genotype
from search_spaces.policy import Policy

SMALL = ["cells.channels=4", "cells.layers=3", "cells.auxiliary=false", "cells.random_space=small", "device=cpu"]
DATA = ["seeds=[0]", "dataset.reduced=120", "recipe.epochs=1", "recipe.batch_size=60", "threads=1"]
SEARCH = [
    *("supernet.channels=4", "supernet.layers=3", "search_recipe.epochs=3", "search_recipe.batch_size=30"),
    *("architecture.learning_rate=0.05", "run=out", *SMALL, *DATA),
]


def run_script(name: str, *arguments: str) -> int:
    return door.run(importlib.import_module(f"scripts.{name}").main, name, arguments)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(capsys: pytest.CaptureFixture[str], name: str, *arguments: str) -> str:
    assert run_script(name, *arguments) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert list(Path().iterdir()) == []
    return printed


def test_the_main_command_leaves_policy_cells_and_a_table_with_its_controls(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_script("joint_search", *SEARCH) == 0
    printed = capsys.readouterr().out
    rows = re.findall(r"^\| ([a-z@]+) \| \d", printed, re.MULTILINE)
    assert sorted(rows) == ["found", "none", "trivialaugment", "trivialaugment@random"]
    found = folder / "out" / "search-seed0"
    genotype = Genotype.load(found / "genotype.json")
    assert len(Policy.load(found / "found.json").sub_policies) == 344
    history = [row["genotype"] for row in read_metrics(found / "metrics.jsonl")]
    assert len(history) == 3
    assert Genotype.from_darts(history[-1]) == genotype
    trained = {row: Genotype.load(folder / "out" / row / "seed0" / "genotype.json") for row in rows}
    assert trained["found"] == trained["none"] == trained["trivialaugment"] == genotype
    assert trained["trivialaugment@random"] == random_genotype(CELL_SPACES["small"], 0)


LATE = ("searcher.from_epoch=4", "architecture.from_epoch=1")  # before which nothing that is best was learned


@pytest.mark.parametrize(("keep", "begins", "epoch"), [("last", (), 6), ("best", (), 4), ("best", LATE, 5)])
def test_what_is_kept_is_of_the_epoch_that_the_rule_names(
    keep: str, begins: tuple[str, ...], epoch: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = iter([50.0, 60.0, 70.0, 70.0, 65.0, 60.0])
    monkeypatch.setattr("jointsearch.loops.search.evaluate", lambda *_: {"loss": 1.0, "accuracy": next(accuracies)})
    assert run_script("joint_search", *SEARCH, "retrain=false", f"keep={keep}", "search_recipe.epochs=6", *begins) == 0
    found = folder / "out" / "search-seed0"
    rows = read_metrics(found / "metrics.jsonl")
    result = json.loads((found / "result.json").read_text())
    assert (result["keep"], result["kept_epoch"]) == (keep, epoch)
    kept = rows[epoch - 1]
    assert Genotype.load(found / "genotype.json") == Genotype.from_darts(kept["genotype"])
    # All that the result says of what was found is of that epoch, too.
    assert {"idle_share", "genotype", "effective_candidates"} <= (said := kept.keys() & result.keys())
    assert [result[name] for name in said] == [kept[name] for name in said]
    weights = (torch.tensor(result[f"weights/{kind}"]) for kind in ("normal", "reduction"))
    assert derive(CELL_SPACES["small"], *weights) == Genotype.load(found / "genotype.json")


def test_the_budget_scales_both_kinds_of_epochs(folder: Path) -> None:
    assert run_script("joint_search", *SEARCH, "budget=2", "controls=[]") == 0
    assert json.loads((folder / "out/search-seed0/result.json").read_text())["epochs"] == 6
    assert json.loads((folder / "out/found/seed0/trial.json").read_text())["recipe"]["epochs"] == 2


def test_the_budget_scales_the_warm_up_too() -> None:
    config = door.compose_plain("joint_search", ["budget=0.15", "recipe.epochs=40", "recipe.warmup_epochs=10"])
    for group in joint_search.GROUPS:
        del config[group]
    settings = build(joint_search.Settings, config)
    recipe = joint_search.with_budget(settings).recipe
    assert (recipe.epochs, recipe.warmup_epochs) == (6, 2)


def test_the_separate_search_learns_cells_under_the_policy_it_found_first(folder: Path) -> None:
    arguments = [*SEARCH, "search=separate", "network=tiny_cnn", "retrain=false"]
    assert run_script("joint_search", *arguments) == 0
    found = Policy.load("out/policy/search-seed0/found.json")
    assert Policy.load("out/search-seed0/start.json") == found
    assert Policy.load("out/search-seed0/found.json") == found
    assert Genotype.load("out/search-seed0/genotype.json")
    first, second = (json.loads(Path("out", name, "searches.json").read_text()) for name in ("policy", ""))
    assert (first[0]["forward_equivalents"], second[0]["forward_equivalents"]) == (3 * 2 * 8, 3 * 2 * 5)


def test_policy_and_genotype_of_different_runs_train_together(folder: Path) -> None:
    for run in ("one", "other"):
        seed = f"seeds=[{len(run)}]"
        assert run_script("joint_search", *SEARCH, "retrain=false", f"run={run}", seed) == 0
    shared = [*SMALL, *DATA, "controls=[]"]
    assert run_script("retrain", "run=one", *shared, "seeds=null") == 0
    assert (
        Path("one/retrained/found/seed3/genotype.json").read_text()
        == Path("one/search-seed3/genotype.json").read_text()
    )
    moved = ["policy=one/search-seed3/found.json", "genotype=other", "run=both", "seeds=null"]
    assert run_script("retrain", *shared, *moved) == 0
    assert Path("both/found/seed5/policy.json").read_text() == Path("one/search-seed3/found.json").read_text()
    assert Path("both/found/seed5/genotype.json").read_text() == Path("other/search-seed5/genotype.json").read_text()


WRONG = {
    "searcher.through_step=none": "search=architecture",
    "searcher=table": "search=policy",
    "searcher=random": "search=policy",
    "network=resnet18": "has its own",
    "search=separate network=null": "network=wide_resnet40_2",
    "architecture.order=second searcher.through_step=jvp": "architecture.order=first",
    "architecture.order=second searcher=shuffled_reward": "architecture.order=first in the control",
    "architecture.betas=[0.5]": "architecture.betas=[0.5,0.999]",
    "supernet.channel_share=3": "a divisor",
    "search=separate network=tiny_cnn supernet.channel_share=3": "a divisor",
    "searcher=first_order architecture.order=second": "searcher=differentiable",
    "supernet.space=dart": "darts",
    "supernet.layers=2": "from 3",
    "search_recipe.drop_rate=0.1": "drop_path",
    "controls=[none@nowhere]": "neither published nor a file",
    "controls=[none@missing.json]": "is not there",
    "recipe.auxiliary_weight=0.4": "cells.auxiliary=true",
    "search_recipe.auxiliary_weight=0.4": "set it to 0 in search_recipe",
    "architecture.from_epoch=3": "architecture.from_epoch is 3 of 3 epochs",
    "searcher.from_epoch=3": "searcher.from_epoch is 3 of 3 epochs",
    "search=policy network=tiny_cnn": "architecture.learning_rate, supernet.channels, supernet.layers, cells.channels",
    "search=architecture searcher=first_order": "searcher=first_order does not know search=architecture",
    "search=architecture searcher.learning_rate=0.1": "searcher.learning_rate has no effect",
    "search=architecture searcher.draws_per_validation=2": "searcher.draws_per_validation has no effect",
    "search=architecture estimator=relax": "estimator.name has no effect",
    "search=architecture policy_space.keep=0.5": "policy_space.keep has no effect, as search=architecture leaves the",
    "search=architecture searcher.through_step=jvp": "searcher.through_step has no effect",
    "genotype=somewhere": "it is a setting of scripts/retrain.py",
    "supernet=small": "as in supernet.space=",
    "search=architecture searcher=shuffled_reward": "controls=[trivialaugment@random]",
    "policy_epochs=3": "search_recipe.epochs",
    "search=separate network=tiny_cnn searcher=trials policy_epochs=12": "(of search=separate policy_epochs)",
    "search=separate network=tiny_cnn searcher=table policy_space.start=trivialaugment policy_epochs=2": "raise policy",
    "search_recipe.evaluate_every=2": "leave it at 1",
    "search_recipe.warmup_epochs=3": "search_recipe.warmup_epochs is 3 of 3 epochs; make it less than search_recipe.ep",
    "search_recipe.optimizer=adamx": "search_recipe.optimizer is",
    "search_recipe.optimizer=adamw": "use search_recipe.optimizer=sgd or momentum (recipe may have any)\n",
    "supernet.single_path=true keep=best": "keep=last",
    "searcher=first_order architecture.hessian_monitor=true": "set it to false",
    "run='a{seed}'": "rename the folder",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_makes_no_sense_is_refused_with_a_remedy_before_anything_is_written(
    wrong: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert WRONG[wrong] in refusal(capsys, "joint_search", *SEARCH, *wrong.split())


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
    assert (trained / "policy.json").read_text() == (found / "found.json").read_text()


def test_finds_on_images_of_another_folder_are_used_only_when_asked_for(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_script("joint_search", *SEARCH, "retrain=false") == 0
    trial = Path("out/search-seed0/trial.json")
    searched = json.loads(trial.read_text())
    searched["dataset"] |= {"path": "other.tar"}
    trial.write_text(json.dumps(searched))
    capsys.readouterr()
    assert run_script("retrain", *SMALL, *DATA, "controls=[]", "run=out") == 2
    assert "was on dataset.path=other.tar, and dataset.path is None" in capsys.readouterr().err


def test_finds_on_other_images_are_used_only_when_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_script("joint_search", *SEARCH, "retrain=false") == 0
    capsys.readouterr()
    other = [*SMALL, "seeds=[0]", "controls=[]", "dataset=shapes", "dataset.reduced=64", "recipe.epochs=1"]
    assert run_script("retrain", *other, "run=out") == 2
    assert "was on dataset=digits, and dataset is shapes; add dataset=digits" in capsys.readouterr().err
    assert not Path("out/retrained").exists()


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ("trivialaugment@random", ("trivialaugment", "random")),
        ("me@home/found.json", ("me@home/found.json", None)),
        ("me@home/found.json@other@place/genotype.json", ("me@home/found.json", "other@place/genotype.json")),
        ("nobody@random", ("nobody@random", None)),
        ("none", ("none", None)),
    ],
)
def test_a_row_is_a_policy_and_perhaps_a_genotype(row: str, parts: tuple[str, str | None]) -> None:
    assert split_row(row) == parts


def test_the_budget_scales_also_where_learning_begins(folder: Path) -> None:
    begins = ["searcher.from_epoch=2", "architecture.from_epoch=1", "budget=2", "retrain=false"]
    assert run_script("joint_search", *SEARCH, *begins) == 0
    settings = json.loads(Path("out/search-seed0/trial.json").read_text())["search"]
    assert (settings["searcher"]["from_epoch"], settings["architecture"]["from_epoch"]) == (4, 2)


def test_the_hessian_is_that_of_the_search_also_after_the_evaluation_and_a_restart(folder: Path) -> None:
    watched = [*SEARCH, "retrain=false", "architecture.hessian_monitor=true"]
    assert run_script("joint_search", *watched) == 0
    path = Path("out/search-seed0/result.json")
    before = path.read_text()
    path.unlink()
    assert run_script("joint_search", *watched) == 0
    assert json.loads(path.read_text()) | {"seconds": 0} == json.loads(before) | {"seconds": 0}
    rows = [row["hessian_largest"] for row in read_metrics(path.with_name("metrics.jsonl"))]
    assert json.loads(before)["hessian_largest"] == rows[-1]


def test_without_a_policy_to_learn_no_gradient_through_the_step_is_needed(folder: Path) -> None:
    overrides = ["search=architecture", "searcher.through_step=none", "retrain=false"]
    assert run_script("joint_search", *SEARCH, *overrides) == 0


def test_a_genotype_of_another_space_trains_and_a_folder_that_is_no_run_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(folder / "empty").mkdir()
    assert run_script("retrain", *SMALL, *DATA, "genotype=empty", "controls=[]") == 2
    assert "run folder of a search" in capsys.readouterr().err
    assert run_script("retrain", *SMALL, *DATA, "genotype=DARTS_V2", "controls=[]", "run=darts") == 0
    assert Genotype.load("darts/trivialaugment/seed0/genotype.json") == PUBLISHED["DARTS_V2"]
