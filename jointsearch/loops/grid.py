"""A grid of trainings, policies by seeds, each in its own folder: <run folder>/<policy>/seed<seed>.

On a network of cells a row may name a genotype of its own: policy@genotype, as in trivialaugment@random. It may also
ask for several copies of every image, as in trivialaugment+copies4 (augmenters/copies.py).
"""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from jointsearch.augmenters.copies import split_copies
from jointsearch.data.datasets import DataSettings
from jointsearch.data.load import Loaded
from jointsearch.data.sets import DataSplits
from jointsearch.distributed import first_before_others, from_first, wait_for_all
from jointsearch.jobs import TUNED
from jointsearch.loops.plan import Plan, check_folder, try_plan
from jointsearch.loops.progress import Course
from jointsearch.loops.recipe import SMALL, Recipe
from jointsearch.loops.repeat import repeat, twin
from jointsearch.loops.retrain import plain_steps, retrain
from jointsearch.loops.shared import Work, in_turn
from jointsearch.loops.start import normalized_as_weights
from jointsearch.networks.network_settings import NetworkSettings
from jointsearch.networks.supernet import SUPERNET
from jointsearch.protocols import PLAIN_STEP
from jointsearch.runs.run_folder import POLICY_FILE, RESULT_FILE, InUse, check_writable, file_name
from jointsearch.settings import as_plain, bounded, check_fields
from search_spaces.cells.random import random_genotype
from search_spaces.cells.space import CELL_SPACES
from search_spaces.controls import is_control, resolve_policy
from search_spaces.errors import InputError, check_distinct
from search_spaces.genotype import resolve_genotype
from search_spaces.plain_json import read_json
from search_spaces.policy import Policy
from search_spaces.schedule import PolicySchedule

SEED = "{seed}"  # in the path of a policy or genotype file: every seed has its own
CELLS = "jointsearch_cells"
RANDOM = "random"


@dataclass(frozen=True)
class CellsSettings:
    """The size of a network of cells that is trained from scratch. The defaults are those of DARTS on CIFAR."""

    channels: int = bounded(36, 1, 4096, help="of the first cells")
    layers: int = bounded(20, 3, 1000, help="cells, one after the other")

    def __post_init__(self) -> None:
        check_fields(self)

    def options(self, recipe: Recipe) -> dict[str, Any]:
        """The options of the network, but for its genotype."""
        return {"channels": self.channels, "layers": self.layers, "auxiliary": bool(recipe.auxiliary_weight)}


@dataclass(frozen=True)
class Grid:
    """What is trained: every policy with every seed, all else equal."""

    policies: tuple[str, ...]  # names of controls, or paths of files, where {seed} stands for the seed
    dataset: DataSettings
    seeds: tuple[int, ...] = (0, 1, 2)
    network: NetworkSettings = field(default_factory=NetworkSettings)  # or its name alone
    recipe: Recipe = SMALL  # as the command line has it
    ops: tuple[str, ...] | None = None  # for the controls that draw ops
    genotype: str | None = None  # a published one, "random", or a file; for a network of cells
    cells: CellsSettings = field(default_factory=CellsSettings)
    random_space: str = "darts"  # of the genotype "random"
    tuned: str | None = None  # the result of a search that tuned the recipe, where {seed} stands for the seed

    def __post_init__(self) -> None:
        object.__setattr__(self, "network", NetworkSettings.of(self.network))
        check_seeds(self.seeds)
        if not self.policies:
            raise InputError("policies is empty; give at least one policy")
        if (self.network.name == CELLS) != (self.genotype is not None):
            raise InputError(
                f"genotype is {self.genotype} and network is {self.network.name}; network={CELLS} needs a genotype, "
                "and no other network takes one"
            )
        if self.network.name == SUPERNET:
            raise InputError(
                f"network={SUPERNET} is what cells are searched in; use joint_search.py to search them, and "
                f"network={CELLS} to train with the genotype found"
            )
        self.network.check()
        object.__setattr__(self, "dataset", normalized_as_weights(self.dataset, self.network))
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
        """The genotype of a row with the size of its network; empty for a network without cells."""
        genotype = self.parts(row)[1]
        if genotype is None:
            return {}
        if genotype == RANDOM:
            found = random_genotype(CELL_SPACES[self.random_space], seed)
        else:
            found = resolve_genotype(genotype.replace(SEED, str(seed)))
        return {"genotype": found, **self.cells.options(self.recipe)}

    def recipe_of(self, seed: int) -> Recipe:
        """The recipe of all rows of a seed, with the factors that a search chose for it."""
        return self.recipe.scaled(self.factors_of(seed))

    def factors_of(self, seed: int) -> dict[str, float]:
        """What a search with a seed chose to multiply settings of the recipe with; 1 is left out."""
        path = None if self.tuned is None else Path(self.tuned.replace(SEED, str(seed)))
        chosen = read_json(path, "result").get(TUNED, {}) if path and path.is_file() else {}
        return {name: factor for name, factor in chosen.items() if factor != 1}

    def parts(self, row: str) -> tuple[str, str | None]:
        """The policy and the genotype that a row names."""
        policy, genotype = split_row(row) if self.network.name == CELLS else (split_copies(row)[0], None)
        return policy, self.genotype if genotype is None else genotype

    def plan(self, row: str, seed: int, folder: Path, options: dict[str, Any]) -> Plan:
        """One of its trainings."""
        _, copies = split_copies(row)
        return Plan(
            folder=folder / folder_name(row) / f"seed{seed}",
            policy=self.policy(row, seed),
            network=self.network,
            network_options=self.network_options(row, seed),
            copies=copies,
            recipe=self.recipe_of(seed).for_copies(copies),
            untuned=self.recipe,
            standard=self.dataset.standard,
            seed=seed,
            dataset=plain_dataset(self.dataset),
            **options,
        )


