"""Colored digits by ERM, group DRO and CLAMP, from the command line to tables and pages, and killed on the way."""

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from jointsearch import compose_study, run_study
from jointsearch.commands.command import run
from jointsearch.data.group_datasets import ColoredDigits
from jointsearch.loops.by_group import Clamp, GroupDro
from jointsearch.loops.grid import Grid, run_grid
from jointsearch.loops.recipe import Recipe
from jointsearch.loops.task import CLASSIFICATION, Task
from jointsearch.report.comparison import compare
from jointsearch.report.comparisons import compare_all
from jointsearch.report.page import write_report
from jointsearch.report.page_groups import groups_section
from jointsearch.report.page_run import read_run
from jointsearch.runs.checkpoint import load_checkpoint
from jointsearch.runs.track import read_metrics
from search_spaces.errors import InputError
from tests.forked import forkserver
from tests.kills import same, sleep_until, wait_for

WORDS = {
    "erm": [],
    "group_dro": ["objective=group_dro", "objective.step_size=0.1"],
    "clamp": ["objective=clamp", "objective.consistency=3"],
}
SHORT = [
    *("dataset=colored_digits", "dataset.reduced=200", "policy=none", "controls=[]", "network=tiny_cnn", "device=cpu"),
    *("seeds=[0,1]", "recipe.epochs=3", "recipe.batch_size=50", "recipe.evaluate_every=1", "recipe.precision=float32"),
]
GROUPS = ["even/red", "even/green", "odd/red", "odd/green"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of each."""
    folder = tmp_path_factory.mktemp("runs")
    for name, words in WORDS.items():
        assert run("retrain", [*SHORT, *words, f"run={folder / name}"]) == 0
    return folder


def result(folder: Path, name: str, seed: int = 0) -> dict[str, Any]:
    return json.loads((folder / name / f"none/seed{seed}/result.json").read_text())


@pytest.mark.parametrize("name", WORDS)
def test_results_epochs_and_predictions_tell_the_groups(name: str, folder: Path) -> None:
    scores, told = result(folder, name)["test_scores_last"], folder / name / "none/seed0"
    assert [key.removeprefix("group_accuracy/") for key in scores if key.startswith("group_accuracy/")] == GROUPS
    accuracies = [scores[f"group_accuracy/{group}"] for group in GROUPS]
    assert scores["worst_group_accuracy"] == min(accuracies)
    gaps = [abs(accuracies[place] - accuracies[place + 1]) for place in (0, 2)]
    assert [scores["group_gap/even"], scores["group_gap/odd"]] == pytest.approx(gaps)
    assert scores["largest_group_gap"] == pytest.approx(max(gaps))
    predictions = json.loads((told / "predictions.json").read_text())
    right = [one == other for one, other in zip(predictions["labels"], predictions["predicted"], strict=True)]
    for number, accuracy in enumerate(accuracies):
        of_group = [hit for hit, group in zip(right, predictions["groups"], strict=True) if group == number]
        assert accuracy == pytest.approx(100 * sum(of_group) / len(of_group))
    *epochs, last = read_metrics(told / "metrics.jsonl")
    assert all("validation_worst_group_accuracy" in epoch for epoch in epochs)
    assert last["test_worst_group_accuracy_last"] == scores["worst_group_accuracy"]
    assert not [key for key in last if "/" in key]


def test_settings_name_the_objective_and_a_run_folder_keeps_to_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {name: json.loads((folder / name / "none/seed0/settings.json").read_text()) for name in WORDS}
    assert "objective" not in settings["erm"]
    assert settings["group_dro"]["objective"] == {"name": "group_dro", "step_size": 0.1, "adjustment": 0.0}
    assert run("retrain", [*SHORT, "objective=clamp", f"run={folder / 'erm'}"]) == 2
    assert "objective.name was None, is 'clamp'" in capsys.readouterr().err


def test_runs_of_several_objectives_stand_in_one_table_by_the_worst_group(folder: Path) -> None:
    [table] = compare_all([folder], "worst_group_accuracy").tables
    rows = {row.policy: row for row in table.comparison.rows}
    names = {"erm": "none", "group_dro": "none (objective=group_dro)", "clamp": "none (objective=clamp)"}
    assert set(rows) == set(names.values())
    for name, row in names.items():
        worst = [result(folder, name, seed)["test_scores_last"]["worst_group_accuracy"] for seed in (0, 1)]
        assert list(rows[row].values.values()) == worst
    assert table.comparison.baseline == "none"
    assert table.comparison.difference(rows["none (objective=clamp)"]) is not None
    # A step of CLAMP takes a batch and its two translations through the network.
    costs = {cost.row: cost.training.forward_equivalents for cost in table.costs}
    assert costs == {"none": 36, "none (objective=group_dro)": 36, "none (objective=clamp)": 108}


def test_settings_of_an_objective_tell_rows_apart(folder: Path, tmp_path: Path) -> None:
    assert run("retrain", [*SHORT, "objective=group_dro", f"run={tmp_path / 'other'}"]) == 0
    comparison = compare([folder / "group_dro", tmp_path / "other"])
    assert {row.policy for row in comparison.rows} == {
        "none (objective=group_dro, objective.step_size=0.1)",
        "none (objective=group_dro, objective.step_size=0.01)",
    }


def test_gaps_are_better_where_they_are_smaller(folder: Path) -> None:
    for metric in ("largest_group_gap", "group_gap/even"):
        [table] = compare_all([folder], metric).tables
        means = [row.mean for row in table.comparison.rows]
        assert means == sorted(means)
        assert not table.comparison.metric.higher_is_better


def test_the_page_has_a_table_of_groups(folder: Path) -> None:
    text = write_report(folder / "clamp").read_text()
    mean = sum(result(folder, "clamp", seed)["test_scores_last"]["worst_group_accuracy"] for seed in (0, 1)) / 2
    section = text.partition("<h2>Groups</h2>")[2].partition("</section>")[0]
    assert f"{mean:.2f}" in section
    assert all(group in section for group in GROUPS)
    assert "Gaps of each class" in section


def test_a_page_of_a_run_without_groups_has_none(tmp_path: Path) -> None:
    words = [word for word in SHORT if not word.startswith("dataset")]
    assert run("retrain", [*words, "dataset=digits", "dataset.reduced=100", f"run={tmp_path}"]) == 0
    assert groups_section(read_run(tmp_path)) == []


def test_a_search_inside_one_training_refuses_a_loss_of_groups(tmp_path: Path) -> None:
    words = ["search=policy", "searcher=differentiable", "network=tiny_cnn", "search_recipe.epochs=1"]
    study = compose_study(*words, dataset="colored_digits", seeds=(0,), retrain=False, device="cpu")
    with pytest.raises(InputError, match="no search inside one training does; train with"):
        run_study(study, tmp_path, task=Task(new_objective=GroupDro()))


# ------------------------------------------------------------------------------------------------------ kill -9

TASKS = {"erm": CLASSIFICATION, "group_dro": Task(new_objective=GroupDro(0.3)), "clamp": Task(new_objective=Clamp(0.3))}
EPOCHS = 8
ROW = Path("trivialaugment/seed2")
GRID = Grid(
    ("trivialaugment",),
    ColoredDigits(balanced=True),
    (2,),
    "tiny_cnn",
    Recipe(EPOCHS, 32, ema_decay=0.9, precision="float32"),
)


def go(folder: str, name: str) -> None:
    torch.set_num_threads(1)
    run_grid(GRID, folder, task=TASKS[name], device=torch.device("cpu"), save_seconds=0.05)


def final_state(folder: Path) -> dict[str, Any]:
    loaded = load_checkpoint(folder / ROW / "checkpoints")
    assert loaded is not None
    told = json.loads((folder / ROW / "result.json").read_text())
    told.pop("seconds")
    names = ("metrics.jsonl", "predictions.json", "settings.json", "model.safetensors")
    files = {name: (folder / ROW / name).read_bytes() for name in names}
    return files | {"result": told, "state": {key: loaded.state[key] for key in loaded.state if key != "seconds"}}


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_killed_at_random_moments_it_ends_with_the_same_bits(name: str, tmp_path: Path) -> None:
    child = forkserver().Process(target=go, args=(str(tmp_path / "whole"), name))
    child.start()
    wait_for(tmp_path / "whole" / ROW / "settings.json")
    began = time.monotonic()
    child.join(120)
    assert child.exitcode == 0
    wanted, seconds = final_state(tmp_path / "whole"), time.monotonic() - began
    if name != "erm":
        q = wanted["state"]["trainer"]["objective"]["log_weights"].exp()
        assert (q - q.flatten()[0]).abs().max() > 0.01  # it learned
    for moment in range(2):
        folder = tmp_path / str(moment)
        child = forkserver().Process(target=go, args=(str(folder), name))
        child.start()
        wait_for(folder / ROW / "settings.json")
        sleep_until(folder / ROW, 0.9 * (moment + random.Random(moment).random()) / 2 * EPOCHS, seconds / EPOCHS)
        child.kill()
        child.join(30)
        assert child.exitcode == -signal.SIGKILL or (folder / ROW / "result.json").exists()
        again = forkserver().Process(target=go, args=(str(folder), name))
        again.start()
        again.join(120)
        assert again.exitcode == 0
        assert same(final_state(folder), wanted)
