"""Backbones of detectors: the networks of trainings, and the same with fresh weights."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from jointsearch.data.standard import Standard
from jointsearch.networks.create import architecture
from jointsearch.networks.trained import WEIGHTS_FILE, build_network, load_network, read_description
from search_spaces.errors import InputError
from search_spaces.plain_json import shown_path

SCRATCH = "scratch"  # the row of the backbone with fresh weights
NETWORK = "wide_resnet16_1"  # where none is named and none was trained
FORM = ("network", "architecture", "model_args", "mean", "std")  # of a description, what makes the backbone


@dataclass(frozen=True)
class Backbone:
    """The network that becomes a backbone: how it is built, and the folder of its weights, if it has any."""

    told: dict[str, Any]  # as model.json has it
    weights: Path | None = None

    @classmethod
    def of(cls, folder: Path | str) -> "Backbone":
        """The network of a finished training."""
        folder = Path(folder)
        told = read_description(folder)
        if "detector" in told:
            raise InputError(f"{shown_path(folder)} holds a detector; give the training of a classifier")
        if told["channels"] != 3:
            raise InputError(
                f"the network in {shown_path(folder)} takes images of {told['channels']} channel(s), and a detector "
                "sees 3; train the backbone on color images"
            )
        return cls({name: told[name] for name in FORM if name in told} | {"classes": told["classes"]}, folder)

    @classmethod
    def fresh(cls, network: str = NETWORK, image_size: int = 32) -> "Backbone":
        """A network by its name, built as for images of `image_size`, with fresh weights."""
        found = architecture(network, 1, 3, image_size)
        return cls({"network": network, "architecture": found.name, "model_args": found.args, "classes": ["any"]})

    def refreshed(self) -> "Backbone":
        """The same network with fresh weights."""
        return Backbone(self.told)

    def build(self) -> nn.Module:
        """The network; draws the same from the global generator with weights and without."""
        if self.weights is None:
            return build_network(self.told, any_size=True)
        return load_network(self.weights, any_size=True)

    def identity(self) -> str:
        """What tells it from others, in words."""
        form = {key: value for key, value in sorted(self.told.items()) if key != "classes"}
        form["model_args"] = {key: value for key, value in form["model_args"].items() if key != "num_classes"}
        weights = "fresh"
        if self.weights is not None:
            weights = f"weights {_digest((self.weights / WEIGHTS_FILE).read_bytes())}"
        return f"{self.told['network']} of form {_digest(json.dumps(form).encode())}, {weights}"

    def standard(self, standard: Standard) -> Standard:
        """The augmentation of a data set, with the normalization that the backbone was trained with, if it was."""
        if "mean" not in self.told:
            return standard
        return replace(standard, mean=tuple(self.told["mean"]), std=tuple(self.told["std"]))


Backbones = dict[str, dict[int, Backbone]]  # by name and seed


def trained_rows(run: Path | str) -> dict[str, dict[int, Path]]:
    """The folders of the finished classifiers of a run, by row and seed."""
    return _rows(Path(run).glob(f"*/seed*/{WEIGHTS_FILE}"))


def backbones_of(
    run: Path | str | None, names: Sequence[str] | None = None, seeds: Sequence[int] | None = None
) -> Backbones:
    """Rows of a run, folders of trainings, or "scratch"; without names all rows of the run, and scratch.

    Every row has all seeds, those of the run where none are named.
    """
    rows = {} if run is None else trained_rows(run)
    wanted_rows = (*rows, SCRATCH) if names is None else names
    if set(wanted_rows) == {SCRATCH} and rows:
        return {SCRATCH: backbones_of(run, [next(iter(rows)), SCRATCH], seeds)[SCRATCH]}
    found: Backbones = {}
    for name in wanted_rows:
        if name == SCRATCH:
            continue
        short = Path(name).name
        row = rows.get(name) or _rows(Path(name).glob(f"seed*/{WEIGHTS_FILE}")).get(short)
        if short in found:
            raise InputError(f"backbones names two rows {short}; rename the folder of one")
        if not row:
            there = f"; {run} has {', '.join(rows)}" if rows else "; run=FOLDER names a run with trained networks"
            raise InputError(f"backbones names {shown_path(Path(name))}, which holds no trained network{there}")
        wanted = sorted(row) if seeds is None else seeds
        if missing := [str(seed) for seed in wanted if seed not in row]:
            told = f"{shown_path(Path(name))} has no network of seed {', '.join(missing)}"
            raise InputError(f"{told}; set seeds to those it has")
        found[short] = {seed: Backbone.of(row[seed]) for seed in wanted}
    first = next(iter(found.values()), None)
    if first is not None and SCRATCH in wanted_rows:
        found[SCRATCH] = {seed: backbone.refreshed() for seed, backbone in first.items()}
    return found


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _rows(files: Iterable[Path]) -> dict[str, dict[int, Path]]:
    found: dict[str, dict[int, Path]] = {}
    for file in sorted(files):
        seed = file.parent.name.removeprefix("seed")
        if seed.isdecimal() and "detector" not in read_description(file.parent):
            found.setdefault(file.parents[1].name, {})[int(seed)] = file.parent
    return found
