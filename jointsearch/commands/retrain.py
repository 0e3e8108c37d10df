"""Train a network under a policy and its controls, and print them side by side."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from jointsearch.commands.as_searched import as_searched
from jointsearch.commands.folders import new_folder
from jointsearch.commands.found import found_in, found_seeds
from jointsearch.commands.names import as_started
from jointsearch.commands.typed import RETRAINED, keep_words
from jointsearch.compose import Composed
from jointsearch.data.always_on import always_on
from jointsearch.data.datasets import DataSettings, Digits
from jointsearch.data.load import Loaded
from jointsearch.device import choose_device
from jointsearch.distributed import first_before_others, from_first
from jointsearch.loops.by_group import ObjectiveSettings
from jointsearch.loops.grid import (
    CELLS,
    RANDOM,
    SEED,
    CellsSettings,
    Grid,
    check_grid,
    plain_dataset,
    run_grid,
    split_row,
)
from jointsearch.loops.recipe import Recipe
from jointsearch.loops.start import start_notes
from jointsearch.loops.task import CLASSIFICATION, Task
from jointsearch.networks.network_settings import NetworkSettings
from jointsearch.report.comparison import write_summary
from jointsearch.report.on_board import put_on_board
from jointsearch.report.page import write_report
from jointsearch.report.page_html import duration
from jointsearch.runs.boards import Board, Disabled, WandbSettings
from jointsearch.runs.run_folder import SETTINGS_FILE, check_writable
from jointsearch.settings import as_plain, bounded, build, choice, group, setting
from jointsearch.stages import FOUND, FOUND_CELLS, FOUND_FACTS
from jointsearch.study import LONG_SECONDS, STUDY_FILE
from search_spaces.cells.space import CELL_SPACES
from search_spaces.errors import InputError
from search_spaces.plain_json import read_json

logger = logging.getLogger(__name__)
SUBJECT = None
MOST_USED = (
    "policy",
    "genotype",
    "controls",
    "dataset",
    "network",
    "recipe",
    "seeds",
    "run",
    "device",
    "recipe.epochs",
)
NETWORK = "wide_resnet16_1"
DEFAULT_SEEDS = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Settings:
    """What is trained."""

    policy: str | None = setting(None, help="a policy or schedule file, a control, or the run folder of a search")
    genotype: str | None = setting(None, help="cells: a file, random, DARTS_V2, PC_DARTS_CIFAR, ..., or a run folder")
    controls: tuple[str, ...] = setting(
        ("none", "random"), help="rows trained the same way: a policy, or policy@genotype"
    )
    dataset: DataSettings = group(Digits, help="the images")
    network: NetworkSettings | None = setting(
        None, help="ours or timm's, as network=resnet18 network.weights=FILE; null: wide_resnet16_1, or genotype's"
    )
    recipe: Recipe = group(Recipe, help="how every row is trained")
    objective: ObjectiveSettings | None = group(
        lambda: None, help="group_dro, clamp: losses that compare groups of images; null: cross entropy"
    )
    seeds: tuple[int, ...] | None = setting(None, help="null: those of the search that is named, or [0,1,2,3,4]")
    cells: CellsSettings | None = setting(None, help="size of the network of a genotype, as in cells.layers=8")
    random_space: str | None = choice(
        None, None, *CELL_SPACES, help="space that genotype=random is drawn from; null for that of DARTS"
    )
    ops: tuple[str, ...] | None = setting(
        None, help="ops that random, randaugment and trivialaugment may use; null for all of theirs"
    )
    run: str | None = setting(None, help="the run folder; give it again to continue. null makes one below runs/retrain")
    plugins: tuple[str, ...] = setting((), help="Python files that add ops or networks of your own")
    device: str = setting("auto", help="auto, cpu, cuda, cuda:1, ...")
    threads: int | None = bounded(None, 1, 1024, help="CPU threads; null leaves torch's choice")
    wandb: WandbSettings = group(Disabled, help="disabled, offline, online: also send figures to Weights & Biases")
    tensorboard: bool = setting(False, help="also write event files for TensorBoard into the run folder")
    save_seconds: float = bounded(60.0, 0.0, 86_400.0, help="seconds between two checkpoints, at most")


def read(composed: Composed) -> Settings:
    """The settings of a composed configuration; run=SEARCH brings those of the search."""
    values, taken = as_searched(composed)
    if taken:
        logger.warning(f"As in the search {composed.values['run']}: {' '.join(taken)}")
    return build(Settings, values)


def main(given: Settings) -> None:
    """Train what the configuration asks for, and print it side by side."""
    named, searched = given.run, of_search(given)
    tuned = None if searched is given else str(Path(str(named), FOUND_FACTS))
    given = searched
    if given.threads:
        torch.set_num_threads(given.threads)
    grid = replace(grid_of(given), tuned=tuned)
    folder = Path(from_first(lambda: given.run or new_folder("retrain")))
    options: dict[str, Any] = {"save_seconds": given.save_seconds, "show_progress": True}
    options["device"] = choose_device(given.device)
    options["task"] = CLASSIFICATION if given.objective is None else Task(new_objective=given.objective)
    check_writable(folder)
    loaded = first_before_others(lambda: Loaded(grid.dataset))
    seconds = check_grid(grid, folder, loaded, **options)
    print(f"Training {len(grid.policies)} policies x {len(grid.seeds)} seeds in {folder}")
    print(as_started(f"To continue after an interruption: python scripts/retrain.py run={named or folder}"))
    for seed in grid.seeds:
        if factors := grid.factors_of(seed):
            said = ", ".join(f"recipe.{name} x{factor:g}" for name, factor in factors.items())
            print(f"As the race of seed {seed} chose, its trainings have {said}")
    print(f"Always on: {always_on(grid.dataset)}")
    for note in start_notes(grid.dataset, grid.network, loaded.splits(grid.seeds[0])):
        print(note)
    long = "; recipe.epochs= makes it shorter" if seconds > LONG_SECONDS else ""
    print(f"Expected: {duration(seconds)}, by the second step of the network{long}", flush=True)
    from_first(lambda: keep_words(folder))
    config = as_plain(given) | {"dataset": plain_dataset(grid.dataset), **grid.network.plain()}
    with Board.of(given.wandb, given.tensorboard, folder, config) as board:
        run_grid(grid, folder, loaded=loaded, board=board, **options)
        summary = from_first(lambda: write_summary(folder))
        print(f"\n{summary}\nWritten to {folder}/summary.md; each training has its own folder beside it.")
        print(f"On one page: {from_first(lambda: write_report(folder, given.dataset))}")
        put_on_board(board, folder, given.dataset)


def grid_of(given: Settings) -> Grid:
    """The trainings that are asked for. What nothing would read is refused."""
    policy, genotype, seeds = sources(given)
    if genotype is None and given.cells is not None:
        raise InputError("cells is the size of the network of a genotype, and none is named; name one, or leave it out")
    network = given.network or NetworkSettings(CELLS if genotype is not None else NETWORK)
    if genotype is not None and network.name != CELLS:
        raise InputError(
            f"network={network.name} stands beside genotype={genotype}, which makes a network of cells; leave one of "
            "the two out"
        )
    if given.random_space and RANDOM not in (genotype, *(split_row(row)[1] for row in given.controls)):
        raise InputError("random_space is the space that genotype=random is drawn from, and none is; leave it out")
    return Grid(
        policies=(policy, *given.controls),
        dataset=given.dataset,
        seeds=seeds,
        network=network,
        recipe=given.recipe,
        ops=given.ops,
        genotype=genotype,
        cells=given.cells or CellsSettings(),
        random_space=given.random_space or "darts",
    )


def of_search(given: Settings) -> Settings:
    """Where run= alone names a search: its finding, trained in a folder of its own within that run."""
    folder = given.run
    if given.policy is not None or given.genotype is not None or folder is None or not found_seeds(folder):
        return given
    path = Path(folder, FOUND.replace(SEED, str(found_seeds(folder)[0]))).with_name(SETTINGS_FILE)
    searched, wanted = read_json(path, "settings")["dataset"], plain_dataset(given.dataset)
    for name in ("name", "path", "test_path"):
        if searched.get(name) != wanted.get(name):
            word = "dataset" if name == "name" else f"dataset.{name}"
            raise InputError(
                f"the search in {folder} was on {word}={searched.get(name)}, and {word} is {wanted.get(name)}; give "
                f"{word}={searched.get(name)}, or write policy={folder} to use what was found on other images"
            )
    genotype = folder if found_seeds(folder, FOUND_CELLS) else None
    drawn, study = any(split_row(row)[1] == RANDOM for row in given.controls), Path(folder, STUDY_FILE)
    space = given.random_space
    if genotype and drawn and space is None and study.is_file():
        space = read_json(study, "settings of a study")["space"]
    return replace(given, policy=folder, genotype=genotype, random_space=space, run=f"{folder}/{RETRAINED}")


def sources(given: Settings) -> tuple[str, str | None, tuple[int, ...]]:
    """Policy, genotype and seeds, each of them as it is given or as a search found it."""
    named = [folder for folder in (given.policy, given.genotype) if folder is not None and Path(folder).is_dir()]
    seeds = given.seeds
    if seeds is None:
        seeds = next((found_seeds(folder) for folder in named), DEFAULT_SEEDS)
    for folder in named if given.seeds is not None else []:
        there = found_seeds(folder)
        if there and (missing := [seed for seed in seeds if seed not in there]):
            raise InputError(
                f"seeds is {list(seeds)}, and {folder} has no finished search with {', '.join(map(str, missing))}; "
                f"choose from {', '.join(map(str, there))}"
            )
    policy = "trivialaugment" if given.policy is None else given.policy
    genotype = None if given.genotype is None else found_in(given.genotype, FOUND_CELLS)
    return found_in(policy, FOUND), genotype, seeds
