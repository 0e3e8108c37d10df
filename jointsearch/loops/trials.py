"""A grid of trainings, policies by seeds, each in its own folder: <run folder>/<policy>/seed<seed>."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from jointsearch.data.load import DataSettings, load_splits
from jointsearch.data.standard import Standard
from jointsearch.loops.recipe import Recipe
from jointsearch.loops.retrain import Trial, retrain
from jointsearch.settings import as_plain
from search_spaces.controls import resolve_policy
from search_spaces.errors import InputError


@dataclass(frozen=True)
class Grid:
    """What is trained: every policy with every seed, all else equal."""

    policies: tuple[str, ...]
    seeds: tuple[int, ...]
    network: str
    dataset: DataSettings
    standard: Standard
    recipe: Recipe
    ops: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not self.policies or not self.seeds:
            raise InputError("policies and seeds must each hold at least one entry; give for example seeds=[0]")
        for policy in self.policies:
            resolve_policy(policy, self.ops, 0)


def run_grid(
    grid: Grid,
    folder: Path,
    device: torch.device | str = "cpu",
    wandb_mode: str = "disabled",
    save_seconds: float = 60.0,
    show_progress: bool = False,
) -> list[dict[str, Any]]:
    """Train all of a grid, seed by seed; what is finished already is read, what was interrupted goes on."""
    results = []
    for seed in grid.seeds:
        splits = load_splits(grid.dataset, seed)
        for policy in grid.policies:
            trial = Trial(
                folder=folder / folder_name(policy) / f"seed{seed}",
                policy=resolve_policy(policy, grid.ops, seed),
                network=grid.network,
                recipe=grid.recipe,
                standard=grid.standard,
                seed=seed,
                identity={"dataset": as_plain(grid.dataset)},
                device=torch.device(device),
                wandb_mode=wandb_mode,
                save_seconds=save_seconds,
                show_progress=show_progress,
            )
            results.append({"policy": policy, "seed": seed, **retrain(trial, splits)})
    return results


def folder_name(policy: str) -> str:
    """The name of a policy, or of its file, as a folder."""
    stem = os.path.basename(policy).removesuffix(".json")
    return re.sub(r"[^A-Za-z0-9._-]+", "_", stem)[:100] or "policy"
