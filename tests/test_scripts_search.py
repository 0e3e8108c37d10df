"""The command line of search: good commands do what they say, bad ones give one line and exit code 2, no file."""

import importlib
import itertools
import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from jointsearch.track import read_metrics
from scripts import door
from search_spaces.controls import named_policy
from search_spaces.policy import OpChoice, Policy, SubPolicy
from search_spaces.schedule import PolicySchedule
from tests.conftest import REPOSITORY

QUICK = [
    *(
        "search=policy",
        "searcher=differentiable",
        "policy_space=pairs",
        "network=tiny_cnn",
        "seeds=[0]",
        "dataset.reduced=200",
        "search_recipe.epochs=1",
        "search_recipe.batch_size=50",
    ),
    *("recipe.epochs=1", "recipe.batch_size=100", "controls=[none]", "run=out", "device=cpu"),
]

# Settings that make no sense together, and a word of the remedy.
WRONG_TOGETHER = {
    "searcher.from_epoch=100": "searcher.from_epoch is 100 of",
    "architecture.order=second": "architecture.order has no effect, as search=policy searches no cells",
    "network=supernet retrain=false": "leave network out",
    "searcher.through_step=none": "search=architecture",
    "searcher.through_step=jvp searcher.estimate_on=sides": "searcher.estimate_on=difference",
    "searcher.through_step=jvp searcher.reward_scale=loss": "searcher.reward_scale=rank",
    "searcher.estimate_on=sides searcher.rewards=shuffled": "searcher.rewards=real",
    "searcher.estimate_on=sides searcher.reward_scale=rank": "searcher.reward_scale=none",
    "searcher.estimate_on=sides searcher=shuffled_reward": "searcher.rewards=real",
    "searcher.betas=[0.5]": "searcher.betas=[0.5,0.999]",
    "searcher.betas=[0.5,0.9,0.999]": "searcher.betas=[0.5,0.999]",
    "estimator.draws=batch": "estimator.baseline=ema",
    "estimator=gumbel estimator.scoring=hierarchical": "estimator.scoring=joint",
    "estimator=gumbel searcher=shuffled_reward": "estimator=reinforce",
    "estimator=gumbel searcher.reward_scale=rank": "searcher.reward_scale=none",
    "estimator=relax estimator.draws=batch searcher.reward_scale=rank": "estimator.draws=image",
    "estimator.baseline=ema estimator.draws=batch searcher=shuffled_reward": "estimator.draws=image",
    "policy_space.magnitude=0": "searcher.magnitude_gradient=none",
    "policy_space.magnitude=1": "start between .01 and .99",
    "policy_space.start=none": "search=architecture",
    "policy_space.start=one.json searcher.magnitude_gradient=none": "would stay as it is",
    "estimator.baseline=ema searcher.estimate_on=sides": "estimator.baseline=none",
    "search_recipe.optimizer=adamw": "use search_recipe.optimizer=sgd or momentum",
    "searcher=table search_recipe.optimizer=lion": "searcher=trials",
    "searcher=faster_aa search_recipe.ema_decay=0.9": "set it to 0 in search_recipe",
    "search_recipe.precision=bf16": "search_recipe.precision=float32",
    "search_recipe.precision=auto": "search_recipe.precision=float32",
    "search_recipe.mixup=0.2": "set both to 0 in search_recipe",
    "search_recipe.cutmix=1": "set both to 0 in search_recipe",
    "policy_space.ops=[Rotate]": "name more ops",
    "policy_space.start=schedule.json": "name one",
    "policy_space.start=start.json policy_space.ops=[Rotate]": "leave ops out",
    "searcher=trials estimator=relax": "leave estimator out",
    "estimator.temperature=1": "use estimator=relax",
    "estimator=relax estimator.baseline=ema": "use estimator=reinforce",
    "policy_space=trivialaugment policy_space.magnitude=0.3": "use policy_space=pairs",
    "policy_space.start=randaugment-n2-m9 policy_space.pairing=ordered": "use policy_space=pairs",
    "policy_space.steepness=4 policy_space.learn_probability=false policy_space.learn_magnitude=false": "are learned",
    "searcher=random policy_space.top=10": "policy_space.top has no effect",
    "searcher=random estimator=relax": "leave estimator out",
    "searcher=trials search_recipe.epochs=12": "search_recipe.epochs=13",
    "searcher=trials search_recipe.epochs=14 keep=best": "keep=last",
    "searcher=table policy_space.start=trivialaugment search_recipe.epochs=2": "lower it or searcher.from_epoch",
    "policy_space=trivialaugment searcher.magnitude_gradient=ones": "policy_space.learn_magnitude is false; leave it",
    "network=jointsearch_cells": "choose another network",
    "policy_space.top=500": "more than the 105 sub-policies there are",
    "policy_space=trivialaugment policy_space.top=25": "policy_space.share=none",
    "searcher=faster_aa policy_space.stages=4 policy_space.ops=[Rotate,Invert]": "more than the 2 ops to choose from",
    "searcher=trials searcher.form=proportional": "set searcher.margin=0",
    "searcher=differentiable policy_space=stages": "or use searcher=faster_aa",
    "cells.random_space=small": "cells.random_space has no effect",
    "search_recipe.drop_path=0.2": "search_recipe.drop_path is 0.2",
    "searcher=trials searcher.every=3": "set the other one to null",
    "searcher=trials policy_space=pairs": "policy_space.start, policy_space.ops",
    "searcher=faster_aa policy_space=pairs": "leave policy_space out",
    "search=policy searcher.marginn=1": "searcher.marginn=1 cannot be set",
    "searcher=trials policy_space.top=5": "use it with policy_space=pairs or trivialaugment",
}
BAD = [
    "search=both",
    "keep=first",
    "budget=0",
    "architecture.learning_rate=0.1 searcher=table architecture.order=third",
    "search=null",
    "searcher=differentable",
    "searcher.name=gradient",
    "searcher=random searcher.learning_rate=0.1",
    "searcher.learning_rate=0",
    "searcher.learning_rate=nan",
    "searcher.learning_rate='0.1'",
    "searcher.betas=[0.5,1]",
    "searcher.betas=0.5",
    "searcher.through_step=exact",
    "searcher.magnitude_gradient=two",
    "searcher.estimate_on=both",
    "searcher.rewards=fake",
    "searcher.reward_scale=sqrt",
    "searcher.draws_per_validation=0",
    "searcher.draws_per_validation=1.5",
    "searcher.validation_batches=0",
    "searcher.first_validation_batch_only=1",
    "searcher.from_epoch=-1",
    "searcher.entropy_bonus=-0.1",
    "searcher.epsilon=0.1",
    "estimator=reinforc",
    "estimator.name=score",
    "estimator.scoring=all",
    "estimator.baseline=mean",
    "estimator=relax estimator.temperature=0",
    "estimator.draws=pixel",
    "policy_space=triples",
    "policy_space.start=missing.json",
    "policy_space.start=broken.json",
    "policy_space.start=nobody",
    "policy_space.ops=[Rotat,Invert]",
    "policy_space.ops=[Rotate,Rotate]",
    "policy_space.ops=[]",
    "policy_space.pairing=triples",
    "policy_space.probability=1.1",
    "policy_space.magnitude=-0.5",
    "policy_space.share=all",
    "policy_space.keep=1",
    "policy_space.top=0",
    "policy_space.weighted=perhaps",
    "search_recipe.epochs=0",
    "search_recipe.batch_size=1",
    "search_recipe.optimizer=sgdd",
    "search_recipe=smal",
    "recipe.epochs=0",
    "controls=[nonne]",
    "controls=none",
    "retrain=maybe",
    "network=wide_resnet17",
    "dataset=digitz",
    "dataset.reduced=100000",
    "seeds=[]",
    "seeds=[-1]",
    "seeds=0",
    "device=gpu",
    "threads=0",
    "wandb=yes",
    "save_seconds=-1",
    "epochs=3",
    "run=/dev/null/run",
]


