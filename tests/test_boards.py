"""A command has one board: one W&B run, one place for TensorBoard, with its searches and trainings side by side."""

import json
import math
import random
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from jointsearch.loops.journal import Interrupted
from jointsearch.report.on_board import put_on_board, summary_of
from jointsearch.report.page import write_report
from jointsearch.report.page_run import read_run
from jointsearch.runs.boards import Board, Disabled, Wandb
from jointsearch.runs.track import Tracker, read_metrics
from search_spaces.errors import InputError
from tests.conftest import REPOSITORY
from tests.kills import wait_for
from tests.report_bench import edit, write_run
from tests.wandb_loopback import Loopback

ONLINE = Wandb("online", project="mine", entity="us", group="all", tags=("one", "two"))


@pytest.fixture(autouse=True)
def silent_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)


class Recorder:
    """A `wandb` that keeps what it is told."""

    Error = LookupError

    def __init__(self) -> None:
        self.started: list[dict[str, Any]] = []
        self.told: list[tuple[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.id = "r1"

    def init(self, **options: Any) -> "Recorder":
        self.started.append(options)
        return self

    def define_metric(self, name: str, step_metric: str | None = None, hidden: bool = False) -> None:
        self.told.append(("axis", (name, step_metric)))

    def log(self, metrics: dict[str, Any]) -> None:
        self.told.append(("log", metrics))

    def log_artifact(self, artifact: Any) -> None:
        self.told.append(("artifact", (artifact.name, artifact.type, artifact.files)))

    def mark_preempting(self) -> None:
        self.told.append(("preempting", None))

    def finish(self, exit_code: int) -> None:
        self.told.append(("finish", exit_code))

    def Artifact(self, name: str, type: str) -> Any:
        files: dict[str, str] = {}

        def add_file(path: str, shown: str) -> None:
            files[shown] = path

        return SimpleNamespace(name=name, type=type, files=files, add_file=add_file)

    def Image(self, path: str) -> tuple[str, bytes]:
        return "image", Path(path).read_bytes()

    def Html(self, path: str) -> tuple[str, bytes]:
        return "page", Path(path).read_bytes()

    def only(self, kind: str) -> list[Any]:
        return [what for one, what in self.told if one == kind]


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setitem(sys.modules, "wandb", recorder)
    return recorder


def test_metrics_are_kept_where_wandb_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with Board.of(Disabled(), False, tmp_path, {}) as board, Tracker(tmp_path, board) as tracker:
        tracker.log(1, {"loss": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_one_run_holds_all_trainings_each_with_its_own_steps(tmp_path: Path, wandb: Recorder) -> None:
    with Board.of(ONLINE, False, tmp_path, {"seeds": [0]}) as board:
        none, found = (Tracker(tmp_path / row / "seed0", board) for row in ("none", "found"))
        with none, found:
            for tracker, step in ((none, 5), (found, 5), (none, 10)):
                tracker.log(step, {"loss": 1.0 / step})
    [options] = wandb.started
    assert [options[name] for name in ("project", "entity", "group", "tags")] == ["mine", "us", "all", ("one", "two")]
    assert options["config"].keys() == {"settings"}  # in a sweep, any other name may be that of a parameter
    assert options["config"]["settings"]["seeds"] == [0]
    assert options["config"]["settings"]["birth"]["commit"]
    assert wandb.only("axis") == [
        *[("none/seed0/step", None), ("none/seed0/*", "none/seed0/step")],
        *[("found/seed0/step", None), ("found/seed0/*", "found/seed0/step")],
    ]
    assert wandb.only("log") == [
        {"none/seed0/step": 5, "none/seed0/loss": 0.2},
        {"found/seed0/step": 5, "found/seed0/loss": 0.2},
        {"none/seed0/step": 10, "none/seed0/loss": 0.1},
    ]
    assert wandb.only("finish") == [0]


def test_what_a_killed_run_had_written_is_told_again(tmp_path: Path, wandb: Recorder) -> None:
    with Tracker(tmp_path / "none") as tracker:
        tracker.log(5, {"loss": 0.5})
        tracker.log(10, {"loss": math.nan})
    with Board.of(ONLINE, False, tmp_path, {}) as board, Tracker(tmp_path / "none", board) as tracker:
        tracker.log(15, {"loss": 0.25})
    told = [(line["none/step"], line["none/loss"]) for line in wandb.only("log")]
    assert told[0] == (5, 0.5)
    assert told[1][0] == 10
    assert math.isnan(told[1][1])
    assert told[2:] == [(15, 0.25)]


def test_a_board_that_nothing_was_told_starts_no_run(tmp_path: Path, wandb: Recorder) -> None:
    with Board.of(ONLINE, False, tmp_path / "new", {}):
        pass
    assert not wandb.started
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("error", "code"), [(ZeroDivisionError(), 1), (Interrupted(15), 143)], ids=["error", "signal"])
def test_wandb_hears_how_a_command_ended(error: Exception, code: int, tmp_path: Path, wandb: Recorder) -> None:
    with suppress(ZeroDivisionError, Interrupted), Board.of(ONLINE, False, tmp_path, {}) as board:
        board.log(tmp_path / "a", 1, {"loss": 2.0})
        raise error
    assert wandb.only("finish") == [code]


def test_a_command_that_goes_on_goes_on_in_the_same_wandb_run(tmp_path: Path, wandb: Recorder) -> None:
    for folder in ("one", "one", "two"):
        with Board.of(ONLINE, False, tmp_path / folder, {}) as board:
            board.open()
    first, again, other = (started["id"] for started in wandb.started)
    assert first == again != other
    assert {started["resume"] for started in wandb.started} == {"allow"}
    assert not wandb.only("preempting")


def test_an_agent_of_a_sweep_names_the_run_and_may_give_it_to_another_agent(
    tmp_path: Path, wandb: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    monkeypatch.setenv("WANDB_RUN_ID", "run7")
    (tmp_path / "wandb_id.txt").write_text("before")
    with Board.of(ONLINE, False, tmp_path, {}) as board:
        board.open()
    assert [started["id"] for started in wandb.started] == ["run7"]
    assert len(wandb.only("preempting")) == 1


def test_without_wandb_the_error_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with (
        pytest.raises(InputError, match=r"wandb=offline needs the package wandb .*wandb=disabled"),
        Board.of(Wandb(), False, tmp_path / "new", {}) as board,
    ):
        Tracker(tmp_path / "new" / "none", board)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [ConnectionError, LookupError], ids=["connection", "wandb's own"])
def test_a_wandb_that_does_not_start_is_one_line_with_a_remedy(
    kind: type[Exception], tmp_path: Path, wandb: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**_: object) -> None:
        raise kind("no\nkey")

    monkeypatch.setattr(wandb, "init", init)
    with (
        pytest.raises(InputError, match=r"^wandb=online could not start \(no key\); run `wandb login`"),
        Board.of(ONLINE, False, tmp_path, {}) as board,
    ):
        Tracker(tmp_path / "none", board)
    assert list(tmp_path.iterdir()) == []


def test_the_summary_has_the_finding_beside_each_control(tmp_path: Path) -> None:
    told = summary_of(read_run(write_run(tmp_path)))
    found, none = [81.0, 82.2], [80.0, 81.0]  # as write_trainings has them
    assert told["score"] == told["found/mean"] == pytest.approx(statistics.fmean(found))
    assert told["found/spread"] == pytest.approx(statistics.stdev(found))
    assert told["none/mean"] == pytest.approx(statistics.fmean(none))
    differences = [one - other for one, other in zip(found, none, strict=True)]
    assert told["found/minus_none"] == pytest.approx(statistics.fmean(differences))
    # Student's t for one degree of freedom is 12.706 at 97.5 %.
    assert told["found/minus_none_half_width"] == pytest.approx(12.706 * 0.2 / math.sqrt(2) / math.sqrt(2), rel=1e-3)
    assert told["found/minus_none_verdict"] == "2 seeds: no claim"
    assert "none/minus_found" not in told
    assert (told["cost/search_seconds"], told["cost/training_seconds"]) == (60.0, 40.0)
    assert told["cost/search_forward_equivalents"] == 2400
    assert [(one["row"], one["seed"], one["result"]["test_accuracy_last"]) for one in told["trainings"]] == [
        *[("found", 0, 81.0), ("found", 1, 82.2), ("none", 0, 80.0), ("none", 1, 81.0)]
    ]
    assert [(one["seed"], one["result"]["seconds"]) for one in told["searches"]] == [(0, 30.0), (1, 30.0)]
    for seed in range(2):  # what was trained once costs once
        edit(tmp_path / "found" / f"seed{seed}" / "result.json", same_as="none")
    assert summary_of(read_run(tmp_path))["cost/training_seconds"] == 20.0


def test_without_a_search_every_row_stands_beside_the_baseline(tmp_path: Path) -> None:
    write_run(tmp_path)
    (tmp_path / "found").rename(tmp_path / "autoaugment")
    told = summary_of(read_run(tmp_path))
    assert told["autoaugment/minus_none"] == pytest.approx(1.1)
    assert "score" not in told


def test_findings_page_and_pictures_are_kept(tmp_path: Path, wandb: Recorder) -> None:
    write_report(write_run(tmp_path, "joint"))
    with Board.of(ONLINE, False, tmp_path, {}) as board:
        put_on_board(board, tmp_path)
    kept = {kind: files for _, kind, files in wandb.only("artifact")}
    assert {kind: sorted(files) for kind, files in kept.items()} == {
        "policy": ["search-seed0/policy.json", "search-seed1/policy.json"],
        "genotype": ["search-seed0/genotype.json", "search-seed1/genotype.json"],
        "report": ["report.html"],
    }
    assert all(Path(path).is_file() for files in kept.values() for path in files.values())
    media = {name: what for one in wandb.only("log") for name, what in one.items()}
    assert media["report"] == ("page", (tmp_path / "report.html").read_bytes())
    pictures = {f"pictures/{what} of seed {seed}" for what in ("policy", "cells") for seed in (0, 1)}
    assert set(media) == {"report"} | pictures
    assert all(media[name][1].startswith(b"\x89PNG") for name in pictures)
    assert wandb.summary["found/seeds"] == 2


def test_tensorboard_has_the_same_figures_and_pictures(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed; pip install -e '.[dev]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    Image.new("RGB", (20, 10), (255, 0, 0)).save(tmp_path / "red.png")
    with Board.of(Disabled(), True, tmp_path, {"seeds": [0]}) as board:
        with Tracker(tmp_path / "none" / "seed0", board) as tracker:
            tracker.log(5, {"loss": 0.25, "word": "w"})
        board.show("pictures/red", tmp_path / "red.png")
        board.summarize({"found/mean": 81.5})
    read = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(one.step, one.value) for one in read.Scalars("none/seed0/loss")] == [(5, 0.25)]
    assert read.Tags()["scalars"] == ["none/seed0/loss"]
    [picture] = read.Images("pictures/red")
    assert (picture.width, picture.height) == (20, 10)
    assert "81.5" in str(read.Tensors("summary/text_summary")[0].tensor_proto)


def test_tensorboard_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with (
        pytest.raises(InputError, match=r"tensorboard=true needs the package tensorboard .*tensorboard=false"),
        Board.of(Disabled(), True, tmp_path, {}) as board,
    ):
        board.open()


# -------------------------------------------------------------------------------------------------- the real package


@pytest.mark.slow
def test_wandb_offline_keeps_the_metrics_and_draws_nothing_from_our_generators(tmp_path: Path) -> None:
    before = random.getstate(), torch.get_rng_state().tolist()
    with Board.of(Wandb(), False, tmp_path, {"seed": 7}) as board, Tracker(tmp_path / "none", board) as tracker:
        tracker.log(1, {"val_accuracy": 0.5, "broken": math.nan})
    assert (random.getstate(), torch.get_rng_state().tolist()) == before
    identity = (tmp_path / "wandb_id.txt").read_text()
    (run,) = tmp_path.glob(f"wandb/offline-run-*/run-{identity}.wandb")
    words = (b"none/val_accuracy", b"0.5", tmp_path.name.encode(), b"seed")
    # W&B's own process writes the file, and in 2 of 25 runs did so after finish() had returned.
    deadline = time.monotonic() + 20
    while not all(word in run.read_bytes() for word in words) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [word for word in words if word not in run.read_bytes()] == []
    assert len(read_metrics(tracker.path)) == 1


SEARCH = [
    *("search=policy", "searcher=random", "network=tiny_cnn", "seeds=[0,1,2]", "dataset.reduced=60", "device=cpu"),
    *("search_recipe.epochs=1", "recipe.epochs=2", "recipe.evaluate_every=1", "controls=[none]", "threads=1"),
    *("save_seconds=0", "wandb=online", "wandb.group=ours", "wandb.tags=[a,b]", "run=mine"),
]


@pytest.mark.slow
@pytest.mark.long
def test_a_server_holds_all_of_an_online_run_that_was_killed_and_went_on(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    script = str(REPOSITORY / "scripts" / "joint_search.py")
    with Loopback() as server:
        where = {"env": server.environment, "cwd": tmp_path}
        first = subprocess.Popen([sys.executable, script, *SEARCH], stdout=subprocess.DEVNULL, **where)
        wait_for(tmp_path / "mine" / "none" / "seed0" / "metrics.jsonl")
        first.kill()
        first.wait()
        subprocess.run([sys.executable, script, *SEARCH], check=True, stdout=subprocess.DEVNULL, **where)
        assert server.unknown == []
        [(identity, run)] = server.runs.items()
        uploads, artifacts = server.uploads, server.artifacts
    assert (tmp_path / "mine" / "wandb_id.txt").read_text() == identity
    assert run["exit_code"] == 0
    assert run["told"]["groupName"] == "ours"
    assert run["told"]["tags"] == ["a", "b"]
    config = run["config"]["settings"]
    assert (config["dataset"]["name"], config["network"], config["seeds"]) == ("digits", "tiny_cnn", [0, 1, 2])
    assert config["recipe"]["epochs"] == 2
    assert config["search"]["search_recipe"]["epochs"] == 1
    assert config["birth"]["commit"]
    results = {
        (row, seed): json.loads((tmp_path / "mine" / row / f"seed{seed}" / "result.json").read_text())
        for row in ("found", "none")
        for seed in range(3)
    }
    found, none = ([results[row, n]["test_accuracy_last"] for n in range(3)] for row in ("found", "none"))
    assert run["summary"]["score"] == pytest.approx(statistics.fmean(found))
    assert run["summary"]["found/minus_none"] == pytest.approx(
        statistics.fmean(found) - statistics.fmean(none), abs=1e-9
    )
    for part in [f"{row}/seed{seed}" for row in ("found", "none") for seed in range(3)]:
        points = {line[f"{part}/step"]: line for line in run["history"] if f"{part}/train_loss" in line}
        lines = [one for one in read_metrics(tmp_path / "mine" / part / "metrics.jsonl") if "train_loss" in one]
        assert [points[one["step"]][f"{part}/train_loss"] for one in lines] == [one["train_loss"] for one in lines]
    assert {one["type"] for one in artifacts.values()} == {"policy", "report"}
    assert all(one["committed"] for one in artifacts.values())
    [policy] = [name for name in uploads if name.endswith("search-seed1/policy.json")]
    assert uploads[policy] == (tmp_path / "mine" / "search-seed1" / "policy.json").read_bytes()
    pages = [name for name in uploads if "/media/html/report" in name]
    assert any(uploads[name].startswith(b"<!doctype html>") or b"<main>" in uploads[name] for name in pages)
    assert len([name for name in uploads if "/media/images/pictures/policy" in name]) == 3
