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

from jointsearch.commands import command, retrain
from jointsearch.compose import CONFIGS, compose_words
from jointsearch.data.datasets import Cifar10
from jointsearch.settings import build
from tests.conftest import REPOSITORY
from tests.scripts_bench import COMMANDS, REMEDY, WHOLE, names_what_is_wrong, refusal, run_script

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
    "recipe.warmup.epochs=60",
    "recipe.label_smoothing=1",
    "recipe.precision=fp8",
    "recipe.ema_decay=1",
    "recipe.mixing.mixup=-1",
    "recipe.mixing.mixup=0",
    "recipe.warmup_epochs=5",
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
    "plugins=[missing.py]",
    "plugins=3",
    "dataset._target_=jointsearch.data.datasets.Folder",
]


@pytest.mark.parametrize("override", BAD_RETRAIN)
def test_a_bad_setting_gives_one_line_and_exit_code_2_and_writes_nothing(
    override: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    message = refusal(capsys, "retrain", override)
    assert names_what_is_wrong(override, message)
    assert REMEDY.search(message)


def test_all_mistakes_are_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_script("retrain", "recipe.epochs=0", "seeds=[a]", "dataset.reduced=0", "tensorboard=3") == 2
    message = capsys.readouterr().err
    assert all(key in message for key in ("recipe.epochs", "seeds[0]", "dataset.reduced", "tensorboard"))


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
    assert run_script("retrain", override) == 2
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
        ("retrain", "dataset.path=somewhere", "of dataset=Digits; choose one of reduced, validation, standard"),
        ("retrain", "searcher.every=3", "use it with scripts/joint_search.py"),
        ("retrain", "cells.channels=8", "none is named; name one, or leave it out"),
        ("retrain", "genotype=DARTS_V2 network=resnet18", "which makes a network of cells; leave one of the two out"),
        ("retrain", "genotype=DARTS_V2 random_space=small", "none is; leave it out"),
        ("retrain", "random_space=small", "random_space is the space that genotype=random is drawn from, and none is"),
        ("retrain", "dataset=null", "choose one of the 13 known ones"),
        ("retrain", "batch_size=5", "did you mean recipe.batch_size?"),
        ("retrain", "lr=0.1", "did you mean recipe.learning_rate?"),
        ("retrain", "--recipe.epochs=1", "settings are written without: recipe.epochs=1"),
        ("retrain", "dataset=photos.tar/x", "write dataset=folder dataset.path=photos.tar/x\n"),
        ("detect", "dataset=/c", "write dataset=coco dataset.path=/c or dataset=voc dataset.path=/c\n"),
        ("export_policy", "run=out", "did you mean policy?"),
        ("compare", "recipe=small", "use it with scripts/detect.py or scripts/joint_search.py or scripts/retrain.py"),
        ("joint_search", "network=resnet18", "leave it out, or use it with search=policy, search=separate"),
    ],
)
def test_the_remedy_is_named(name: str, override: str, remedy: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_script(name, *override.split()) == 2
    assert remedy in capsys.readouterr().err


def test_a_value_with_commas_is_given_in_quotes() -> None:
    given = settings_of("retrain", "dataset.standard.order='policy, crop_flip, cutout'")
    assert given.dataset.standard.order == "policy, crop_flip, cutout"


def test_a_full_disk_is_told_and_has_an_exit_code_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(given: retrain.Settings) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "run/result.json")

    monkeypatch.setattr(retrain, "main", full)
    assert run_script("retrain") == 74
    printed = capsys.readouterr().err
    wanted = "run/result.json cannot be written (No space left on device); free some space, then go on with run="
    assert printed == f"error: {wanted}\n"


def test_retraining_prints_a_table_and_leaves_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_script("retrain", *QUICK, "run=out") == 0
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
        "pictures.safetensors",
        "words.json",
    }
    training = {path.name for path in (out / "none" / "seed0").iterdir()}
    assert training == {
        ".lock", "birth.json", "checkpoints", "metrics.jsonl", "model.json", "model.safetensors", "policy.json",
        "predictions.json", "result.json", "settings.json",
    }  # fmt: skip
    assert run_script("compare", "run=out", "format=markdown") == 0
    assert capsys.readouterr().out.startswith((out / "summary.md").read_text())


def test_help_lists_settings_and_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_script("retrain", "--help") == 0
    printed = capsys.readouterr().out
    assert "policy=null" in printed
    assert "dataset: celeba, cifar10" in printed


