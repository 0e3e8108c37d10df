"""metrics.jsonl is valid JSON, repeats byte for byte, and is cut back to where a checkpoint was made."""

import json
import math
from pathlib import Path

import pytest
import torch

from jointsearch.runs.track import Tracker, read_metrics
from search_spaces.errors import InputError


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
