"""The command line: good commands do what they say, bad ones give one line, exit code 2, and write nothing."""

import errno
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jointsearch.settings import build
from scripts import door, joint_search
from search_spaces.errors import InputError
from tests.conftest import REPOSITORY

CONFIGS = REPOSITORY / "configs"
QUICK = ["recipe.epochs=1", "seeds=[0]", "network=tiny_cnn", "controls=[none]", "recipe.batch_size=100"]

BAD_RETRAIN = [
    "recipe.epoch=3",
    "recipe.epochs=0",
    "recipe.epochs=1.5",
    "recipe.epochs=many",
    "recipe.epochs=null",
    "recipe.epochs='10'",
    "recipe.epochs=true",
    "recipe.batch_size=1",
    "recipe.batch_size=-4",
    "recipe.learning_rate=-0.1",
    "recipe.learning_rate=0",
    "recipe.learning_rate=nan",
    "recipe.learning_rate=inf",
    "recipe.learning_rate='1e-3'",
    "recipe.momentum=1",
    "recipe.weight_decay=-1",
    "recipe.schedule=cosin",
    "recipe.optimizer=sgdd",
    "recipe.warmup_epochs=60",
    "recipe.label_smoothing=1",
    "recipe.precision=fp8",
    "recipe.ema_decay=1",
    "recipe=smal",
    "recipe=3",
    "dataset=digitz",
    "dataset.name=mnist",
    "dataset.reduced=0",
    "dataset.reduced=100000",
    "dataset.validation=-1",
    "dataset.validation=1797",
    "dataset.standard.cutout=9",
    "dataset.standard.crop_padding=-1",
    "dataset.standard.std=[0.0]",
    "dataset.standard.mean=[0.5,0.5,0.5]",
    "dataset.standard.order=policy",
    "dataset.download=yes please",
    "dataset.workers=-1",
    "dataset.path=somewhere",
    "dataset.standard.order=policy,crop_flip,cutout",
    "policy=trivialaugmnt",
    "policy=missing.json",
    "policy=",
    "genotype=",
    "policy=randaugment-n9-m9",
    "controls=none",
    "controls=[nonne]",
    "ops=[Rotat]",
    "ops=[Rotate,Rotate]",
    "ops=[]",
    "network=wide_resnet17",
    "network=supernet",
    "network=3",
    "seeds=[]",
    "seeds=[-1]",
    "seeds=0",
    "seeds=0,1,2",
    "seeds=[a]",
    "device=gpu",
    "device=cuda:99",
    "threads=0",
    "wandb=yes",
    "save_seconds=-1",
    "preset=dada",
    "preset=dada2020_relax",
    "experiment=cells_cifar10_1000",
    "unknown=1",
    "epochs=3",
    "+x._target_=os.system",
    "recipe._target_=os.system",
    "policy=${oc.env:HOME}",
    "run=",
    "policy=''",
    "hydra.run.dir=elsewhere",
    "--epochs=3",
    "epochs",
    "run=/dev/null/run",
    "recipe.epochs=[1",
    "searcher=trials",
    "search=joint",
    "cells.channels=8",
]


def run_script(name: str, arguments: list[str]) -> int:
    return door.run(importlib.import_module(f"scripts.{name}").main, name, arguments)


