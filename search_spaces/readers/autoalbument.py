"""Reads AutoAlbument's policies: Albumentations pipelines as JSON, a OneOf over many sub-policies.

A sub-policy is a sequence of stages. A stage is a OneOf: it applies one of its ops, in proportion to their `p`. Each op
has a fixed strength: its two limits are equal. Handwritten pipelines with different limits are refused, and so are the
field names of Albumentations 2.
"""

from collections.abc import Callable
from typing import Any

from search_spaces.errors import InputError
from search_spaces.plain_json import shown
from search_spaces.policy import OpChoice
from search_spaces.readers.conversion import (
    LEFT_OUT,
    PIXELS_OF_A_SIDE,
    Differences,
    ImportedPolicy,
    TheirOp,
    Unknown,
    nearest_choice,
)
from search_spaces.readers.layered import Branch, listed

# 40 sub-policies of 4 stages of 15 ops, AutoAlbument's default, take 0.6 MB.
MAX_BYTES = 4_000_000
MAX_DEPTH = 20
MAX_BRANCHES = 1_000

ADDS = "the original's brightness adds to every pixel, here it multiplies; equal on middle gray"
FROM_BLACK = "the original's contrast multiplies every pixel, which is Brightness here"
REFLECTS = "the original mirrors the image at its border, here black"
HOLES = "the original cuts black holes inside the image, here one gray square of their area, clipped at the border"
# The file does not hold the size of the images of the search.
HOLES_IN_PIXELS = (
    f"the original counts in pixels, here in shares of the side, assumed to have {PIXELS_OF_A_SIDE} pixels"
)
PIPELINE = "belongs to the data pipeline, left out"

SEQUENCES = ("Compose", "Sequential")
OUTSIDE = ("Normalize", "ToTensor", "ToTensorV2")

# (op here, its amount, its differences from the original)
Step = tuple[str, float, tuple[str, ...]]


def policy_from_albumentations(data: Any, where: str, name: str, skip_unknown: bool = False) -> ImportedPolicy:
    """Convert a parsed pipeline. A pipeline with too many sequences is sampled."""
    check_object(data, where)
    reader = _Reader(where, skip_unknown)
    branches = reader.branches(data.get("transform"), f"{where}: transform", 1.0)
    reader.unknown.refuse()
    policy, sampled = listed(branches, name)
    return ImportedPolicy(policy, (*sampled, *reader.differences.lines()))


class _Reader:
    """Walks the tree of a pipeline, and counts how often per image each difference applies."""

    def __init__(self, where: str, skip_unknown: bool) -> None:
        self.differences = Differences(per_image=True)
        self.unknown = Unknown(dict.fromkeys((*LEAVES, *SEQUENCES, "OneOf")), skip_unknown)

    def branches(self, node: Any, place: str, reach: float, forced: bool = False) -> list[Branch]:
        """All branches of a node. `forced`: the node acts with certainty, because its OneOf has chosen it."""
        kind, probability = _kind(node, place)
        probability = 1.0 if forced or node.get("always_apply") is True else probability
        if kind not in (*SEQUENCES, "OneOf"):
            ops = self._leaf(node, kind, place, reach * probability)
            return [Branch(1.0, (((probability, ops), (1 - probability, ())),))]
        children = node.get("transforms")
        if not isinstance(children, list) or not children:
            raise InputError(f"{place}.transforms is {shown(children)}; wanted a list of transforms")
        places = [f"{place}.transforms[{n}]" for n in range(len(children))]
        inner = self._one_of if kind == "OneOf" else self._sequence
        found = inner(children, places, reach * probability)
        if len(found) > MAX_BRANCHES:
            raise _too_many(place)
        if probability < 1:
            found = [Branch(probability * branch.weight, branch.stages) for branch in found]
            found.append(Branch(1 - probability, ()))
        return found

    def _sequence(self, children: list[Any], places: list[str], reach: float) -> list[Branch]:
        found = [Branch(1.0, ())]
        for child, place in zip(children, places, strict=True):
            after = self.branches(child, place, reach)
            if len(found) * len(after) > MAX_BRANCHES:
                raise _too_many(place.rpartition(".transforms[")[0])
            found = [Branch(a.weight * b.weight, a.stages + b.stages) for a in found for b in after]
        return found

    def _one_of(self, children: list[Any], places: list[str], reach: float) -> list[Branch]:
        shares = [_kind(child, place)[1] for child, place in zip(children, places, strict=True)]
        total = sum(shares)
        if not total:
            raise InputError(f"{places[0]}: p of all transforms of this OneOf is 0; give one of them a p above 0")
        shares = [share / total for share in shares]
        inner = [
            self.branches(child, place, reach * share, forced=True)
            for child, place, share in zip(children, places, shares, strict=True)
        ]
        if all(_is_leaf(child) for child in children):
            options = [(share, branch.stages[0][0][1]) for share, (branch,) in zip(shares, inner, strict=True)]
            return [Branch(1.0, (tuple(options),))]
        return [
            Branch(share * branch.weight, branch.stages)
            for share, found in zip(shares, inner, strict=True)
            for branch in found
        ]

    def _leaf(self, node: dict[str, Any], kind: str, place: str, times: float) -> tuple[OpChoice, ...]:
        if kind in OUTSIDE:
            self.differences.add(PIPELINE, kind, times)
            return ()
        if kind not in LEAVES:
            return self._left_out(kind, place, times)
        if kind in NOTHING_LIKE_IT and any(_fixed(node, field, place) for field in NOTHING_LIKE_IT[kind]):
            self._left_out(f"{kind} with {NOTHING_LIKE_IT[kind][0]}", place, times)
        choices = []
        for op, amount, differs in LEAVES[kind](node, place):
            choice, more = nearest_choice(TheirOp(op, differs=differs), 1.0, amount)
            if choice.magnitude != 0:
                choices.append(choice)
            for difference in more:
                self.differences.add(difference, kind, times)
        return tuple(choices)

    def _left_out(self, op: str, place: str, times: float) -> tuple[()]:
        if times:
            self.unknown.add(op, place)
        self.differences.add(LEFT_OUT, op, times)
        return ()