def check_seeds(seeds: tuple[int, ...]) -> None:
    """Refuse what no generator takes."""
    if not seeds:
        raise InputError("seeds is empty; give at least one, as in seeds=[0]")
    check_distinct("seeds", seeds)
    if min(seeds) < 0 or max(seeds) >= 2**32:
        raise InputError(f"seeds is {list(seeds)}; give whole numbers from 0 to {2**32 - 1}")


class Rows(Protocol):
    """What is trained: every row of `policies` with every seed."""

    @property
    def dataset(self) -> Any:
        """The settings of the data set."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds."""

    @property
    def recipe(self) -> Recipe:
        """How every row is trained."""

    @property
    def policies(self) -> tuple[str, ...]:
        """The names of the rows."""

    def plan(self, row: str, seed: int, folder: Path, options: dict[str, Any]) -> Plan:
        """One of its trainings."""


class LoadedData(Protocol):
    """A data set that is read once."""

    def splits(self, seed: int) -> DataSplits:
        """The training, validation and test images of a seed."""


def check_grid(grid: Rows, folder: Path | str, loaded: LoadedData, row: str | None = None, **options: Any) -> float:
    """Raise InputError for what would go wrong later, before anything is written. Returns the expected seconds.

    One row is tried, the first where none is named; the seconds are those of all rows if they are like it, but for
    their copies of every image.
    """
    splits, row = loaded.splits(grid.seeds[0]), row or grid.policies[0]
    plan = grid.plan(row, grid.seeds[0], Path(folder), options)
    check_folder(plan, splits, Path(folder))
    steps = grid.recipe.check_steps(len(splits.train)) * len(grid.seeds)
    epochs = sum(epochs_of(one, grid.recipe) for one in grid.policies)  # of one copy of every image
    return try_plan(plan, splits, plain_steps(plan)) / step_of(row) * steps * epochs


def step_of(row: str) -> float:
    """What a step of a row costs, in steps on one copy of every image."""
    _, copies = split_copies(row)
    return 1.0 if copies is None else copies.cost() / PLAIN_STEP


def epochs_of(row: str, recipe: Recipe) -> float:
    """What a training of a row costs, in epochs of one copy of every image."""
    return step_of(row) * recipe.for_copies(split_copies(row)[1]).epochs


def run_grid(
    grid: Rows,
    folder: Path | str,
    checked: Callable[[float], None] = lambda seconds: None,
    loaded: LoadedData | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Train all of a grid, seed by seed: what is finished is read, what was interrupted continues.

    `checked` is called with the expected seconds when nothing was found wrong, before anything is written; a data set
    that is `loaded` already was checked by the caller. Options are those of Plan: device, board, save_seconds,
    show_progress and task.
    """
    if loaded is None:
        check_writable(Path(folder))
        loaded = first_before_others(lambda: Loaded(grid.dataset))
        checked(check_grid(grid, folder, loaded, **options))
    seeds, policies = dict.fromkeys(grid.seeds), list(dict.fromkeys(grid.policies))
    course = Course("training", len(seeds) * len(policies))
    works: list[Work[dict[str, Any]]] = []
    for seed in seeds:
        for place in range(len(policies)):
            row = partial(grid.plan, seed=seed, folder=Path(folder), options=options)
            folder_of_row = row(policies[place]).folder
            works.append((folder_of_row, partial(_one, row, policies[: place + 1], seed, loaded, course)))
    return in_turn(works)


def _one(
    plan_of: Callable[[str], Plan], rows: Sequence[str], seed: int, loaded: LoadedData, course: Course
) -> dict[str, Any]:
    """The result of the last of some rows; one that has the very policy of a row before it takes over its result."""
    plan, splits = plan_of(rows[-1]), loaded.splits(seed)
    other = twin(plan, splits, [plan_of(row) for row in rows[:-1]])
    wait_for_all()  # it looks into the folder, which the first process now writes into
    if other is not None and not (other.folder / RESULT_FILE).is_file():
        raise InUse(f"{other.folder} is not finished, and {plan.folder} would be the same; wait for it")
    plan = replace(plan, place=course.next(other is not None or (plan.folder / RESULT_FILE).is_file()))
    result = retrain(plan, splits) if other is None else from_first(lambda: repeat(plan, splits, other))
    return {"policy": rows[-1], "seed": seed, **result}


def plain_dataset(dataset: Any) -> dict[str, Any]:
    """The settings of a data set as plain data, without the folders it lies in."""
    # The same data may lie elsewhere when a run is resumed, and a published result must name no folders.
    plain = {"name": dataset.name, **as_plain(dataset)}
    return {
        key: os.path.basename(str(value).rstrip("/")) if key in ("path", "test_path") and value else value
        for key, value in plain.items()
    }


def split_row(row: str) -> tuple[str, str | None]:
    """Policy and genotype of policy@genotype: a name or a file stands before the mark, which folders may have too."""
    row, _ = split_copies(row)
    for marker in re.finditer("@", row):
        policy, genotype = row[: marker.start()], row[marker.end() :]
        if policy.endswith(".json") or is_control(policy):
            return policy, genotype
    return row, None


def folder_name(policy: str) -> str:
    """The name of a policy, or of its file, as a folder; policy@genotype where the row names both."""
    found = f"{SEED}/{POLICY_FILE}"  # what a search of each seed found
    parts = ("found" if part.endswith(found) else part for part in split_row(policy) if part is not None)
    stems = (os.path.basename(part).removesuffix(".json") for part in parts)
    _, copies = split_copies(policy)
    return file_name("@".join(stems) + (str(copies) if copies else "")) or "policy"
