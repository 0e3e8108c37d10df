"""A grid of trainings, policies by seeds, each in its own folder: <run folder>/<policy>/seed<seed>."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jointsearch.data.load import DataSettings, load_splits
from jointsearch.loops.recipe import Recipe
from jointsearch.loops.retrain import retrain
from jointsearch.loops.trial import Trial, check_trial
from jointsearch.settings import as_plain
from search_spaces.controls import resolve_policy
from search_spaces.errors import InputError

SEED = "{seed}"  # in the path of a policy file: every seed has its own


@dataclass(frozen=True)
class Grid:
    """What is trained: every policy with every seed, all else equal."""

    policies: tuple[str, ...]  # names of controls, or paths of files, where {seed} stands for the seed
    dataset: DataSettings
    seeds: tuple[int, ...] = (0, 1, 2)
    network: str = "wide_resnet16_1"
    recipe: Recipe = field(default_factory=Recipe)
    ops: tuple[str, ...] | None = None  # for the controls that draw ops

    def __post_init__(self) -> None:
        check_seeds(self.seeds)
        if not self.policies:
            raise InputError("policies is empty; give at least one policy")
        names: dict[str, str] = {}
        for policy in self.policies:
            for seed in self.seeds if SEED in policy else self.seeds[:1]:
                resolve_policy(policy.replace(SEED, str(seed)), self.ops)
            other = names.setdefault(folder_name(policy), policy)
            if other != policy:
                raise InputError(f"policies {other} and {policy} would share one folder; rename one of the files")


def check_seeds(seeds: tuple[int, ...]) -> None:
    """Refuse what no generator takes."""
    if not seeds:
        raise InputError("seeds is empty; give at least one, as in seeds=[0]")
    if min(seeds) < 0 or max(seeds) >= 2**32:
        raise InputError(f"seeds is {list(seeds)}; give whole numbers from 0 to {2**32 - 1}")


def check_grid(grid: Grid, folder: Path | str, **options: Any) -> None:
    """Raise InputError for what would go wrong later, before anything is written: every policy with the first seed."""
    splits = load_splits(grid.dataset, grid.seeds[0])
    for policy in dict.fromkeys(grid.policies):
        check_trial(_trial(grid, policy, grid.seeds[0], Path(folder), options), splits)


def run_grid(
    grid: Grid, folder: Path | str, checked: Callable[[], None] = lambda: None, **options: Any
) -> list[dict[str, Any]]:
    """Train all of a grid, seed by seed: what is finished is read, what was interrupted goes on.

    `checked` is called when nothing was found wrong, before anything is written. Options are those of Trial: device,
    wandb_mode, save_seconds, show_progress.
    """
    check_grid(grid, folder, **options)
    checked()
    results = []
    for seed in dict.fromkeys(grid.seeds):
        splits = load_splits(grid.dataset, seed)
        for policy in dict.fromkeys(grid.policies):
            trial = _trial(grid, policy, seed, Path(folder), options)
            results.append({"policy": policy, "seed": seed, **retrain(trial, splits)})
    return results


def _trial(grid: Grid, policy: str, seed: int, folder: Path, options: dict[str, Any]) -> Trial:
    return Trial(
        folder=folder / folder_name(policy) / f"seed{seed}",
        policy=resolve_policy(policy.replace(SEED, str(seed)), grid.ops, seed),
        network=grid.network,
        recipe=grid.recipe,
        standard=grid.dataset.standard,
        seed=seed,
        dataset=relocatable(as_plain(grid.dataset)),
        **options,
    )


def relocatable(dataset: dict[str, Any]) -> dict[str, Any]:
    """The settings of a data set without the folders it lies in."""
    # The same data may lie elsewhere when a run goes on, and a result that is shown around names nobody's folders.
    return {
        key: os.path.basename(str(value).rstrip("/")) if key in ("path", "test_path") and value else value
        for key, value in dataset.items()
    }


def folder_name(policy: str) -> str:
    """The name of a policy, or of its file, as a folder."""
    stem = os.path.basename(policy).removesuffix(".json")
    return re.sub(r"[^A-Za-z0-9._-]+", "_", stem)[:100] or "policy"
