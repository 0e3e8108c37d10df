"""Times of several things in turn, so that a machine whose speed drifts is fair to all of them."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def time_in_turn(calls: Mapping[str, Callable[[], object]], rounds: int, block_seconds: float) -> dict[str, float]:
    """Median seconds of every call, in blocks of about `block_seconds`, A B C A B C ..., each warmed up once."""
    repeats = {}
    for name, call in calls.items():
        call()
        repeats[name] = max(1, round(block_seconds / max(_seconds(call, 1), 1e-6)))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            seconds[name].append(_seconds(call, repeats[name]))
    return {name: statistics.median(values) for name, values in seconds.items()}


def _seconds(call: Callable[[], object], repeats: int) -> float:
    _wait()
    began = time.perf_counter()
    for _ in range(repeats):
        call()
    _wait()
    return (time.perf_counter() - began) / repeats


def _wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
