"""Train a detector on backbones that were trained before, and on fresh ones, side by side."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from jointsearch.commands.folders import new_folder
from jointsearch.commands.names import as_started
from jointsearch.commands.typed import DETECTION, keep_words
from jointsearch.data.datasets import Shapes
from jointsearch.data.object_datasets import ObjectSettings
from jointsearch.data.object_load import LoadedObjects
from jointsearch.device import choose_device
from jointsearch.distributed import first_before_others, from_first
from jointsearch.loops.backbones import NETWORK, SCRATCH, Backbone, Backbones, backbones_of, trained_rows
from jointsearch.loops.detect import NO_POLICY, DetectionGrid, run_detection, typical_side
from jointsearch.loops.grid import plain_dataset
from jointsearch.loops.recipe import Recipe
from jointsearch.networks.detectors import DetectorSettings, RetinaNet
from jointsearch.report.comparison import write_summary
from jointsearch.report.on_board import put_on_board
from jointsearch.report.page import write_report
from jointsearch.report.page_html import duration
from jointsearch.runs.boards import Board, Disabled, WandbSettings
from jointsearch.runs.run_folder import check_writable
from jointsearch.settings import as_plain, bounded, group, setting
from jointsearch.study import LONG_SECONDS
from search_spaces.errors import InputError

SUBJECT = None
MOST_USED = ("run", "detector", "dataset", "backbones", "policies", "recipe", "seeds", "device", "recipe.epochs")
DEFAULT_SEEDS = (0, 1, 2)
LARGEST_SMALL_SIDE = 400  # pixels up to which a fresh backbone is built as for small images


@dataclass(frozen=True)
class Settings:
    """What is trained."""

    run: str | None = setting(
        None, help="run folder whose trained networks become backbones, or the folder of these trainings"
    )
    name: str | None = setting(None, help="folder within run/detection; null: detector_dataset")
    backbones: tuple[str, ...] | None = setting(
        None, help="rows of run, folders of trainings, or scratch; null: all of run, and scratch"
    )
    policies: tuple[str, ...] = setting((NO_POLICY,), help="on the detector's own images, one row for each")
    detector: DetectorSettings = group(RetinaNet, help="retinanet, faster_rcnn, mask_rcnn, d_fine")
    dataset: ObjectSettings = group(Shapes, help="the images with their objects")
    network: str | None = setting(None, help="of scratch, where run names no networks; null: wide_resnet16_1")
    recipe: Recipe = group(Recipe, help="how every row is trained")
    seeds: tuple[int, ...] | None = setting(None, help="null: those of the networks in run, or [0,1,2]")
    plugins: tuple[str, ...] = setting((), help="Python files that add ops or networks of your own")
    device: str = setting("auto", help="auto, cpu, cuda, cuda:1, ...")
    threads: int | None = bounded(None, 1, 1024, help="CPU threads; null leaves torch's choice")
    wandb: WandbSettings = group(Disabled, help="disabled, offline, online: also send figures to Weights & Biases")
    tensorboard: bool = setting(False, help="also write event files for TensorBoard into the run folder")
    save_seconds: float = bounded(60.0, 0.0, 86_400.0, help="seconds between two checkpoints, at most")


def main(given: Settings) -> None:
    """Train what the configuration asks for, and print it side by side."""
    if given.threads:
        torch.set_num_threads(given.threads)
    folder = from_first(lambda: output_folder(given))
    check_writable(folder)
    loaded = first_before_others(lambda: LoadedObjects(given.dataset, given.detector.masks))
    grid = grid_of(given, loaded)

    def announce(seconds: float) -> None:
        if given.run is not None and not trained_rows(given.run):
            print(f"{given.run} holds no trained network; the detector is trained from scratch")
        print(f"Training {given.detector.name} on {', '.join(grid.policies)} x {len(grid.seeds)} seeds in {folder}")
        named = f" name={folder.name}" if folder.parent.name == DETECTION else ""
        again = f"python scripts/detect.py run={given.run or folder}{named}"
        print(as_started(f"To continue after an interruption: {again}"))
        if odd := loaded.found.warnings:
            print(f"Odd in the annotations: {len(odd)}, as {odd[0]}; scripts/check_data.py lists them")
        long = "; recipe.epochs= makes it shorter" if seconds > LONG_SECONDS else ""
        print(f"Expected: {duration(seconds)}, by the second step of the network{long}", flush=True)
        from_first(lambda: keep_words(folder))

    options: dict[str, Any] = {"save_seconds": given.save_seconds, "show_progress": True}
    config = as_plain(given) | {"dataset": plain_dataset(given.dataset)}
    with Board.of(given.wandb, given.tensorboard, folder, config) as board:
        run_detection(grid, folder, announce, loaded, device=choose_device(given.device), board=board, **options)
        summary = from_first(lambda: write_summary(folder))
        print(f"\n{summary}\nWritten to {folder}/summary.md; each training has its own folder beside it.")
        print(f"On one page, with pictures: {from_first(lambda: write_report(folder, loaded))}")
        put_on_board(board, folder, loaded)


def output_folder(given: Settings) -> Path:
    """Where the trainings go: within the run whose networks are used, or to the run itself."""
    if given.run is None:
        return Path(new_folder("detect"))
    if trained_rows(given.run):
        return Path(given.run) / DETECTION / (given.name or f"{given.detector.name}_{given.dataset.name}")
    return Path(given.run)


def grid_of(given: Settings, loaded: LoadedObjects) -> DetectionGrid:
    """The trainings that are asked for."""
    trained = given.run is not None and bool(trained_rows(given.run))
    only_scratch = not trained and given.backbones in (None, (SCRATCH,))
    backbones: Backbones = {} if only_scratch else backbones_of(given.run, given.backbones, given.seeds)
    if only_scratch or (given.network is not None and SCRATCH in backbones):
        seeds = given.seeds or next(map(tuple, backbones.values()), DEFAULT_SEEDS)
        side = typical_side(loaded.splits(seeds[0]).train)
        size = 32 if side <= LARGEST_SMALL_SIDE else side
        backbones[SCRATCH] = dict.fromkeys(seeds, Backbone.fresh(given.network or NETWORK, size))
    elif given.network is not None:
        raise InputError(f"network={given.network} is for the row scratch, which is not among backbones; leave it out")
    return DetectionGrid(backbones, given.dataset, given.detector, given.recipe, given.policies)