def check_object(data: Any, where: str) -> None:
    """Refuse anything but a JSON object."""
    if not isinstance(data, dict):
        raise InputError(f"{where} is {shown(data)}; wanted an object, as albumentations.save writes it")


def _kind(node: Any, place: str) -> tuple[str, float]:
    check_object(node, place)
    name, probability = node.get("__class_fullname__"), node.get("p", 1.0)
    if not isinstance(name, str):
        raise InputError(f"{place}.__class_fullname__ is {shown(name)}; wanted the name of a transform")
    if isinstance(probability, bool) or not isinstance(probability, int | float) or not 0 <= probability <= 1:
        raise InputError(f"{place}.p is {shown(probability)}; wanted a number from 0 to 1")
    return name.rpartition(".")[2], probability


def _too_many(place: str) -> InputError:
    return InputError(f"{place} has more than {MAX_BRANCHES:,} possible paths; use a OneOf with fewer sequences")


def _is_leaf(node: dict[str, Any]) -> bool:
    return "transforms" not in node


def _fixed(node: dict[str, Any], field: str, place: str) -> float:
    """The number in a field that holds one number or two equal ones."""
    if field not in node:
        raise InputError(
            f"{place} has no {field}, which AutoAlbument writes and Albumentations 2 has renamed; "
            "convert the file that AutoAlbument wrote"
        )
    value = node[field]
    both = value if isinstance(value, list) else [value, value]
    numbers = all(isinstance(entry, int | float) and not isinstance(entry, bool) for entry in both)
    if len(both) != 2 or not numbers or both[0] != both[1]:
        raise InputError(f"{place}.{field} is {shown(value)}; wanted two equal numbers, as AutoAlbument writes them")
    return both[0]


def _brightness_contrast(node: dict[str, Any], place: str) -> list[Step]:
    contrast, brightness = (_fixed(node, f"{name}_limit", place) for name in ("contrast", "brightness"))
    return [("Brightness", 1 + contrast, (FROM_BLACK,)), ("Brightness", 1 + 2 * brightness, (ADDS,))]


def _solarize(node: dict[str, Any], place: str) -> list[Step]:
    threshold = _fixed(node, "threshold", place)
    # Pipelines for float images store the threshold as a share of white, those for 8-bit images as a whole number.
    return [("Solarize", threshold if isinstance(threshold, float) and threshold <= 1 else threshold / 255, ())]


def _shift_scale_rotate(node: dict[str, Any], place: str) -> list[Step]:
    fields = {"Rotate": "rotate_limit", "TranslateX": "shift_limit_x", "TranslateY": "shift_limit_y"}
    return [(op, _fixed(node, field, place), (REFLECTS,)) for op, field in fields.items()]


def _coarse_dropout(node: dict[str, Any], place: str) -> list[Step]:
    names = ("holes", "height", "width")
    holes, height, width = (_fixed(node, f"max_{name}", place) for name in names)
    for name, most in zip(names, (holes, height, width), strict=True):
        least = node.get(f"min_{name}")
        if least is not None and least != most:
            raise InputError(f"{place}.min_{name} is {shown(least)}; wanted {most:g}, the value of max_{name}")
    side = max(holes * height * width, 0) ** 0.5
    return [("Cutout", side / PIXELS_OF_A_SIDE, (HOLES, HOLES_IN_PIXELS))]


LEAVES: dict[str, Callable[[dict[str, Any], str], list[Step]]] = {
    "RandomBrightnessContrast": _brightness_contrast,
    "Solarize": _solarize,
    "HorizontalFlip": lambda node, place: [("HorizontalFlip", 0.0, ())],
    "ShiftScaleRotate": _shift_scale_rotate,
    "CoarseDropout": _coarse_dropout,
    "RGBShift": lambda node, place: [],
    "NoOp": lambda node, place: [],
}
# Fields without a counterpart here: a value other than 0 is refused, or left out with skip_unknown.
NOTHING_LIKE_IT = {
    "ShiftScaleRotate": ("scale_limit",),
    "RGBShift": ("r_shift_limit", "g_shift_limit", "b_shift_limit"),
}
