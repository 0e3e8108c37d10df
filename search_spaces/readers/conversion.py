"""Converts ops of published policies to the nearest ops here, and lists the differences."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces.augment.table import OPS
from search_spaces.errors import InputError, nearest
from search_spaces.plain_json import shown
from search_spaces.policy import OpChoice, Policy, SubPolicy

FORM = "[[(op, probability, level), ...], ...]"
# Ops in pixels (TranslateXAbs, CutoutAbs, RandCrop) were written for CIFAR.
PIXELS_OF_A_SIDE = 32

NEAREST_PIXEL = "the original takes the nearest pixel, here bilinear"
ONE_DIRECTION = "the original has one fixed direction, here it is drawn per image"
CLIPPED = "the original is stronger than the range here, clipped to magnitude 1"
IN_PIXELS = (
    f"the original counts in pixels, here in shares of the side; equal on {PIXELS_OF_A_SIDE}x{PIXELS_OF_A_SIDE} images"
)
LEFT_OUT = "has no counterpart here, left out"


@dataclass(frozen=True)
class ImportedPolicy:
    """A policy converted from a published one, and one line for each kind of difference between them."""

    policy: Policy
    approximations: tuple[str, ...]


@dataclass(frozen=True)
class TheirOp:
    """An op of a published policy: the matching op here, and how its level converts to that op's unit."""

    op: str  # the op here
    amount: Callable[[float], float] = lambda level: level
    mirrored: bool = False  # whether the published code also draws the direction
    differs: tuple[str, ...] = ()  # not listed at the level that changes nothing


@dataclass(frozen=True)
class Dialect:
    """The conventions of published tables: the ops by their names, and the levels from 0 to `top`."""

    ops: Mapping[str, TheirOp]
    top: float
    whole: bool = False  # whether levels are whole numbers
    remedy: str = ""


class Differences:
    """Counts each kind of difference for each op: entries of a table, or times per image."""

    def __init__(self, per_image: bool = False) -> None:
        self._found: dict[str, dict[str, float]] = {}
        self._per_image = per_image

    def add(self, difference: str, op: str, times: float = 1) -> None:
        """Count a difference of an op; `times` 0 is ignored."""
        if times:
            ops = self._found.setdefault(difference, {})
            ops[op] = ops.get(op, 0.0) + times

    def lines(self) -> tuple[str, ...]:
        """One line for each kind of difference, in order of appearance."""
        return tuple(f"{', '.join(map(self._times, found.items()))}: {kind}" for kind, found in self._found.items())

    def _times(self, entry: tuple[str, float]) -> str:
        op, times = entry
        return f"{op} {times:.2g} times per image" if self._per_image else f"{op} x{times:.0f}"


def nearest_choice(theirs: TheirOp, probability: float, level: float) -> tuple[OpChoice, list[str]]:
    """The nearest op here to a published op at a level, and the differences between them."""
    ours = OPS[theirs.op]
    if ours.identity is None or ours.strongest is None:
        return OpChoice(ours.name, probability), []
    share = (theirs.amount(level) - ours.identity) / (ours.strongest - ours.identity)
    magnitude = round(abs(share) if ours.signed else max(share, 0.0), 6)
    differs = list(theirs.differs) if magnitude else []
    if ours.signed and not theirs.mirrored and magnitude:
        differs.append(ONE_DIRECTION)
    if magnitude > 1:
        differs.append(CLIPPED)
    return OpChoice(ours.name, probability, min(magnitude, 1.0)), differs


def policy_from_rows(rows: Any, dialect: Dialect, name: str, skip_unknown: bool = False) -> ImportedPolicy:
    """Convert a table of (op, probability, level) rows; all sub-policies are equally likely."""
    if not isinstance(rows, list | tuple) or not rows:
        raise InputError(f"table {name} is {shown(rows)}; wanted {FORM}")
    differences, unknown = Differences(), Unknown(dialect.ops, skip_unknown)
    sub_policies = []
    for n, row in enumerate(rows):
        if not isinstance(row, list | tuple):
            raise InputError(f"table {name}: sub-policy {n} is {shown(row)}; wanted a list, as in {FORM}")
        choices = []
        for k, entry in enumerate(row):
            where = f"table {name}: sub-policy {n}, op {k}"
            op, probability, level = _checked(entry, dialect, where)
            if op not in dialect.ops:
                unknown.add(op, where)
                differences.add(LEFT_OUT, op)
                continue
            choice, differs = nearest_choice(dialect.ops[op], probability, level)
            choices.append(choice)
            for difference in differs:
                differences.add(difference, op)
        sub_policies.append(SubPolicy(tuple(choices)))
    unknown.refuse()
    return ImportedPolicy(Policy(tuple(sub_policies), name), differences.lines())


class Unknown:
    """Collects the ops without a counterpart, so that one error names all of them."""

    def __init__(self, known: Mapping[str, Any], skipped: bool) -> None:
        self._known, self._skipped = known, skipped
        self._places: dict[str, str] = {}

    def add(self, op: str, where: str) -> None:
        """Add an unknown op; the error shows the place of its first use."""
        self._places.setdefault(op, where)

    def refuse(self) -> None:
        """Raise one error about all unknown ops, unless they may be skipped."""
        if self._skipped or not self._places:
            return
        (first, where), *others = self._places.items()
        more = f" (neither have {', '.join(shown(op) for op, _ in others)})" if others else ""
        raise InputError(
            f"{where}: op is {shown(first)}, which has no counterpart here{more}; {nearest(first, self._known)} "
            "(skip_unknown=true leaves such ops out and lists them)"
        )


def _checked(entry: Any, dialect: Dialect, where: str) -> tuple[str, float, float]:
    if not (isinstance(entry, list | tuple) and len(entry) == 3 and isinstance(entry[0], str)):
        raise InputError(f"{where} is {shown(entry)}; wanted (op, probability, level)")
    name, probability, level = entry
    if not _is_between(probability, 1):
        raise InputError(f"{where}: probability of {name} is {shown(probability)}; wanted a number from 0 to 1")
    if level is None and (name not in dialect.ops or not OPS[dialect.ops[name].op].has_magnitude):
        return name, probability, 0.0
    if not _is_between(level, dialect.top) or (dialect.whole and not isinstance(level, int)):
        kind = "a whole number" if dialect.whole else "a number"
        raise InputError(
            f"{where}: level of {name} is {shown(level)}; wanted {kind} from 0 to {dialect.top}{dialect.remedy}"
        )
    return name, probability, level


def _is_between(value: Any, top: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= top
