"""Trainings are read back from W&B: from an offline run that wandb wrote, and through the public API."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jointsearch.commands.command import run
from jointsearch.report.comparison import compare
from jointsearch.report.comparisons import compare_all
from tests.test_comparisons import JOINT, around, search, train


def on_board(folder: Path, where: str = "*/seed*/result.json") -> list[dict[str, Any]]:
    """The trainings of a run folder as a board holds them, or its searches."""
    told = []
    for path in sorted(folder.glob(where)):
        parts = {name: json.loads(path.with_name(f"{name}.json").read_text()) for name in ("settings", "result")}
        told.append({"row": path.parents[1].name, "seed": parts["settings"]["seed"], **parts})
    return told


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "study"
    search(folder, JOINT, (0, 1, 2), "search=joint")
    train(folder, "none", around(50.0, 0.0, 1.0, 2.0))
    train(folder, "found", around(52.0, 0.0, 1.1, 1.9))
    return folder


@pytest.mark.slow
def test_an_offline_run_gives_the_table_of_its_run_folder(study: Path, tmp_path: Path) -> None:
    wandb = pytest.importorskip("wandb")
    settings = wandb.Settings(silent=True, console="off")
    with wandb.init(mode="offline", dir=str(tmp_path), project="p", settings=settings) as board:
        searches = on_board(study, "search-seed*/result.json")
        board.summary.update({"trainings": on_board(study), "searches": searches})
    [folder] = (tmp_path / "wandb").glob("offline-run-*")
    assert compare([folder]) == compare([study])
    assert [table.costs for table in compare_all([folder]).tables] == [one.costs for one in compare_all([study]).tables]
    (study / "wandb").mkdir()
    ours = study / "wandb" / folder.name
    ours.mkdir()
    assert compare_all([ours]) == compare_all([study])  # read from the run folder around it


def test_a_folder_that_is_no_offline_run_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "around" / "offline-run-1").mkdir(parents=True)
    assert run("compare", [str(tmp_path / "around" / "offline-run-1")]) == 2
    assert "offline-run-1 cannot be read" in capsys.readouterr().err


@pytest.fixture
def server(study: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """A stand-in of wandb's API, that notes what it is asked for."""
    asked: list[tuple[str, Any]] = []

    class Api:
        def runs(self, path: str, filters: Any) -> list[Any]:
            asked.append((path, filters))
            runs = []
            for words, better in (("search=joint", 0.0), ("search=separate", 1.0)):
                told = json.loads(json.dumps(on_board(study)))
                for training in (one for one in told if one["row"] == "found"):
                    training["result"]["test_accuracy_last"] += better
                    training["settings"]["policy"] = words
                searches = on_board(study, "search-seed*/result.json")
                for one in searches:
                    one["settings"]["search"]["is"] = words
                # What a sweep varies stands in its config as plain words, and nothing of ours may take its place.
                config = {"search": words, "settings": {"birth": {"command": f"joint_search.py {words}"}}}
                summary = {"trainings": told, "searches": searches}
                runs.append(SimpleNamespace(id=words[7:], config=config, summary_metrics=summary))
            return runs

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(Api=Api, Error=ConnectionError))
    return asked


def test_runs_of_a_project_or_of_a_group_are_read_from_a_server(server: list[tuple[str, Any]]) -> None:
    [table] = compare_all(["wandb:me/mine"]).tables
    assert {row.policy: row.mean for row in table.comparison.rows} == {
        "found (search=separate)": pytest.approx(54.0),
        "found (search=joint)": pytest.approx(53.0),
        "none": pytest.approx(51.0),
    }
    assert {one.place for one in table.alike.trainings} >= {"wandb:me/mine/joint, none/seed0"}  # as errors name it
    costs = {one.row: one.search for one in table.costs}
    assert [one and one.seconds for one in costs.values()] == [30.0, 30.0, None]  # of found twice, and of none
    compare_all(["wandb:me/mine/night"])
    assert server == [("me/mine", {}), ("me/mine", {"$or": [{"group": "night"}, {"sweep": "night"}]})]


@pytest.mark.parametrize(("name", "said"), [("wandb:", "names no project"), ("wandb:me", "write wandb:entity/project")])
def test_a_name_without_a_project_is_an_error(name: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compare", [name]) == 2
    assert said in capsys.readouterr().err


def test_a_server_that_does_not_answer_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("nobody\nthere")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(Api=fail, Error=ConnectionError))
    assert run("compare", ["wandb:me/mine"]) == 2
    assert capsys.readouterr().err == (
        "error: wandb:me/mine cannot be read (nobody there); run `wandb login`, or give run folders\n"
    )
