"""A grid of trainings, policies by seeds, each in its own folder: <run folder>/<policy>/seed<seed>.

On a network of cells a row may have a genotype of its own: policy@genotype, as in trivialaugment@random.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jointsearch.data.load import DataSettings, load_splits
from jointsearch.loops.recipe import Recipe
from jointsearch.loops.retrain import retrain
from jointsearch.loops.trial import Trial, check_folder, check_trial
from jointsearch.networks.supernet import SUPERNET
from jointsearch.settings import as_plain, bounded, check_fields, choice
from search_spaces.cells.random import random_genotype
from search_spaces.cells.space import CELL_SPACES
from search_spaces.controls import is_control, resolve_policy
from search_spaces.errors import InputError
from search_spaces.genotype import resolve_genotype
from search_spaces.policy import Policy
from search_spaces.schedule import PolicySchedule

SEED = "{seed}"  # in the path of a policy or genotype file: every seed has its own
CELLS = "jointsearch_cells"
RANDOM = "random"


@dataclass(frozen=True)
class CellsSettings:
    """The measures of a network of cells that is trained from scratch. The defaults are those of DARTS on CIFAR."""

    channels: int = bounded(36, 1, 4096)
    layers: int = bounded(20, 3, 1000)
    auxiliary: bool = True  # a second classifier behind the last reduction; recipe.auxiliary_weight weighs its loss
    random_space: str = choice("darts", *CELL_SPACES)  # of the genotype "random"

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Grid:
    """What is trained: every policy with every seed, all else equal."""

    policies: tuple[str, ...]  # names of controls, or paths of files, where {seed} stands for the seed
    dataset: DataSettings
    seeds: tuple[int, ...] = (0, 1, 2)
    network: str = "wide_resnet16_1"
    recipe: Recipe = field(default_factory=Recipe)
    ops: tuple[str, ...] | None = None  # for the controls that draw ops
    genotype: str | None = None  # a published one, "random", or a file; for a network of cells
    cells: CellsSettings = field(default_factory=CellsSettings)

    def __post_init__(self) -> None:
        check_seeds(self.seeds)
        if not self.policies:
            raise InputError("policies is empty; give at least one policy")
        if (self.network == CELLS) != (self.genotype is not None):
            raise InputError(
                f"genotype is {self.genotype} and network is {self.network}; network={CELLS} needs a genotype, and no "
                "other network takes one"
            )
        if self.network == SUPERNET:
            raise InputError(
                f"network={SUPERNET} is what cells are searched in, and its own are never chosen; use "
                f"joint_search.py to search them, and network={CELLS} to train with the genotype found"
            )
        names: dict[str, str] = {}
        for row in self.policies:
            for seed in self.seeds if SEED in f"{row}{self.genotype}" else self.seeds[:1]:
                self.policy(row, seed)
                self.network_options(row, seed)
            other = names.setdefault(folder_name(row), row)
            if other != row:
                raise InputError(f"policies {other} and {row} would share one folder; rename one of the files")

    def policy(self, row: str, seed: int) -> Policy | PolicySchedule:
        """The policy of a row."""
        return resolve_policy(self.parts(row)[0].replace(SEED, str(seed)), self.ops, seed)

    def network_options(self, row: str, seed: int) -> dict[str, Any]:
        """The genotype of a row with the measures of its network; empty for a network without cells."""
        genotype = self.parts(row)[1]
        if genotype is None:
            return {}
        if genotype == RANDOM:
            found = random_genotype(CELL_SPACES[self.cells.random_space], seed)
        else:
            found = resolve_genotype(genotype.replace(SEED, str(seed)))
        measures = {"channels": self.cells.channels, "layers": self.cells.layers, "auxiliary": self.cells.auxiliary}
        return {"genotype": found, **measures}

    def parts(self, row: str) -> tuple[str, str | None]:
        """The policy and the genotype that a row names."""
        policy, genotype = split_row(row) if self.network == CELLS else (row, None)
        return policy, self.genotype if genotype is None else genotype


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
        trial = _trial(grid, policy, grid.seeds[0], Path(folder), options)
        check_trial(trial, splits)
    check_folder(trial, splits, Path(folder))


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
        policy=grid.policy(policy, seed),
        network=grid.network,
        network_options=grid.network_options(policy, seed),
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


def split_row(row: str) -> tuple[str, str | None]:
    """Policy and genotype of policy@genotype: a name or a file stands before the mark, which folders may have too."""
    for marker in re.finditer("@", row):
        policy, genotype = row[: marker.start()], row[marker.end() :]
        if policy.endswith(".json") or is_control(policy):
            return policy, genotype
    return row, None


def folder_name(policy: str) -> str:
    """The name of a policy, or of its file, as a folder; policy@genotype where the row names both."""
    stems = (os.path.basename(part).removesuffix(".json") for part in split_row(policy) if part is not None)
    return re.sub(r"[^A-Za-z0-9._@-]+", "_", "@".join(stems))[:100] or "policy"
