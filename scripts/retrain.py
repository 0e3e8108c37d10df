"""Train a network under a policy and its controls: python scripts/retrain.py policy=FILE|NAME dataset=... network=..."""

import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that `python scripts/retrain.py` finds scripts.door

from jointsearch.data.load import DataSettings
from jointsearch.data.standard import Standard
from jointsearch.loops.recipe import Recipe
from jointsearch.loops.trials import Grid, run_grid
from jointsearch.settings import build
from scripts.door import run


def main(config: dict[str, Any]) -> None:
    """Run the grid that the configuration describes."""
    dataset = dict(config["dataset"])
    standard = build(Standard, dataset.pop("standard"), "dataset.standard")
    grid = Grid(
        policies=tuple(dict.fromkeys((config["policy"], *config["controls"]))),
        seeds=tuple(config["seeds"]),
        network=config["network"],
        dataset=build(DataSettings, dataset, "dataset"),
        standard=standard,
        recipe=build(Recipe, config["recipe"], "recipe"),
        ops=config["ops"] and tuple(config["ops"]),
    )
    if config["threads"]:
        torch.set_num_threads(config["threads"])
    folder = Path(config["run"] or f"runs/retrain/{datetime.now():%Y-%m-%d/%H-%M-%S}")
    results = run_grid(grid, folder, "cpu", config["wandb"], config["save_seconds"], show_progress=True)
    for result in results:
        print(result)


if __name__ == "__main__":
    sys.exit(run(main, "retrain"))
