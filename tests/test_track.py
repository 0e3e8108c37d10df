"""metrics.jsonl is valid JSON, repeats byte for byte, and is cut back to where a checkpoint was made."""

import json
import math
import random
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from jointsearch.runs.track import Tracker, read_metrics
from search_spaces.errors import InputError


@pytest.fixture(autouse=True)
def silent_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))


def test_one_step_is_one_line_with_sorted_keys(tmp_path: Path) -> None:
    with Tracker(tmp_path / "new" / "run") as tracker:
        tracker.log(3, {"val_loss": 0.1 + 0.2, "epoch": 1, "phase": "search\n"})
    expected = '{"epoch": 1, "phase": "search\\n", "step": 3, "val_loss": 0.30000000000000004}\n'
    assert (tmp_path / "new" / "run" / "metrics.jsonl").read_text() == expected


def test_numbers_that_json_does_not_know_are_written_as_words(tmp_path: Path) -> None:
    with Tracker(tmp_path) as tracker:
        tracker.log(1, {"a": math.nan, "b": math.inf, "c": -math.inf})

    def refuse(name: str) -> None:
        raise AssertionError(name)

    line = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert line == {"a": "nan", "b": "inf", "c": "-inf", "step": 1}
    assert read_metrics(tmp_path / "metrics.jsonl") == [line]


def test_a_line_can_be_read_as_soon_as_it_is_logged(tmp_path: Path) -> None:
    with Tracker(tmp_path) as tracker:
        tracker.log(1, {"loss": 1.0})
        assert read_metrics(tracker.path) == [{"step": 1, "loss": 1.0}]


def test_a_metric_that_is_no_number_or_is_called_step_writes_nothing(tmp_path: Path) -> None:
    with Tracker(tmp_path) as tracker:
        with pytest.raises(TypeError, match="Tensor"):
            tracker.log(1, {"loss": torch.zeros(())})  # type: ignore[dict-item]
        with pytest.raises(ValueError, match="step"):
            tracker.log(1, {"step": 2})
    assert tracker.path.read_bytes() == b""


def test_a_run_that_was_killed_and_resumed_has_the_same_bytes(tmp_path: Path) -> None:
    with Tracker(tmp_path / "unbroken") as tracker:
        for step in range(6):
            tracker.log(step, {"loss": 1 / (step + 1)})
    with Tracker(tmp_path / "killed") as tracker:
        for step in range(4):
            tracker.log(step, {"loss": 1 / (step + 1)})
            if step == 2:
                offset = tracker.offset()
    with tracker.path.open("ab") as stream:
        stream.write(b'{"loss": 0.1')
    assert [row["step"] for row in read_metrics(tracker.path)] == [0, 1, 2, 3]
    with Tracker(tmp_path / "killed") as tracker:
        tracker.rewind(offset)
        assert tracker.offset() == offset
        for step in range(3, 6):
            tracker.log(step, {"loss": 1 / (step + 1)})
    assert tracker.path.read_bytes() == (tmp_path / "unbroken" / "metrics.jsonl").read_bytes()


def test_the_offset_is_the_size_of_the_file(tmp_path: Path) -> None:
    with Tracker(tmp_path) as tracker:
        assert tracker.offset() == 0
        tracker.log(1, {})
        assert tracker.offset() == len('{"step": 1}\n') == tracker.path.stat().st_size
        tracker.rewind(0)
        assert tracker.path.stat().st_size == 0


@pytest.mark.parametrize("offset", [13, 1_000, 5, -1], ids=["one past", "far past", "inside a line", "negative"])
def test_a_file_that_does_not_reach_the_offset_or_has_no_line_end_there_is_an_error(
    offset: int, tmp_path: Path
) -> None:
    with Tracker(tmp_path) as tracker:
        tracker.log(1, {})
        with pytest.raises(InputError, match=rf"metrics.jsonl has 12 bytes .* byte {offset}; .*restore"):
            tracker.rewind(offset)
    assert tracker.path.stat().st_size == 12


@pytest.mark.parametrize("line", ["", "7", "{}", "{'step': 1}", '{"step": NaN}', "\x80"])
def test_a_damaged_line_is_named_by_its_number(line: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n' + line + "\n")
    with pytest.raises(InputError, match=r"metrics.jsonl, line 2"):
        read_metrics(path)


def test_an_empty_file_has_no_metrics_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").touch()
    assert read_metrics(tmp_path / "metrics.jsonl") == []
    with pytest.raises(InputError, match="is not there; give"):
        read_metrics(tmp_path / "other.jsonl")


# ------------------------------------------------------------------------------------------------------------- wandb


def test_metrics_are_kept_where_wandb_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with Tracker(tmp_path) as tracker:
        tracker.log(1, {"loss": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.slow
def test_wandb_offline_keeps_the_metrics_and_draws_nothing_from_our_generators(tmp_path: Path) -> None:
    before = random.getstate(), torch.get_rng_state().tolist()
    with Tracker(tmp_path, "offline", {"seed": 7}, "my name") as tracker:
        tracker.log(1, {"val_accuracy": 0.5, "broken": math.nan})
    assert (random.getstate(), torch.get_rng_state().tolist()) == before
    identity = (tmp_path / "wandb_id.txt").read_text()
    (run,) = tmp_path.glob(f"wandb/offline-run-*/run-{identity}.wandb")
    words = (b"val_accuracy", b"0.5", b"my name", b"seed")
    # W&B's own process writes the file, and in 2 of 25 runs did so after finish() had returned.
    deadline = time.monotonic() + 20
    while not all(word in run.read_bytes() for word in words) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [word for word in words if word not in run.read_bytes()] == []
    assert len(read_metrics(tracker.path)) == 1


def test_without_wandb_the_error_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"wandb=offline needs the package wandb .*wandb=disabled"):
        Tracker(tmp_path, "offline")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [ConnectionError, LookupError], ids=["connection", "wandb's own"])
def test_a_wandb_that_does_not_start_is_one_line_with_a_remedy(
    kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**_: object) -> None:
        raise kind("no\nkey")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Error=LookupError))
    with pytest.raises(InputError, match=r"^wandb=online could not start \(no key\); run `wandb login` or"):
        Tracker(tmp_path, "online")
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_run_goes_on_in_the_same_wandb_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    run = SimpleNamespace(finish=lambda exit_code: None)

    def init(**options: object) -> SimpleNamespace:
        started.append((options["id"], options["resume"]))
        return run

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Error=LookupError))
    for folder in ("one", "one", "two"):
        with Tracker(tmp_path / folder, "online"):
            pass
    assert started[0] == started[1]
    assert started[0][1] == "allow"
    assert started[2][0] != started[0][0]


def test_wandb_hears_of_a_failed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    run = SimpleNamespace(
        log=lambda metrics, step: calls.append((step, metrics)),
        finish=lambda exit_code: calls.append((exit_code, "finished")),
    )
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **_: run, Error=LookupError))
    with suppress(ZeroDivisionError), Tracker(tmp_path, "online") as tracker:
        tracker.log(4, {"loss": 2.0})
        raise ZeroDivisionError
    assert calls == [(4, {"loss": 2.0}), (1, "finished")]