def quick(*given: str) -> list[str]:
    """A quick search by gradients in pairs, but for what is given; another searcher chooses its space."""
    named = {setting.partition("=")[0] for setting in given}
    if "searcher" in named:
        named.add("policy_space")
    return [*(setting for setting in QUICK if setting.partition("=")[0] not in named), *given]


def run_script(name: str, *arguments: str) -> int:
    return door.run(importlib.import_module(f"scripts.{name}").main, name, arguments)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command runs: a policy, a schedule and a broken file lie there."""
    monkeypatch.chdir(tmp_path)
    named_policy("random-s1").save("start.json")
    PolicySchedule(((0, named_policy("none")), (2, named_policy("random-s1")))).save(Path("schedule.json"))
    Policy((SubPolicy((OpChoice("Rotate", 1.0, 0.5),)),)).save(Path("one.json"))
    Path("broken.json").write_text("{")
    return tmp_path


def refusal(folder: Path, capsys: pytest.CaptureFixture[str], command: str) -> str:
    """The one line that a bad command gets; it has written nothing."""
    before = sorted(folder.iterdir())
    assert run_script("joint_search", *quick(*command.split())) == 2
    assert sorted(folder.iterdir()) == before
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize("command", WRONG_TOGETHER)
def test_settings_that_make_no_sense_together_are_refused_with_the_remedy(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert WRONG_TOGETHER[command] in refusal(folder, capsys, command)


@pytest.mark.parametrize("command", BAD)
def test_a_bad_setting_gives_one_line_with_its_name_and_what_to_do(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refusal(folder, capsys, command)
    key, _, value = command.split()[-1].partition("=")
    words = (key, key.rpartition(".")[2], *re.findall(r"[A-Za-z_]+", value))
    assert any(word in message for word in words if word)
    assert re.search(r"did you mean|choose|give|wanted|lower|set |use |leave|make|name |known are|one of", message)


@pytest.mark.parametrize("command", ["seeds=[]", "seeds=[-1]"])
def test_seeds_are_checked_also_where_nothing_is_retrained(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "seeds" in refusal(folder, capsys, f"{command} retrain=false")


def test_all_mistakes_of_a_search_are_told_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refusal(folder, capsys, "searcher.learning_rate=0 estimator.name=score policy_space.keep=2")
    assert all(key in message for key in ("searcher.learning_rate", "estimator.name", "policy_space.keep"))


def test_a_search_prints_its_tables_and_leaves_what_it_says(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_script("joint_search", *quick("seeds=[0,1]")) == 0
    printed = capsys.readouterr().out
    out = folder / "out"
    assert {path.name for path in out.iterdir()} == {
        "search-seed0", "search-seed1", "searches.json", "found", "none", "summary.md", "summary.json", "report.html"
    }  # fmt: skip
    assert (out / "summary.md").read_text() in printed
    assert re.search(r"\| found \| \d+\.\d\d .*\| 2 \|", printed)
    assert "Rank correlation of the sub-policies' preferences between seeds" in printed
    assert "run=out" in printed
    results = json.loads((out / "searches.json").read_text())
    assert [result["seed"] for result in results] == [0, 1]
    assert all(result["forward_equivalents"] == 2 * 10 for result in results)
    for seed in (0, 1):
        found = Policy.load(out / f"search-seed{seed}" / "found.json")
        assert len(found.sub_policies) == 25
        # Each seed trains with what it found itself.
        assert Policy.load(out / "found" / f"seed{seed}" / "policy.json") == found
    assert run_script("joint_search", *quick("seeds=[0,1]")) == 0  # and once more, from what is there
    assert capsys.readouterr().out == printed


def test_the_policy_file_of_a_search_trains_to_the_same_figures_elsewhere(folder: Path) -> None:
    assert run_script("joint_search", *QUICK) == 0
    shutil.copy("out/search-seed0/found.json", "carried.json")
    shared = [setting for setting in QUICK if re.match(r"(dataset|network|recipe|seeds|threads)", setting)]
    assert run_script("retrain", "policy=carried.json", "controls=[]", "run=elsewhere", *shared) == 0
    here, there = (
        json.loads(Path(run, "seed0", "result.json").read_text()) for run in ("out/found", "elsewhere/carried")
    )
    assert {**here, "seconds": 0} == {**there, "seconds": 0}


def test_without_retraining_a_search_ends_with_its_policy(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_script("joint_search", *quick("retrain=false", "controls=[]")) == 0
    assert {path.name for path in (folder / "out").iterdir()} == {"search-seed0", "searches.json", "report.html"}
    assert "Found: out/search-seed0/found.json\n" in capsys.readouterr().out


def test_a_search_may_start_from_a_policy_file(folder: Path) -> None:
    overrides = ["policy_space.start=start.json", "policy_space.top=null", "retrain=false"]
    assert run_script("joint_search", *quick(*overrides)) == 0
    found, start = Policy.load("out/search-seed0/found.json"), Policy.load("start.json")
    names = [sorted(tuple(choice.op for choice in each.ops) for each in one.sub_policies) for one in (found, start)]
    assert names[0] == names[1]
    assert found != start


def names_in(group: str) -> list[str]:
    return [f"{group}={path.stem}" for path in sorted((REPOSITORY / "configs" / group).glob("*.yaml"))]


@pytest.mark.parametrize("choice", [*names_in("searcher"), *names_in("estimator"), *names_in("policy_space")])
def test_every_configuration_searches_and_finds_a_policy_that_can_be_shown(
    choice: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A space may serve one searcher only.
    searchers = names_in("searcher") if choice.startswith("policy_space") else []
    # One measures once in an epoch, the other every 20 steps, and one measurement is too little.
    longer = ["search_recipe.epochs=14"] if choice in ("searcher=trials", "searcher=table") else []
    given = ["retrain=false", *longer, choice]
    tried = (run_script("joint_search", *quick(*first, *given)) for first in ([], *zip(searchers)))
    codes = list(itertools.takewhile(bool, tried))
    assert set(codes) <= {2}
    assert len(codes) <= len(searchers)
    found = Path("out/search-seed0/found.json")
    assert run_script("show_policy", f"policy={found}", "out=sheet.png", "rows=1") == 0
    assert Path("sheet.png").stat().st_size > 1000
    *_, row = read_metrics(Path("out/search-seed0/metrics.jsonl"))
    shares = [value for key, value in row.items() if key.startswith("share/")]
    assert all(0 < share <= 2 for share in shares)
    (result,) = json.loads(Path("out/searches.json").read_text())
    if "sub_policy_shares" in result:
        assert sum(result["sub_policy_shares"]) == pytest.approx(1, abs=1e-4)
        assert torch.tensor(result["sub_policy_shares"]).std() > 0
    capsys.readouterr()


def test_a_search_is_the_same_twice(folder: Path) -> None:
    for run in ("run=first", "run=second"):
        assert run_script("joint_search", *quick("retrain=false", "estimator=relax", run)) == 0
    first, second = (Path(run, "search-seed0", "found.json").read_bytes() for run in ("first", "second"))
    assert first == second


def test_help_lists_the_groups_of_a_search(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_script("joint_search", "--help") == 0
    printed = capsys.readouterr().out
    for group in ("searcher", "estimator", "policy_space"):
        assert f"  {group}: {', '.join(name.partition('=')[2] for name in names_in(group))}\n" in printed


def test_a_control_that_would_share_the_folder_of_the_found_policy_is_refused_before_the_search(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named_policy("none").save("found.json")
    assert "rename" in refusal(folder, capsys, "controls=[found.json]")
