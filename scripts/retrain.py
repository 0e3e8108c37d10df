"""Train a network under a policy and its controls: python scripts/retrain.py policy=FILE|NAME|RUN dataset=NAME"""

import sys
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, overload

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the scripts find each other

import torch

from jointsearch.data.load import DataSettings
from jointsearch.device import choose_device
from jointsearch.loops.recipe import Recipe
from jointsearch.loops.searches import FOUND, FOUND_CELLS
from jointsearch.loops.trials import CELLS, SEED, CellsSettings, Grid, relocatable, run_grid
from jointsearch.report.comparison import write_summary
from jointsearch.report.page import write_report
from jointsearch.settings import as_plain, bounded, build, changed, choice, refuse_unread
from scripts.door import run
from search_spaces.errors import InputError
from search_spaces.plain_json import read_json

DEFAULT_SEEDS = (0, 1, 2, 3, 4)
RETRAINED = "retrained"  # within the run of a search, what was trained with its finds afterwards


@dataclass(frozen=True)
class Settings:
    """configs/retrain.yaml, checked."""

    policy: str | None
    genotype: str | None
    controls: tuple[str, ...]
    ops: tuple[str, ...] | None
    network: str
    cells: CellsSettings
    seeds: tuple[int, ...] | None
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
    named, settings = settings.run, of_search(settings)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    policy, genotype, seeds = sources(settings)
    if genotype is None:
        refuse_unread(changed(settings.cells, "cells"), "no genotype is named", "leave it out, or name one")
    grid = Grid(
        policies=(policy, *settings.controls),
        dataset=settings.dataset,
        seeds=seeds,
        network=settings.network if genotype is None else CELLS,
        recipe=settings.recipe,
        ops=settings.ops,
        genotype=genotype,
        cells=settings.cells,
    )
    folder = Path(settings.run or f"runs/retrain/{datetime.now():%Y-%m-%d/%H-%M-%S}")

    def announce() -> None:
        print(f"Training {len(grid.policies)} policies x {len(grid.seeds)} seeds in {folder}", flush=True)
        print(f"To go on after an interruption: the same command with run={named or folder}", flush=True)

    run_grid(
        grid,
        folder,
        announce,
        device=choose_device(settings.device),
        wandb_mode=settings.wandb,
        save_seconds=settings.save_seconds,
        show_progress=True,
    )
    print(f"\n{write_summary(folder)}\nWritten to {folder}/summary.md; each training has its own folder beside it.")
    print(f"On one page: {write_report(folder, settings.dataset)}")


def of_search(settings: Settings) -> Settings:
    """Where run= alone names a search: its finds, trained in a folder of their own within that run."""
    folder = settings.run
    if settings.policy is not None or settings.genotype is not None or folder is None or not found_seeds(folder):
        return settings
    trial = Path(folder, FOUND.replace(SEED, str(found_seeds(folder)[0]))).with_name("trial.json")
    searched, given = read_json(trial, "trial")["dataset"], relocatable(as_plain(settings.dataset))
    for name in ("name", "path", "test_path"):
        if searched[name] != given[name]:
            setting = "dataset" if name == "name" else f"dataset.{name}"
            raise InputError(
                f"the search in {folder} was on {setting}={searched[name]}, and {setting} is {given[name]}; add "
                f"{setting}={searched[name]}, or write policy={folder} to use what was found on other images"
            )
    genotype = folder if found_seeds(folder, FOUND_CELLS) else None
    return replace(settings, policy=folder, genotype=genotype, run=f"{folder}/{RETRAINED}")


def sources(settings: Settings) -> tuple[str, str | None, tuple[int, ...]]:
    """Policy, genotype and seeds, each of them as it is given or as a search found it."""
    policy, genotype = settings.policy, settings.genotype
    named = [folder for folder in (policy, genotype) if folder is not None and Path(folder).is_dir()]
    seeds = settings.seeds
    if seeds is None:
        seeds = next((found_seeds(folder) for folder in named), DEFAULT_SEEDS)
    return found_in("trivialaugment" if policy is None else policy, FOUND), found_in(genotype, FOUND_CELLS), seeds


@overload
def found_in(given: str, name: str) -> str: ...
@overload
def found_in(given: str | None, name: str) -> str | None: ...
def found_in(given: str | None, name: str) -> str | None:
    """What is given, or where it lies if that is the run folder of a search."""
    if given is None or not Path(given).is_dir():
        return given
    if not found_seeds(given, name):
        raise InputError(
            f"{given} is a folder without a finished {name}; give the run folder of a search, a file or a name"
        )
    return f"{given}/{name}"


def found_seeds(folder: str, name: str = FOUND) -> tuple[int, ...]:
    """The seeds of the searches that are finished in a run folder."""
    before, _, after = name.partition(SEED)
    paths = (path.relative_to(folder).as_posix() for path in Path(folder).glob(f"{before}*{after}"))
    numbers = (path.removeprefix(before).removesuffix(after) for path in paths)
    return tuple(sorted(int(number) for number in numbers if number.isdecimal()))


if __name__ == "__main__":
    sys.exit(run(main, "retrain"))
