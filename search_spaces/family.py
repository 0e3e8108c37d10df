"""A family of policies around TrivialAugment and RandAugment: each is a point, a level of every factor.

policy_of(Point(draws=2, magnitude="high", geometry=2))  # two draws an image, strong, geometry twice as likely

TrivialAugment, with any number of draws, is one of its points, and so is RandAugment of n ops at level 15.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

from search_spaces.augment.table import OPS
from search_spaces.policy import Magnitude, OpChoice, Policy, SubPolicy

# The magnitude of every op of a policy: a range that each image draws from, or one number.
MAGNITUDES: dict[str, Magnitude] = {
    "full": (0.0, 1.0),
    "high": (0.5, 1.0),
    "m15": 15 / 30,
}
GROUPS = {
    "geometry": ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"),
    "tone": ("AutoContrast", "Equalize", "Solarize", "Posterize"),
    "blend": ("Contrast", "Color", "Brightness", "Sharpness"),
    "extra": ("Invert", "Cutout", "SamplePairing"),
}


@dataclass(frozen=True)
class Point:
    """A level of every factor. Weights are those of each op of a group, and of the draw that changes nothing.

    With `flip`, every draw mirrors an image half of the time, whatever else it does; so do any number of draws.
    """

    draws: int = 1
    magnitude: str = "full"
    geometry: int = 1
    tone: int = 1
    blend: int = 1
    extra: int = 0
    untouched: int = 1
    flip: int = 0

    @property
    def name(self) -> str:
        """In one word, as in draws2-high-geometry2-untouched4: what it does otherwise than TrivialAugment."""
        plain, parts = Point(), []
        for item in fields(self):
            value = getattr(self, item.name)
            if value != getattr(plain, item.name):
                parts.append(str(value) if item.name == "magnitude" else f"{item.name}{value}")
        return "-".join(parts) or "trivialaugment"


Levels = Mapping[str, tuple[int | str, ...]]  # of every factor
LEVELS_OF: Levels = {
    "draws": (1, 2, 3),
    "magnitude": ("full", "high", "m15"),
    "geometry": (1, 2),
    "tone": (0, 1),
    "blend": (0, 1),
    "extra": (0, 1),
    "untouched": (1, 5),
    "flip": (0, 1),
}


def points(levels_of: Levels = LEVELS_OF) -> Iterator[Point]:
    """Every point, or those of some levels."""
    for levels in itertools.product(*levels_of.values()):
        yield Point(**dict(zip(levels_of, levels, strict=True)))  # type: ignore[arg-type]


def policy_of(point: Point) -> Policy:
    """The policy of a point."""
    magnitude = MAGNITUDES[point.magnitude]
    first = (OpChoice("HorizontalFlip", 0.5),) * point.flip
    rows = [SubPolicy(first, float(point.untouched))] if point.untouched else []
    for group, ops in GROUPS.items():
        if weight := getattr(point, group):
            rows += [
                SubPolicy((*first, OpChoice(op, 1.0, magnitude if OPS[op].has_magnitude else None)), float(weight))
                for op in ops
            ]
    return Policy(tuple(rows), name=point.name, draws=point.draws)
