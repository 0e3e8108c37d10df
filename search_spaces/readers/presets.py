"""Converts the AutoAugment policies of torchvision, timm (transforms or lists) and kornia (lists).

This module imports none of these libraries. It reads names, probabilities and levels; the tables below define them.
"""

import math
from collections.abc import Callable
from typing import Any

from search_spaces.errors import InputError
from search_spaces.plain_json import shown
from search_spaces.readers.conversion import (
    NEAREST_PIXEL,
    Dialect,
    Differences,
    ImportedPolicy,
    TheirOp,
    policy_from_rows,
)

SWITCHES = ("AutoContrast", "Invert", "Equalize")
ENHANCE = ("Contrast", "Color", "Brightness", "Sharpness")

WHOLE_PIXELS = "the original shifts by whole pixels"
BICUBIC = "the original is bilinear or bicubic, at random or as set, here bilinear"
FILLED = "the original fills the outside with another color, here black"
TO_GRAY = "the original only removes color, here the other direction adds color"
INTERVAL = "the original draws from an interval, here its middle"
ABOUT_CENTER = "the original shears about the centre, here about the top left corner"
ADDS = "the original adds to every pixel, here it multiplies; equal on middle gray"
MULTIPLIES = "the original multiplies every pixel, which is Brightness here"
IN_HSV = "the original changes the saturation in HSV, here it blends with gray"
WHOLE_BATCH = "the original draws one sub-policy for a whole batch, here one for every image"
VARIES = "the original draws its level around this one"


def _linear(op: str, strongest: float, mirrored: bool = True, *differs: str) -> TheirOp:
    return TheirOp(op, lambda level: strongest * level / 9, mirrored, differs)


def torchvision_dialect(nearest: bool = True, filled: bool = False) -> Dialect:
    """torchvision's conventions. `nearest`: warps take the nearest pixel; `filled`: the outside is not black."""
    border = (FILLED,) * filled
    warped = (*((NEAREST_PIXEL,) * nearest), *border)
    return Dialect(
        {
            "ShearX": _linear("ShearX", 0.3, True, *warped),
            "ShearY": _linear("ShearY", 0.3, True, *warped),
            "TranslateX": _linear("TranslateX", 150 / 331, True, WHOLE_PIXELS, *border),
            "TranslateY": _linear("TranslateY", 150 / 331, True, WHOLE_PIXELS, *border),
            "Rotate": _linear("Rotate", 30, True, *warped),
            **{name: TheirOp(name, lambda level: 1 + 0.1 * level, True) for name in ENHANCE},
            "Solarize": TheirOp("Solarize", lambda level: 1 - level / 9),
            "Posterize": TheirOp("Posterize", lambda level: 8 - round(level * 4 / 9)),
            **{name: TheirOp(name) for name in SWITCHES},
        },
        top=9,
        whole=True,
    )


def _tenths(op: str, strongest: float) -> TheirOp:
    return TheirOp(op, lambda level: strongest * level / 10, True)


TORCHVISION = torchvision_dialect()
TIMM = Dialect(
    {
        "ShearX": _tenths("ShearX", 0.3),
        "ShearY": _tenths("ShearY", 0.3),
        "TranslateXRel": _tenths("TranslateX", 0.45),
        "TranslateYRel": _tenths("TranslateY", 0.45),
        "Rotate": _tenths("Rotate", 30),
        **{name: TheirOp(name, lambda level: 0.1 + 0.18 * level) for name in ENHANCE},
        **{f"{name}Increasing": TheirOp(name, lambda level: 1 + 0.09 * level, True) for name in ENHANCE},
        "Desaturate": TheirOp("Color", lambda level: 0.5 - 0.05 * level, True, (TO_GRAY,)),
        "Solarize": TheirOp("Solarize", lambda level: int(25.6 * level) / 255),
        "SolarizeIncreasing": TheirOp("Solarize", lambda level: (256 - int(25.6 * level)) / 255),
        "Posterize": TheirOp("Posterize", lambda level: int(0.4 * level)),
        "PosterizeIncreasing": TheirOp("Posterize", lambda level: 4 - int(0.4 * level)),
        "PosterizeOriginal": TheirOp("Posterize", lambda level: 4 + int(0.4 * level)),
        **{name: TheirOp(name) for name in SWITCHES},
    },
    top=10,
)
TRANSLATE_SHARE = 0.45
BILINEAR = 2  # as PIL, and so timm, numbers it


