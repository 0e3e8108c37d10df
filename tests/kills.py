"""What tests of killed runs share: waiting for a file of theirs, and comparing what is left bit for bit."""

import time
from pathlib import Path
from typing import Any

import torch


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
