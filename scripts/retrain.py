"""Train a network under a policy and its controls: python scripts/retrain.py policy=FILE|NAME dataset=NAME"""

import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the scripts find each other

import torch

from jointsearch.data.load import DataSettings
from jointsearch.device import choose_device
from jointsearch.loops.recipe import Recipe
from jointsearch.loops.trials import Grid, run_grid
from jointsearch.report.comparison import compare
from jointsearch.run_folder import replace_file, write_json
from jointsearch.settings import bounded, build, choice
from scripts.door import run


@dataclass(frozen=True)
class Settings:
    """configs/retrain.yaml, checked."""

    policy: str
    controls: tuple[str, ...]
    ops: tuple[str, ...] | None
    network: str
    seeds: tuple[int, ...]
    device: str
    dataset: DataSettings
    recipe: Recipe
    run: str | None
    wandb: str = choice("disabled", "disabled", "offline", "online")
    threads: int | None = bounded(None, 1, 1024)
    save_seconds: float = bounded(60.0, 0.0, 86_400.0)


def main(config: dict[str, Any]) -> None:
    """Train what the configuration asks for, and print it side by side."""
    settings = build(Settings, config)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    grid = Grid(
        policies=(settings.policy, *settings.controls),
        dataset=settings.dataset,
        seeds=settings.seeds,
        network=settings.network,
        recipe=settings.recipe,
        ops=settings.ops,
    )
    folder = Path(settings.run or f"runs/retrain/{datetime.now():%Y-%m-%d/%H-%M-%S}")

    def announce() -> None:
        print(f"Training {len(grid.policies)} policies x {len(grid.seeds)} seeds in {folder}", flush=True)
        print(f"To go on after an interruption: the same command with run={folder}", flush=True)

    run_grid(
        grid,
        folder,
        announce,
        device=choose_device(settings.device),
        wandb_mode=settings.wandb,
        save_seconds=settings.save_seconds,
        show_progress=True,
    )
    comparison = compare([folder])
    replace_file(folder / "summary.md", comparison.to_markdown().encode())
    write_json(folder / "summary.json", comparison.to_data())
    print(f"\n{comparison.to_markdown()}\nWritten to {folder}/summary.md; each training has its own folder beside it.")


if __name__ == "__main__":
    sys.exit(run(main, "retrain"))