@pytest.mark.parametrize("override", BAD_RETRAIN)
def test_a_bad_setting_gives_one_line_and_exit_code_2_and_writes_nothing(
    override: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_script("retrain", [override]) == 2
    assert not any(tmp_path.iterdir())
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    assert _names(override, message)
    assert re.search(
        r"did you mean|choose|close|give|wanted|lower|set |use |leave|make|settings are|name |put |see ", message
    )


def _names(override: str, message: str) -> bool:
    key, _, value = override.lstrip("+-").partition("=")
    words = (key, key.rpartition(".")[2], *re.findall(r"[A-Za-z]+", value))
    return any(word in message for word in words if word)


def test_all_mistakes_are_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_script("retrain", ["recipe.epochs=0", "seeds=[a]", "dataset.reduced=0", "wandb=yes"]) == 2
    message = capsys.readouterr().err
    assert all(key in message for key in ("recipe.epochs", "seeds[0]", "dataset.reduced", "wandb"))


@pytest.mark.parametrize(
    ("override", "suggestion"),
    [
        ("recipe.epoch=3", "recipe.epochs"),
        ("dataset=digitz", "digits"),
        ("polcy=none", "policy"),
        ("policy=trivialaugmnt", "trivialaugment"),
        ("network=wide_resnet17_2", "wide_resnet16_2"),
    ],
)
def test_a_mistyped_name_is_answered_with_the_nearest(
    override: str, suggestion: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_script("retrain", [override]) == 2
    assert re.search(rf"did you mean [^?]*{suggestion}", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("name", "override", "remedy"),
    [
        ("retrain", "seeds=0", "wanted a list or null, as in seeds=[0]"),
        (
            "retrain",
            "dataset.standard.order=policy,crop_flip,cutout",
            "\"dataset.standard.order='policy, crop_fli",
        ),
        ("retrain", "dataset.standard.order=policy", "one of 'crop_flip, policy, cutout', 'policy, crop_flip, cutout'"),
        ("retrain", "estimator=relax", "use it with scripts/joint_search.py"),
        ("retrain", "dataset.path=somewhere", "use it with dataset=cifar10 or cifar100 or folder or hf or svhn"),
        ("retrain", "searcher.every=3", "it is a setting of scripts/joint_search.py"),
        ("compare", "recipe=small", "use it with scripts/joint_search.py or scripts/retrain.py"),
        ("joint_search", "network=resnet18", "leave network out, or choose search=policy or separate"),
    ],
)
def test_the_remedy_is_named(name: str, override: str, remedy: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_script(name, [override]) == 2
    assert remedy in capsys.readouterr().err


def test_a_value_with_commas_is_given_in_quotes() -> None:
    config = door.compose_plain("retrain", ["dataset.standard.order='policy, crop_flip, cutout'"])
    assert config["dataset"]["standard"]["order"] == "policy, crop_flip, cutout"


def test_a_full_disk_is_told_and_has_an_exit_code_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    def full(config: dict[str, Any]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "run/result.json")

    assert door.run(full, "retrain", []) == 74
    printed = capsys.readouterr().err
    wanted = "run/result.json cannot be written (No space left on device); free some space, then go on with run="
    assert printed == f"error: {wanted}\n"


def test_retraining_prints_a_table_and_leaves_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_script("retrain", [*QUICK, "run=out"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"\| none \| \d+\.\d\d \| 1 \|", printed)
    assert "1 seed: no claim" in printed
    out = tmp_path / "out"
    assert (out / "summary.md").read_text() in printed
    assert {path.name for path in out.iterdir()} == {
        "none",
        "trivialaugment",
        "summary.md",
        "summary.json",
        "report.html",
    }
    trial = {path.name for path in (out / "none" / "seed0").iterdir()}
    assert trial == {
        ".lock", "birth.json", "checkpoints", "metrics.jsonl", "policy.json", "result.json", "trial.json"
    }  # fmt: skip
    assert run_script("compare", ["run=out"]) == 0
    assert capsys.readouterr().out == (out / "summary.md").read_text()


def test_help_lists_settings_and_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_script("retrain", ["--help"]) == 0
    printed = capsys.readouterr().out
    assert "policy: null" in printed
    assert "dataset: cifar10" in printed


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def test_every_main_configuration_has_its_script_and_composes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert (REPOSITORY / "scripts" / f"{name}.py").is_file()
    required = {
        "compare": ["run=x"],
        "report": ["run=x"],
        "benchmark": ["task=augment"],
        "show_policy": ["policy=none"],
    }.get(name, [])
    assert door.run(lambda config: None, name, required) == 0


def whole_configurations() -> list[str]:
    """Papers' settings and our results'."""
    groups = ("preset", "experiment")
    return [f"{group}={path.stem}" for group in groups for path in sorted((CONFIGS / group).glob("*.yaml"))]


@pytest.mark.parametrize("choice", whole_configurations())
def test_every_whole_configuration_is_valid_under_the_command_that_it_names(choice: str) -> None:
    group, _, name = choice.partition("=")
    text = (CONFIGS / group / f"{name}.yaml").read_text(encoding="utf-8")
    found = re.search(r"^# python scripts/(\w+)\.py (.*)", text, re.MULTILINE)
    assert found is not None
    script, overrides = found[1], found[2].split()
    assert overrides[0] == choice
    config = door.compose_plain(script, overrides)
    groups = {name: config.pop(name, None) for name in joint_search.GROUPS}
    settings = build(importlib.import_module(f"scripts.{script}").Settings, config)
    if script == "joint_search":
        assert joint_search.searches_of(settings, groups)
    assert settings.recipe.epochs > 1


def test_the_preset_default_changes_nothing() -> None:
    assert door.compose_plain("joint_search", ["preset=default"]) == door.compose_plain("joint_search", [])


OVERRULED = {
    "joint_search preset=dada2020_gumbel searcher=shuffled_reward": "rewards; leave",
    "joint_search preset=dada2020_relax policy_space=trivialaugment": "policy_space=trivialaugment in start",
    "joint_search preset=kashima2021 recipe=full": "recipe.epochs=200",
    "joint_search search=joint recipe=full": "recipe.epochs=200",
    "joint_search search=architecture policy_space=trivialaugment": "start",
    "joint_search experiment=searches_cifar10_1000 recipe@search_recipe=full": "epochs",
    "retrain experiment=cifar10_1000 recipe=small": "recipe.epochs=60",
} | {
    f"joint_search preset={preset} {choice}": f"{choice} in name"
    for preset, choices in {
        "dada2020_relax": ("searcher=random", "searcher=table", "estimator=reinforce"),
        "faster_aa2020": ("searcher=random",),
    }.items()
    for choice in choices
}


@pytest.mark.parametrize("command", OVERRULED)
def test_a_choice_that_a_preset_would_overrule_is_refused(command: str) -> None:
    script, whole, *choices = command.split()
    with pytest.raises(InputError, match=rf"{whole}[a-z= ]* would overrule .*{re.escape(OVERRULED[command])}"):
        door.compose_plain(script, [whole, *choices])
    if not whole.startswith("search="):
        door.compose_plain(script, ["preset=null", "experiment=null", *choices, "dataset=cifar10"])


def test_a_choice_beside_a_preset_counts_where_the_preset_leaves_it_alone() -> None:
    kept = ["preset=faster_aa2020", "searcher=faster_aa", "searcher.chunk=1", "dataset=cifar100"]
    config = door.compose_plain("joint_search", kept)
    assert (config["searcher"]["chunk"], config["dataset"]["name"]) == (1, "cifar100")
    own = ["experiment=searches_cifar10_1000", "searcher=differentiable", "policy_space=trivialaugment"]
    assert door.compose_plain("joint_search", own)["policy_space"]["start"] == "trivialaugment"


@pytest.mark.parametrize("choice", whole_configurations())
@pytest.mark.parametrize("script", ["joint_search", "retrain"])
def test_a_whole_configuration_is_offered_by_the_scripts_that_take_it_and_refused_by_others(
    choice: str, script: str, capsys: pytest.CaptureFixture[str]
) -> None:
    group, _, name = choice.partition("=")
    main = importlib.import_module(f"scripts.{script}")

    def builds(config: dict[str, Any]) -> None:
        build(main.Settings, {name: value for name, value in config.items() if name not in joint_search.GROUPS})

    code = door.run(builds, script, [choice])
    message = capsys.readouterr().err
    refused = f"{choice} is not for scripts/{script}.py; use it with" in message
    assert code == 2 or not refused
    assert run_script(script, ["--help"]) == 0
    offered = re.search(rf"^  {group}: (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert offered is not None
    assert (name in offered[1].split(", ")) != refused


@pytest.mark.parametrize("script", sorted(door.SUBJECTS))
def test_what_a_script_is_about_needs_no_name(script: str) -> None:
    assert door.compose_plain(script, ["it"])[door.SUBJECTS[script]] == "it"
    for second in ("that", f"{door.SUBJECTS[script]}=that"):
        with pytest.raises(InputError, match="it stands beside"):
            door.compose_plain(script, ["it", second])


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.yaml")))
@pytest.mark.parametrize("words", [["--cfg"], ["--cfg", "job"]])
def test_every_configuration_is_printed_whatever_is_missing(
    name: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_script(name, words) == 0
    assert ": " in capsys.readouterr().out


def test_presets_can_still_be_overridden() -> None:
    config = door.compose_plain("retrain", ["preset=fast_autoaugment2019", "dataset=cifar10", "recipe.epochs=7"])
    assert config["recipe"]["epochs"] == 7
    assert config["recipe"]["batch_size"] == 512
    assert config["network"] == "wide_resnet40_2"


def test_a_script_run_as_a_user_runs_it_shows_no_traceback(tmp_path: Path) -> None:
    script = REPOSITORY / "scripts" / "retrain.py"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, str(script), "policy=nope"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