def _bins(op: str, low: float, high: float, *differs: str, to_ours: Callable[[float], float] = lambda x: x) -> TheirOp:
    # Bin k is the interval between k and k + 1 tenths of the range; a level is drawn from it uniformly.
    return TheirOp(op, lambda k: to_ours(low + (high - low) * (k + 0.5) / 10), differs=(INTERVAL, *differs))


def _tangent(value: float) -> float:
    return math.tan(math.radians(180 * value))  # kornia's shears are .3 times 180 degrees at most


KORNIA = Dialect(
    {
        "shear_x": _bins("ShearX", -0.3, 0.3, ABOUT_CENTER, to_ours=_tangent),
        "shear_y": _bins("ShearY", -0.3, 0.3, ABOUT_CENTER, to_ours=_tangent),
        "translate_x": _bins("TranslateX", -0.5, 0.5),
        "translate_y": _bins("TranslateY", -0.5, 0.5),
        "rotate": _bins("Rotate", -30, 30),
        "solarize": _bins("Solarize", 0, 1),
        "posterize": _bins("Posterize", 4, 8, to_ours=round),
        "contrast": _bins("Brightness", 0.1, 1.9, MULTIPLIES),
        "brightness": _bins("Brightness", 0.1, 1.9, ADDS, to_ours=lambda factor: 1 + 2 * (factor - 1)),
        "color": _bins("Color", 0.1, 1.9, IN_HSV),
        "sharpness": _bins("Sharpness", 0.1, 1.9),
        "auto_contrast": TheirOp("AutoContrast"),
        "invert": TheirOp("Invert"),
        "equalize": TheirOp("Equalize"),
    },
    top=9,
    whole=True,
)


def policy_from_torchvision(source: Any, name: str = "torchvision", skip_unknown: bool = False) -> ImportedPolicy:
    """Convert torchvision's AutoAugment transform, v1 or v2, or its list of sub-policies."""
    rows = getattr(source, "policies", getattr(source, "_policies", source))
    how = getattr(source, "interpolation", "nearest")
    nearest = getattr(how, "value", how) in ("nearest", 0)
    dialect = torchvision_dialect(nearest, _is_filled(getattr(source, "fill", None)))
    return policy_from_rows(rows, dialect, name, skip_unknown)


def policy_from_kornia(rows: Any, name: str = "kornia", skip_unknown: bool = False) -> ImportedPolicy:
    """Convert a list that kornia's AutoAugment takes, or one of kornia's own (`imagenet_policy`, ...)."""
    imported = policy_from_rows(rows, KORNIA, name, skip_unknown)
    return ImportedPolicy(imported.policy, (WHOLE_BATCH, *imported.approximations))


def policy_from_timm(source: Any, name: str = "timm", skip_unknown: bool = False) -> ImportedPolicy:
    """Convert timm's AutoAugment transform, or its lists of AugmentOp."""
    source = getattr(source, "policy", source)
    if not isinstance(source, list | tuple) or not all(isinstance(ops, list | tuple) for ops in source):
        raise InputError(f"timm policy {name} is {shown(source)}; give an AutoAugment, or lists of AugmentOp")
    differences = Differences()
    rows = []
    for n, ops in enumerate(source):
        rows.append(
            [_timm_entry(op, f"timm policy {name}: sub-policy {n}, op {k}", differences) for k, op in enumerate(ops)]
        )
    imported = policy_from_rows(rows, TIMM, name, skip_unknown)
    return ImportedPolicy(imported.policy, (*differences.lines(), *imported.approximations))


def _is_filled(color: Any) -> bool:
    return any(color) if isinstance(color, list | tuple) else bool(color)


def _timm_entry(op: Any, where: str, differences: Differences) -> tuple[str, float, float]:
    fields: list[Any] = [getattr(op, field, None) for field in ("name", "prob", "magnitude", "hparams")]
    if None in fields:
        raise InputError(f"{where} is {shown(op)}; wanted an AugmentOp with name, prob, magnitude and hparams")
    name, probability, magnitude, hparams = fields
    share = hparams.get("translate_pct", TRANSLATE_SHARE)
    if name.startswith("Translate") and share != TRANSLATE_SHARE:
        raise InputError(f"{where}: translate_pct is {shown(share)}; only {TRANSLATE_SHARE}, timm's own, can be read")
    if getattr(op, "magnitude_std", 0):
        differences.add(VARIES, name)
    how = getattr(op, "kwargs", {})
    if name.startswith(("Shear", "Translate", "Rotate")) and magnitude:
        if how.get("resample") != BILINEAR:
            differences.add(BICUBIC, name)
        if _is_filled(how.get("fillcolor", True)):
            differences.add(FILLED, name)
    return name, probability, min(magnitude, getattr(op, "magnitude_max", None) or 10)
