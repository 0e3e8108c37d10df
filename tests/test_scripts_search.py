"""The command line of search: good commands do what they say, bad ones give one line and exit code 2, no file."""

import itertools
import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from jointsearch.runs.track import read_metrics
from search_spaces.controls import named_policy
from search_spaces.policy import OpChoice, Policy, SubPolicy
from search_spaces.schedule import PolicySchedule
from tests.scripts_bench import choices as names_in
from tests.scripts_bench import names_what_is_wrong, refusal, run_script, search_alone

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

# Of searches by whole trainings.
FEW_TRAININGS = {
    "searcher=race": ["searcher.trainings=9", "recipe.epochs=1"],
    "searcher=randaugment_grid": ["searcher.counts=[1]", "searcher.levels=[5,15]", "recipe.epochs=1"],
    "searcher=controller": ["searcher.trainings=4", "searcher.at_once=2", "recipe.epochs=1"],
    "searcher=pba": ["searcher.members=4", "searcher.every=1", "recipe.epochs=2"],
    "searcher=ohl": ["searcher.trajectories=2", "searcher.folds=2", "recipe.epochs=2"],
    "searcher=fast_aa": ["searcher.trials=3", "searcher.folds=2", "recipe.epochs=1"],
    "searcher=adversarial": ["searcher.copies=2", "recipe.epochs=2"],
}

