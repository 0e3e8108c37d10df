"""Reads DeepAA's policies: an .npz of six layers, each with the probabilities of 139 (op, magnitude) entries.

Every image draws one entry of each layer, one layer after another. Entry k is the op op_names[ops[k]] at level
mags[k] / (l_mags - 1), in Fast AutoAugment's ranges.
"""

import itertools
import math
from dataclasses import replace
from pathlib import Path

from search_spaces.errors import InputError
from search_spaces.plain_json import shown, shown_path
from search_spaces.policy import MAX_STAGES, OpChoice
from search_spaces.readers.conversion import (
    IN_PIXELS,
    LEFT_OUT,
    PIXELS_OF_A_SIDE,
    Differences,
    ImportedPolicy,
    TheirOp,
    Unknown,
    nearest_choice,
)
from search_spaces.readers.layered import Branch, Stage, listed
from search_spaces.readers.npz import Array, read_npz
from search_spaces.readers.tuples import TUPLES

FIELDS = ("policy_probs", "l_mags", "ops", "mags", "op_names")
MAX_ENTRIES = 1_000

WIDER = "the original is up to a pixel wider"
GRAY = "the original fills with gray, here black"
# All other ops are Fast AutoAugment's.
CUTOUTS = {
    "Cutout": replace(TUPLES.ops["Cutout"], differs=(WIDER,)),
    "RandCutout": TheirOp("Cutout", lambda _: 16 / 32, differs=(WIDER, IN_PIXELS)),
    "RandCutout60": TheirOp("Cutout", lambda _: 60 / 224, differs=(WIDER,)),
}
OPS_WITH_LEVELS = {**TUPLES.ops, **CUTOUTS}
PADDING = 4  # pixels on every side, in RandCrop


def _crop() -> Stage:
    """Shifts of -4 to 4 pixels along both sides, all equally likely. The ops here also draw the direction."""
    shares = {0: 1 / 9, **{pixels: 2 / 9 for pixels in range(1, PADDING + 1)}}
    axes = [TheirOp(op, lambda pixels: pixels / PIXELS_OF_A_SIDE) for op in ("TranslateX", "TranslateY")]
    options = []
    for by in itertools.product(shares, repeat=2):
        ops = tuple(nearest_choice(axis, 1.0, pixels)[0] for axis, pixels in zip(axes, by, strict=True) if pixels)
        options.append((shares[by[0]] * shares[by[1]], ops))
    return tuple(options)


# Ops that are random themselves: their options with probabilities.
DRAWING: dict[str, Stage] = {
    "Identity": ((1.0, ()),),
    "RandFlip": ((1.0, (OpChoice("HorizontalFlip", 0.5),)),),
    "RandCrop": _crop(),
}


def read_deepaa(path: Path | str, skip_unknown: bool = False) -> ImportedPolicy:
    """Read an .npz file. Most of its policies have too many sequences to list, so they are sampled."""
    where = f"DeepAA policy file {shown_path(path)}"
    arrays = read_npz(path, FIELDS, "DeepAA policy")
    layers = _layers(arrays["policy_probs"], where)
    entries = _entries(arrays, len(layers[0]), where)
    differences, unknown = Differences(per_image=True), Unknown({**OPS_WITH_LEVELS, **DRAWING}, skip_unknown)
    stages = []
    for layer in layers:
        stage: list[tuple[float, tuple[OpChoice, ...]]] = []
        for probability, (op, level) in zip(layer, entries, strict=True):
            if probability and op not in OPS_WITH_LEVELS and op not in DRAWING:
                unknown.add(op, f"{where}: op_names")
            options, differs = _options(op, level)
            stage.extend((probability * share, ops) for share, ops in options)
            for difference in differs:
                differences.add(difference, op, probability)
        stages.append(tuple(stage))
    unknown.refuse()
    policy, sampled = listed([Branch(1.0, tuple(stages))], Path(path).stem)
    return ImportedPolicy(policy, (*sampled, *differences.lines()))


def _options(op: str, level: float) -> tuple[Stage, list[str]]:
    if op in DRAWING:
        return DRAWING[op], [IN_PIXELS, GRAY] if op == "RandCrop" else []
    if op not in OPS_WITH_LEVELS:
        return DRAWING["Identity"], [LEFT_OUT]
    choice, differs = nearest_choice(OPS_WITH_LEVELS[op], 1.0, level)
    return ((1.0, (choice,)),), differs


def _layers(array: Array, where: str) -> list[tuple[float, ...]]:
    """The probabilities of every layer."""
    shape = array.shape
    if len(shape) != 2 or not 1 <= shape[0] <= MAX_STAGES or not 1 <= shape[1] <= MAX_ENTRIES:
        raise InputError(
            f"{where}: policy_probs has the shape {shape}; wanted (layers, entries), at most {MAX_STAGES} layers and "
            f"{MAX_ENTRIES:,} entries, check the file"
        )
    layers = [array.values[n * shape[1] : (n + 1) * shape[1]] for n in range(shape[0])]
    for n, layer in enumerate(layers):
        # The probabilities are a softmax in float32.
        if not all(_is_number(share) and share >= 0 for share in layer) or not math.isclose(
            sum(layer), 1, abs_tol=0.01
        ):
            raise InputError(f"{where}: policy_probs[{n}] is no distribution; wanted shares that add up to 1")
    return layers


def _entries(arrays: dict[str, Array], count: int, where: str) -> list[tuple[str, float]]:
    """The op and the level from 0 to 1 of every entry."""
    names = [str(name).partition(":")[0] for name in arrays["op_names"].values]
    levels = arrays["l_mags"].values
    if len(levels) != 1 or not isinstance(levels[0], int) or not 2 <= levels[0] <= MAX_ENTRIES:
        raise InputError(f"{where}: l_mags is {shown(levels)}; wanted the number of levels, 2 or more")
    for field, limit in (("ops", len(names)), ("mags", levels[0])):
        values = arrays[field].values
        if len(values) != count or not all(isinstance(value, int) and 0 <= value < limit for value in values):
            raise InputError(
                f"{where}: {field} has {len(values)} values, {shown(values)}; wanted {count} whole numbers, one for "
                f"each entry of policy_probs, from 0 to {limit - 1}"
            )
    chosen = zip(arrays["ops"].values, arrays["mags"].values, strict=True)
    return [(names[op], level / (levels[0] - 1)) for op, level in chosen]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
