"""Exports a policy as an Albumentations pipeline, for uint8 images (H, W, C), or as its JSON."""

import importlib
import importlib.util
import json
import math
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

from jointsearch.export.common import Differences, Exported, amounts, drawable, posterize_bits, solarize_level
from search_spaces.augment.erase import FILL
from search_spaces.augment.table import OPS
from search_spaces.errors import InputError
from search_spaces.policy import OpChoice, Policy, SubPolicy

QUIET = "NO_ALBUMENTATIONS_UPDATE"

# Measured by tests/test_export.py and, for the blur, on scikit-learn's two photos at 32x32.
ROUNDED = "Albumentations rounds to 8 bits after each op, jointsearch after the last one; up to 1 level"
WHOLE_PIXELS = "Albumentations moves by whole pixels, rounded towards zero; up to 1 pixel less"
CORNER = (
    "Albumentations shears about the centre; the export moves the image back by half the shear of its own side, in "
    "whole pixels. On images that are not square, half the difference of the sides times the shear is missing"
)
STRETCH = "Albumentations ignores white pixels when it measures the range; up to 11 levels"
HISTOGRAM = (
    "Albumentations counts a level's own pixels as below it; 2 levels on average, 14 where few levels are left, as "
    "after Posterize"
)
BLUR = "below factor 1 a Gaussian blur with the same weight of the middle pixel; about 1 level on average on photos"
OUTERMOST = "Albumentations changes the outermost pixels too"
HOLE = (
    "Albumentations cuts a hole of whole pixels inside the image, its sides shares of height and width, in RGB images "
    "only; jointsearch covers a square that is clipped at the border and fades out within a pixel, its side a share of "
    "the shorter side"
)
SEEDED = (
    "all ops: after Compose(seed=n) or set_random_seed(n) all transforms draw the same numbers, so the ops of a "
    "sub-policy act together; set_random_state(numpy.random.default_rng(n), random.Random(n)) keeps them independent"
)
DIFFERENCES: dict[str, tuple[str, ...]] = {
    "ShearX": (CORNER,),
    "ShearY": (CORNER,),
    "TranslateX": (WHOLE_PIXELS,),
    "TranslateY": (WHOLE_PIXELS,),
    "AutoContrast": (STRETCH,),
    "Equalize": (HISTOGRAM,),
    "Sharpness": (BLUR, OUTERMOST),
    "Cutout": (HOLE,),
}


def albumentations_policy(policy: Policy, leave_out: bool = False) -> Exported[Any]:
    """An albumentations.Compose that draws one sub-policy; `leave_out` drops ops that need a batch."""
    library = _albumentations()
    differences = Differences()
    rows = drawable(policy, differences, leave_out, THEIR_OPS)
    total = math.fsum(row.weight for row in rows)
    branches = [_branch(library, row, row.weight / total, differences) for row in rows]
    lines = (*differences.lines(), SEEDED) if any(row.ops for row in rows) else ()
    return Exported(library.Compose([library.OneOf(branches, p=1.0) for _ in range(policy.draws)]), lines)


def albumentations_json(policy: Policy, leave_out: bool = False) -> Exported[str]:
    """The pipeline as the text of a file for albumentations.load(path)."""
    pipeline = albumentations_policy(policy, leave_out)
    text = json.dumps(_albumentations().to_dict(pipeline.value), allow_nan=False) + "\n"
    return Exported(text, pipeline.approximations)


def _albumentations() -> ModuleType:
    if importlib.util.find_spec("albumentations") is None:
        raise InputError("albumentations is not installed; install it with: pip install 'jointsearch[export]'")
    # On import Albumentations asks a server for its newest version, and warns without a network.
    before = os.environ.get(QUIET)
    os.environ[QUIET] = "1"
    try:
        return importlib.import_module("albumentations")
    finally:
        if before is None:
            del os.environ[QUIET]
        else:
            os.environ[QUIET] = before


def _branch(library: ModuleType, row: SubPolicy, share: float, differences: Differences) -> Any:
    # OneOf uses the p of its branches as weights and applies the chosen branch with certainty, so the share of a
    # sub-policy does not change the probabilities of its ops.
    stages = [_stage(library, choice, differences) for choice in row.ops]
    return library.Sequential(stages or [library.NoOp(p=1.0)], p=share)


