"""Measure on this machine: python scripts/benchmark.py augment"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the scripts find each other

import torch

from jointsearch.benchmarks.augmentation import compare_libraries, share_of_step
from jointsearch.device import choose_device
from jointsearch.provenance import birth_certificate
from jointsearch.settings import bounded, build, choice
from scripts.door import run

TASKS = ("augment",)


@dataclass(frozen=True)
class Settings:
    """configs/benchmark.yaml, checked."""

    task: str = choice("augment", *TASKS)
    device: str = "auto"
    network: str = "wide_resnet40_2"
    batch_size: int = bounded(128, 2, 65_536)
    rounds: int = bounded(7, 1, 1000)


def main(config: dict[str, Any]) -> None:
    """Print the tables of a task as Markdown, under their birth certificate."""
    settings = build(Settings, config)
    device = choose_device(settings.device)
    birth = birth_certificate()
    print(f"{birth['command']} at {birth['commit']}: {birth['hardware']}, torch {birth['torch']}, {birth['date']}\n")
    for size, batch in ((32, 128), (224, 64)):
        _print_libraries(size, batch, settings.rounds)
    _print_share(settings, device)


def _print_libraries(size: int, batch: int, rounds: int) -> None:
    timings = compare_libraries(size, batch, rounds)
    ours = next(iter(timings.values()))
    print(f"25 sub-policies at {size}x{size}, batch {batch}, one thread:\n")
    print("| | images/s | jointsearch is |\n|---|---|---|")
    for name, seconds in timings.items():
        print(f"| {name} | {batch / seconds:,.0f} | {seconds / ours:.2f} times as fast |")
    print(flush=True)


def _print_share(settings: Settings, device: torch.device) -> None:
    print(f"{settings.network}, batch {settings.batch_size}, {device}, {torch.get_num_threads()} CPU threads:\n")
    print("| precision | front-end / training step |\n|---|---|")
    for precision in ("float32", "bf16"):
        timings = share_of_step(settings.network, settings.batch_size, precision, device, settings.rounds)
        print(f"| {precision} | {timings['front-end'] / timings['training step']:.1%} |", flush=True)


if __name__ == "__main__":
    # `benchmark.py augment` reads better than task=augment.
    given = [f"task={argument}" if argument in TASKS else argument for argument in sys.argv[1:]]
    sys.exit(run(main, "benchmark", given))