def settings_of(name: str, *words: str) -> Any:
    """The settings with which a command would be carried out."""
    module = importlib.import_module(f"jointsearch.commands.{name}")
    read = getattr(module, "read", lambda composed: build(module.Settings, composed.values))
    return read(compose_words(name, words))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_main_configuration_has_its_script_and_composes(name: str) -> None:
    assert (REPOSITORY / "scripts" / f"{name}.py").is_file()
    assert name in command.COMMANDS.values()
    assert settings_of(name)


def test_every_script_has_its_main_configuration_and_a_word_of_the_installed_command() -> None:
    scripts = sorted(path.stem for path in (REPOSITORY / "scripts").glob("[a-z]*.py"))
    assert scripts == COMMANDS == sorted(command.COMMANDS.values())


@pytest.mark.parametrize("choice", WHOLE)
def test_every_whole_configuration_is_valid_under_the_command_that_it_names(choice: str) -> None:
    group, _, name = choice.partition("=")
    text = (CONFIGS / group / f"{name}.yaml").read_text(encoding="utf-8")
    found = re.search(r"^# python scripts/(\w+)\.py (.*)", text, re.MULTILINE)
    assert found is not None
    script, words = found[1], found[2].split()
    assert words[0] == choice
    given = settings_of(script, *words)
    if script == "joint_search":
        given = given.study
        # Searches by whole trainings have the recipe of the trainings.
        assert all(getattr(stage, "recipe", given.recipe).epochs > 1 for stage in given.search.stages())
    assert given.recipe.epochs > 1


@pytest.mark.parametrize("choice", WHOLE)
@pytest.mark.parametrize("script", ["joint_search", "retrain"])
def test_a_whole_configuration_is_offered_by_the_scripts_that_take_it_and_refused_by_others(
    choice: str, script: str, capsys: pytest.CaptureFixture[str]
) -> None:
    group, _, name = choice.partition("=")
    refused = run_script(script, choice, "--cfg") == 2
    assert (f"{choice} is not for scripts/{script}.py; use it with" in capsys.readouterr().err) == refused
    assert run_script(script, "--help") == 0
    offered = re.search(rf"^  {group}: (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert offered is not None
    assert (name in offered[1].split(", ")) != refused


SUBJECTS = {
    name: subject
    for name in COMMANDS
    if (subject := importlib.import_module(f"jointsearch.commands.{name}").SUBJECT) is not None
}


@pytest.mark.parametrize("script", SUBJECTS)
def test_what_a_script_is_about_needs_no_name(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    word = "levers" if script == "benchmark" else "it"
    assert run_script(script, word, "--cfg") == 0
    assert f"{SUBJECTS[script]}={word}\n" in capsys.readouterr().out
    seconds = ("run=that",) if script == "compare" else ("that", f"{SUBJECTS[script]}=that")  # it takes several
    for second in seconds:
        assert "stands beside" in refusal(capsys, script, word, second)


def test_most_commands_are_about_something() -> None:
    assert SUBJECTS == {
        "benchmark": "task", "compare": "run", "export_model": "run", "export_policy": "policy", "predict": "run",
        "report": "run", "show_policy": "policy", "sweep": "file",
    }  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("words", [["--cfg"], ["--cfg", "job"]])
def test_every_configuration_is_printed_as_words_that_give_it_again(
    name: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_script(name, *words) == 0
    printed = capsys.readouterr().out
    assert re.fullmatch(r"([a-z_.]+=.+\n)+", printed)
    again = [line.replace("order=", "order='") + "'" * ("order=" in line) for line in printed.splitlines()]
    assert run_script(name, *again, "--cfg") == 0
    assert capsys.readouterr().out == printed


def test_presets_can_still_be_overridden() -> None:
    given = settings_of("retrain", "preset=fast_autoaugment2019", "dataset=cifar10", "recipe.epochs=7")
    assert (given.recipe.epochs, given.recipe.batch_size) == (7, 512)
    assert given.network.name == "wide_resnet40_2"
    assert isinstance(given.dataset, Cifar10)


@pytest.mark.slow
def test_a_script_run_as_a_user_runs_it_shows_no_traceback(tmp_path: Path) -> None:
    script = REPOSITORY / "scripts" / "retrain.py"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, str(script), "policy=nope"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