def _stage(library: ModuleType, choice: OpChoice, differences: Differences) -> Any:
    for difference in DIFFERENCES.get(choice.op, ()):
        differences.note(choice.op, difference)
    if OPS[choice.op].gradient == "pathwise" and choice.op != "Cutout":
        differences.note(choice.op, ROUNDED)
    directions = amounts(choice) or (0.0,)
    if len(directions) == 1:
        return _transform(library, choice.op, directions[0], choice.probability)
    either = [_transform(library, choice.op, amount, 1 / len(directions)) for amount in directions]
    return library.OneOf(either, p=choice.probability)


def _transform(library: ModuleType, op: str, amount: float, probability: float) -> Any:
    name, arguments = THEIR_OPS[op](amount)
    return getattr(library, name)(**arguments, p=probability)


Arguments = tuple[str, dict[str, Any]]


def _affine(axis: str, shear: float, translate: float) -> Arguments:
    other = "y" if axis == "x" else "x"
    degrees = math.degrees(math.atan(shear))
    return "Affine", {
        "shear": {axis: (degrees, degrees), other: (0.0, 0.0)},
        "translate_percent": {axis: (translate, translate), other: (0.0, 0.0)},
    }


def _jitter(name: str, factor: float) -> Arguments:
    still = {"brightness": (1.0, 1.0), "contrast": (1.0, 1.0), "saturation": (1.0, 1.0), "hue": (0.0, 0.0)}
    return "ColorJitter", still | {name: (factor, factor)}


def _sharpness(factor: float) -> Arguments:
    # PIL blends with a mean that weighs every neighbour by 1/13: at factor f a neighbour has weight (1 - f)/13 and the
    # middle 1 - 8 (1 - f)/13. Sharpen has this kernel at alpha = (f - 1)/13, which must not be negative.
    neighbour = (1 - factor) / 13
    if factor >= 1:
        return "Sharpen", {"alpha": (-neighbour, -neighbour), "lightness": (1.0, 1.0), "method": "kernel"}
    middle = math.sqrt(1 - 8 * neighbour)  # of one axis
    sigma = math.sqrt(-0.5 / math.log((1 - middle) / 2 / middle))
    return "GaussianBlur", {"blur_limit": (3, 3), "sigma_limit": (sigma, sigma)}


def _hole(side: float) -> Arguments:
    fill = tuple(float(round(255 * value)) for value in FILL)
    ranges = dict.fromkeys(("hole_height_range", "hole_width_range"), (side, side))
    return "CoarseDropout", {"num_holes_range": (1, 1), **ranges, "fill": fill}


def _threshold(amount: float) -> float:
    return max(solarize_level(amount) - 0.5, 0.0) / 255


# An amount of ours -> a transform of Albumentations and its arguments.
THEIR_OPS: dict[str, Callable[[float], Arguments]] = {
    "ShearX": lambda amount: _affine("x", amount, -amount / 2),
    "ShearY": lambda amount: _affine("y", amount, -amount / 2),
    "TranslateX": lambda amount: _affine("x", 0.0, amount),
    "TranslateY": lambda amount: _affine("y", 0.0, amount),
    "Rotate": lambda amount: ("Rotate", {"limit": (amount, amount)}),
    "HorizontalFlip": lambda amount: ("HorizontalFlip", {}),
    "AutoContrast": lambda amount: ("AutoContrast", {"method": "pil"}),
    "Invert": lambda amount: ("InvertImg", {}),
    "Equalize": lambda amount: ("Equalize", {"mode": "pil"}),
    "Solarize": lambda amount: ("Solarize", {"threshold_range": (_threshold(amount),) * 2}),
    "Posterize": lambda amount: ("Posterize", {"num_bits": (posterize_bits(amount),) * 2}),
    "Contrast": lambda amount: _jitter("contrast", amount),
    "Color": lambda amount: _jitter("saturation", amount),
    "Brightness": lambda amount: _jitter("brightness", amount),
    "Sharpness": _sharpness,
    "Cutout": _hole,
}
