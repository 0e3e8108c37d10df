"""What tests of killed runs share: waiting for a file of theirs, and comparing what is left bit for bit."""

import json
import time
from pathlib import Path
from typing import Any

import torch

from jointsearch.runs.checkpoint import load_checkpoint


def same(left: Any, right: Any) -> bool:
    """Whether two states of plain parts and tensors are equal, bit for bit."""
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def wait_for(path: Path) -> None:
    """Until the file, or the folder, is there and holds something."""
    deadline = time.monotonic() + 240  # a busy machine took a minute to import torch
    while not (any(path.iterdir()) if path.is_dir() else path.is_file() and path.stat().st_size):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def sleep_until(folder: Path, epochs: float, seconds: float) -> None:
    """Until a run has done so many epochs, counted by its lines of metrics; of a part of one, by the seconds of one."""
    # By its progress and not by a clock: the machine may be faster or slower than it was for the run that was timed.
    deadline, metrics = time.monotonic() + 60, folder / "metrics.jsonl"
    while int(epochs) > (metrics.read_bytes().count(b"\n") if metrics.is_file() else 0):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(epochs % 1 * seconds)


def final_state(folder: Path) -> dict[str, Any]:
    """What the only training of a run has left: result, metrics and last checkpoint, without what a clock measured."""
    trained = next(folder.glob("*/seed*"))
    loaded = load_checkpoint(trained / "checkpoints")
    assert loaded is not None
    result = json.loads((trained / "result.json").read_text())
    result.pop("seconds")
    state = {key: value for key, value in loaded.state.items() if key != "seconds"}
    return {"result": result, "metrics": (trained / "metrics.jsonl").read_bytes(), "state": state}