# Settings that make no sense together, and a word of the remedy.
WRONG_TOGETHER = {
    "searcher.from_epoch=100": "searcher.from_epoch is 100 of",
    "architecture.order=second": "use it with search=architecture, search=joint, search=separate",
    "network=supernet retrain=false": "choose another network",
    "searcher.rewards.statistics=none": "live, frozen",
    "searcher.rewards.epsilon=0 searcher.published=paper": "searcher.rewards.epsilon=0.01",
    "searcher.rewards.epsilon=0 searcher.stabilize.reward_scale=loss": "searcher.rewards.epsilon=0.01",
    "searcher.published=paper searcher.shuffled=true": "searcher=random",
    "searcher.published=code searcher.stabilize.reward_scale=rank": "leave one of the two out",
    "searcher.published=paper searcher=shuffled_reward": "searcher=random",
    "estimator=reinforce estimator.draws=batch": "estimator.baseline=ema",
    "estimator=gumbel estimator.scoring=hierarchical": "estimator.scoring is not a setting of estimator=GumbelSettings",
    "estimator=gumbel searcher=shuffled_reward": "leave one of the two out",
    "estimator=gumbel searcher.stabilize.reward_scale=rank": "leave one of the two out",
    "estimator=relax estimator.draws=batch searcher.stabilize.reward_scale=rank": "leave one of the two out",
    "estimator=reinforce estimator.baseline=ema estimator.draws=batch searcher=shuffled_reward": "leave one of the two",
    "policy_space=start policy_space.learn_magnitude=true searcher.magnitude_gradient=none": "leave one of the two",
    "searcher=faster_aa search_recipe.learning_rate=0.01": "search_recipe.learning_rate is not read by",
    "searcher=faster_aa search_recipe.optimizer=adamw": "search_recipe.optimizer is not read by FasterAA; leave it out",
    "searcher=faster_aa search_recipe=cells": "learning_rate is not read by FasterAA",
    "policy_space=start policy_space.start=none": "search=architecture",
    "policy_space=start policy_space.start=one.json searcher.magnitude_gradient=none": "would stay as it is",
    "estimator=reinforce estimator.baseline=ema searcher.published=paper": "estimator.baseline=none",
    "search_recipe.optimizer=adamw": "use search_recipe.optimizer=sgd or momentum",
    "searcher=table search_recipe.optimizer=lion": "search_recipe.optimizer=sgd or momentum",
    "search_recipe.precision=bf16": "search_recipe.precision is not a setting",
    "policy_space.ops=[Rotate]": "name more ops",
    "policy_space=start policy_space.start=schedule.json": "name one",
    "policy_space=start policy_space.start=start.json policy_space.ops=[Rotate]": "leave ops out",
    "searcher=trials estimator=relax": "estimator is not read by PolicyOnly and Trials; leave it out",
    "estimator=reinforce estimator.temperature=1": "estimator.temperature is not a setting",
    "estimator.baseline=ema": "estimator.baseline is not a setting of estimator=RelaxSettings",
    "policy_space=trivialaugment policy_space.pairing=ordered": "policy_space.pairing is not a setting",
    "policy_space=start policy_space.start=randaugment-n2-m9 policy_space.pairing=ordered": "pairing is not a setting",
    "policy_space.start=start.json": "policy_space.start is not a setting of policy_space=Pairs",
    "searcher=random policy_space.top=10": "policy_space is not read by PolicyOnly and RandomSearch",
    "searcher=random estimator=relax": "estimator is not read by PolicyOnly and RandomSearch; leave it out",
    "searcher=trials search_recipe.epochs=12": "search_recipe.epochs=13",
    "searcher=trials search_recipe.epochs=14 select_epoch=best": "select_epoch=last",
    "searcher=table policy_space.start=trivialaugment search_recipe.epochs=2": "lower it or searcher.from_epoch",
    "network=jointsearch_cells": "choose another network",
    "policy_space.top=500": "more than the 105 sub-policies there are",
    "policy_space=trivialaugment policy_space.top=25": "policy_space.share=none",
    "searcher=faster_aa policy_space.stages=4 policy_space.ops=[Rotate,Invert]": "more than the 2 ops to choose from",
    "searcher=trials searcher.form=proportional": "searcher.form is not a setting of searcher=Trials",
    "searcher=differentiable policy_space=stages": "use policy_space=pairs or start",
    "search_recipe.drop_path=0.2": "search_recipe.drop_path is not a setting",
    "searcher=trials searcher.every=3": "searcher.every is not a setting of searcher=Trials",
    "searcher=trials policy_space=pairs": "use policy_space=measured",
    "searcher=faster_aa policy_space=pairs": "use policy_space=stages",
    "searcher=trials searcher.marginn=1": "did you mean searcher.margin?",
    "searcher=trials policy_space.top=5": "policy_space.top is not a setting of policy_space=Measured",
}
BAD = [
    "search=both",
    "select_epoch=first",
    "budget=0",
    "search=null",
    "searcher=differentable",
    "searcher.name=gradient",
    "searcher=random searcher.learning_rate=0.1",
    "searcher.learning_rate=0",
    "searcher.learning_rate=nan",
    "searcher.learning_rate='0.1'",
    "searcher.betas=[0.5,0.999]",
    "searcher.rewards.epsilon=exact",
    "searcher.magnitude_gradient=two",
    "searcher.published=both",
    "searcher.shuffled=fake",
    "searcher.stabilize.reward_scale=sqrt",
    "searcher.stabilize.draws_per_validation=0",
    "searcher.stabilize.draws_per_validation=1.5",
    "searcher.stabilize=3",
    "searcher.stabilize.validation_batches=0",
    "searcher.from_epoch=-1",
    "searcher.stabilize.entropy_bonus=-0.1",
    "searcher.epsilon=0.1",
    "estimator=reinforc",
    "estimator.name=score",
    "estimator.scoring=all",
    "estimator=reinforce estimator.baseline=mean",
    "estimator=relax estimator.temperature=0",
    "estimator.draws=pixel",
    "policy_space=triples",
    "policy_space=start policy_space.start=missing.json",
    "policy_space=start policy_space.start=broken.json",
    "policy_space=start policy_space.start=nobody",
    "policy_space.ops=[Rotat,Invert]",
    "policy_space.ops=[Rotate,Rotate]",
    "policy_space.ops=[]",
    "policy_space.pairing=triples",
    "policy_space.magnitude=0.5",
    "policy_space.share=all",
    "policy_space.select_epoch=1",
    "policy_space.top=0",
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
    if FEW_TRAININGS.keys() & set(given):  # these train by recipe
        named |= {"search_recipe.epochs", "search_recipe.batch_size"}
    return [*(setting for setting in QUICK if setting.partition("=")[0] not in named), *given]


def alone(*given: str) -> list[str]:
    return search_alone(*quick(*given))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command runs: a policy, a schedule and a broken file lie there."""
    monkeypatch.chdir(tmp_path)
    named_policy("random-s1").save("start.json")
    PolicySchedule(((0, named_policy("none")), (2, named_policy("random-s1")))).save(Path("schedule.json"))
    Policy((SubPolicy((OpChoice("Rotate", 1.0, 0.5),)),)).save(Path("one.json"))
    Path("broken.json").write_text("{")
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], command: str) -> str:
    return refusal(capsys, "joint_search", *quick(*command.split()))


@pytest.mark.parametrize("command", WRONG_TOGETHER)
def test_settings_that_make_no_sense_together_are_refused_with_the_remedy(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert WRONG_TOGETHER[command] in refused(capsys, command)


@pytest.mark.parametrize("command", BAD)
def test_a_bad_setting_gives_one_line_with_its_name_and_what_to_do(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, command)
    assert names_what_is_wrong(command.split()[-1], message)
    assert re.search(r"did you mean|choose|give|wanted|lower|set |use |leave|make|name |known are|one of", message)


@pytest.mark.parametrize("command", ["seeds=[]", "seeds=[-1]"])
def test_seeds_are_checked_also_where_nothing_is_retrained(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "seeds" in refused(capsys, f"{command} retrain=false")


def test_all_mistakes_of_a_search_are_told_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "searcher.learning_rate=0 estimator.draws=score policy_space.top=0")
    assert all(key in message for key in ("searcher.learning_rate", "estimator.draws", "policy_space.top"))


def untimed(printed: str) -> str:
    return re.sub(r"(?m)^Expected on cpu: .*$", "", printed)


def test_a_search_prints_its_tables_and_leaves_what_it_says(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_script("joint_search", *quick("seeds=[0,1]")) == 0
    printed = capsys.readouterr().out
    out = folder / "out"
    assert {path.name for path in out.iterdir()} == {
        "search-seed0", "search-seed1", "searches.json", "found", "none", "summary.md", "summary.json",
        "report.html", "pictures.safetensors", "study.json", "words.json",
    }  # fmt: skip
    assert (out / "summary.md").read_text() in printed
    assert re.search(r"\| found \| \d+\.\d\d .*\| 2 \|", printed)
    assert "Rank correlation of the sub-policies' preferences between seeds" in printed
    assert "run=out" in printed
    results = json.loads((out / "searches.json").read_text())
    assert [result["seed"] for result in results] == [0, 1]
    assert all(result["forward_equivalents"] == 2 * 10 for result in results)
    for seed in (0, 1):
        found = Policy.load(out / f"search-seed{seed}" / "policy.json")
        assert len(found.sub_policies) == 25
        # Each seed trains with what it found itself.
        assert Policy.load(out / "found" / f"seed{seed}" / "policy.json") == found
    assert run_script("joint_search", *quick("seeds=[0,1]")) == 0  # and once more, from what is there
    assert untimed(capsys.readouterr().out) == untimed(printed)


def test_the_policy_file_of_a_search_trains_to_the_same_figures_elsewhere(folder: Path) -> None:
    assert run_script("joint_search", *QUICK) == 0
    shutil.copy("out/search-seed0/policy.json", "carried.json")
    shared = [setting for setting in QUICK if re.match(r"(dataset|network|recipe|seeds|threads)", setting)]
    assert run_script("retrain", "policy=carried.json", "controls=[]", "run=elsewhere", *shared) == 0
    here, there = (
        json.loads(Path(run, "seed0", "result.json").read_text()) for run in ("out/found", "elsewhere/carried")
    )
    assert {**here, "seconds": 0} == {**there, "seconds": 0}


def test_without_retraining_a_search_ends_with_its_policy(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_script("joint_search", *alone()) == 0
    assert {path.name for path in (folder / "out").iterdir()} == {
        "search-seed0",
        "searches.json",
        "report.html",
        "pictures.safetensors",
        "study.json",
        "words.json",
    }
    assert "Found: out/search-seed0/policy.json\n" in capsys.readouterr().out


QUICK_START = ["policy_space=start", "policy_space.learn_magnitude=true"]


def test_a_search_may_start_from_a_policy_file(folder: Path) -> None:
    overrides = [*QUICK_START, "policy_space.start=start.json"]
    assert run_script("joint_search", *alone(*overrides)) == 0
    found, start = Policy.load("out/search-seed0/policy.json"), Policy.load("start.json")
    names = [sorted(tuple(choice.op for choice in each.ops) for each in one.sub_policies) for one in (found, start)]
    assert names[0] == names[1]
    assert found != start


@pytest.mark.slow
@pytest.mark.parametrize("choice", [*names_in("searcher"), *names_in("estimator"), *names_in("policy_space")])
def test_every_configuration_searches_and_finds_a_policy_that_can_be_shown(
    choice: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A space may serve one searcher only.
    searchers = names_in("searcher") if choice.startswith("policy_space") else []
    # One measures once in an epoch, the other every 20 steps, and one measurement is too little.
    measured = ("searcher=trials", "searcher=table", "policy_space=measured")
    longer = ["search_recipe.epochs=14"] if choice in measured else []
    given = [
        *longer,
        choice,
        *["searcher.trial_steps=2"] * (choice == "searcher=trials"),
    ]
    few = FEW_TRAININGS.get(choice, [])  # after those that `alone` leaves out
    tried = (run_script("joint_search", *alone(*first, *given), *few) for first in ([], *zip(searchers)))
    codes = list(itertools.takewhile(bool, tried))
    assert set(codes) <= {2}
    assert len(codes) <= len(searchers)
    found = Path("out/search-seed0/policy.json")
    assert run_script("show_policy", f"policy={found}", "out=sheet.png", "rows=1") == 0
    sheets = list(Path().glob("sheet*.png"))  # of a schedule one for each span
    assert sheets
    assert all(sheet.stat().st_size > 1000 for sheet in sheets)
    *_, row = read_metrics(Path("out/search-seed0/metrics.jsonl"))
    shares = [value for key, value in row.items() if key.startswith("share/")]
    assert all(0 <= share <= 2 for share in shares)
    (result,) = json.loads(Path("out/searches.json").read_text())
    if "sub_policy_shares" in result:
        assert sum(result["sub_policy_shares"]) == pytest.approx(1, abs=1e-4)
        assert torch.tensor(result["sub_policy_shares"]).std() > 0
    capsys.readouterr()


def test_a_search_is_the_same_twice(folder: Path) -> None:
    for run in ("run=first", "run=second"):
        assert run_script("joint_search", *alone("estimator=relax", run)) == 0
    first, second = (Path(run, "search-seed0", "policy.json").read_bytes() for run in ("first", "second"))
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
    assert "rename" in refused(capsys, "controls=[found.json]")
