"""Train a detector on backbones that were trained before, and on fresh ones, side by side."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from jointsearch.data.datasets import Shapes
from jointsearch.data.object_datasets import LoadedObjects, ObjectSettings
from jointsearch.device import choose_device
from jointsearch.loops.detect import NO_POLICY, SCRATCH, Backbone, DetectionGrid, typical_side
from jointsearch.loops.grid import check_grid, run_grid
from jointsearch.loops.recipe import Recipe
from jointsearch.networks.create import check_network_name
from jointsearch.networks.detectors import DetectorSettings, RetinaNet
from jointsearch.networks.trained import NETWORK_FILE, WEIGHTS_FILE
from jointsearch.report.comparison import write_summary
from jointsearch.report.page import write_report
from jointsearch.report.page_html import duration
from jointsearch.runs.run_folder import check_writable
from jointsearch.settings import bounded, choice, group, setting
from jointsearch.study import LONG_SECONDS
from search_spaces.errors import InputError
from search_spaces.plain_json import shown_path

SUBJECT = None
MOST_USED = ("run", "detector", "dataset", "backbones", "policies", "recipe", "seeds", "device", "recipe.epochs")
NETWORK = "wide_resnet16_1"
DEFAULT_SEEDS = (0, 1, 2)
DETECTION = "detection"  # within the run whose networks become backbones, the trainings of detectors
LARGEST_SMALL_SIDE = 400  # pixels up to which a fresh backbone is built as for small images


@dataclass(frozen=True)
class Settings:
    """What is trained."""

    run: str | None = setting(
        None, help="run folder whose trained networks become backbones, or the folder of these trainings"
    )
    backbones: tuple[str, ...] | None = setting(
        None, help="rows of run, folders of trainings, or scratch; null: all of run, and scratch"
    )
    policies: tuple[str, ...] = setting((NO_POLICY,), help="on the detector's own images, one row for each")
    detector: DetectorSettings = group(RetinaNet, help="retinanet, faster_rcnn, mask_rcnn")
    dataset: ObjectSettings = group(Shapes, help="the images with their objects")
    network: str | None = setting(None, help="of scratch, where run names no networks; null: wide_resnet16_1")
    recipe: Recipe = group(Recipe, help="how every row is trained")
    seeds: tuple[int, ...] | None = setting(None, help="null: those of the networks in run, or [0,1,2]")
    plugins: tuple[str, ...] = setting((), help="Python files that add ops or networks of your own")
    device: str = setting("auto", help="auto, cpu, cuda, cuda:1, ...")
    threads: int | None = bounded(None, 1, 1024, help="CPU threads; null leaves torch's choice")
    wandb: str = choice("disabled", "disabled", "offline", "online", help="also write to Weights & Biases")
    save_seconds: float = bounded(60.0, 0.0, 86_400.0, help="seconds between two checkpoints, at most")


def main(given: Settings) -> None:
    """Train what the configuration asks for, and print it side by side."""
    if given.threads:
        torch.set_num_threads(given.threads)
    folder = output_folder(given)
    check_writable(folder)
    rows = trained_rows(given.run)
    seeds = given.seeds or (tuple(sorted({seed for row in rows.values() for seed in row})) or DEFAULT_SEEDS)
    loaded = LoadedObjects(given.dataset, given.detector.masks)
    side = typical_side(loaded.splits(seeds[0]).train)
    backbones = {name: of_seeds for name, of_seeds in named_backbones(given, rows, seeds, side)}
    grid = DetectionGrid(backbones, given.dataset, given.detector, given.recipe, given.policies, seeds)
    options: dict[str, Any] = {
        "device": choose_device(given.device),
        "wandb_mode": given.wandb,
        "save_seconds": given.save_seconds,
        "show_progress": True,
    }
    seconds = check_grid(grid, folder, loaded, **options)
    print(f"Training {given.detector.name} on {', '.join(grid.policies)} x {len(seeds)} seeds in {folder}")
    print(f"To continue after an interruption: the same command with run={given.run or folder}")
    if loaded.found.warnings:
        print(f"Odd in the annotations: {len(loaded.found.warnings)}, as {loaded.found.warnings[0]}")
    long = "; recipe.epochs= makes it shorter" if seconds > LONG_SECONDS else ""
    print(f"Expected: {duration(seconds)}, by the second step of the network{long}", flush=True)
    run_grid(grid, folder, loaded=loaded, **options)
    print(f"\n{write_summary(folder)}\nWritten to {folder}/summary.md; each training has its own folder beside it.")
    print(f"On one page, with pictures: {write_report(folder, loaded)}")


def output_folder(given: Settings) -> Path:
    """Where the trainings go: within the run whose networks are used, or to the run itself."""
    if given.run is None:
        return Path(f"runs/detect/{datetime.now():%Y-%m-%d/%H-%M-%S}")
    if trained_rows(given.run):
        return Path(given.run) / DETECTION / f"{given.detector.name}_{given.dataset.name}"
    return Path(given.run)


def trained_rows(run: str | None) -> dict[str, dict[int, Path]]:
    """The finished classifiers of a run folder, by row and seed."""
    if run is None:
        return {}
    return rows_of(Path(run).glob(f"*/seed*/{WEIGHTS_FILE}"))


def rows_of(files: Any) -> dict[str, dict[int, Path]]:
    """Folders of classifiers by row and seed."""
    found: dict[str, dict[int, Path]] = {}
    for file in sorted(files):
        seed = file.parent.name.removeprefix("seed")
        told = (
            (file.parent / NETWORK_FILE).read_text(errors="replace") if (file.parent / NETWORK_FILE).is_file() else ""
        )
        if seed.isdecimal() and '"detector"' not in told:
            found.setdefault(file.parents[1].name, {})[int(seed)] = file.parent
    return found


def named_backbones(
    given: Settings, rows: dict[str, dict[int, Path]], seeds: tuple[int, ...], side: int
) -> list[tuple[str, dict[int, Backbone]]]:
    """The backbones of every row by seed."""
    names = given.backbones or (*rows, SCRATCH)
    found: dict[str, dict[int, Backbone]] = {}
    for name in names:
        if name == SCRATCH:
            continue
        row = rows.get(name) or rows_of(Path(name).glob(f"seed*/{WEIGHTS_FILE}")).get(Path(name).name)
        if not row:
            there = f"; {given.run} has {', '.join(rows)}" if rows else "; run=FOLDER names a run with trained networks"
            raise InputError(f"backbones names {shown_path(Path(name))}, which holds no trained network{there}")
        missing = [str(seed) for seed in seeds if seed not in row]
        if missing:
            raise InputError(
                f"{shown_path(Path(name))} has no network of seed {', '.join(missing)}; set seeds to those it has"
            )
        found[Path(name).name] = {seed: Backbone.of(row[seed]) for seed in seeds}
    if SCRATCH in names:
        found[SCRATCH] = {seed: fresh_backbone(given, found, seed, side) for seed in seeds}
    return list(found.items())


def fresh_backbone(given: Settings, others: dict[str, dict[int, Backbone]], seed: int, side: int) -> Backbone:
    """The network of the other rows with fresh weights, or the one that is named."""
    first = next(iter(others.values()), None)
    if first is not None and given.network is None:
        return first[seed].fresh()
    name = given.network or NETWORK
    check_network_name(name)
    size = 32 if side <= LARGEST_SMALL_SIDE else side
    told = {"network": name, "options": {}, "classes": ["any"], "channels": 3, "image_size": size}
    return Backbone(told)
