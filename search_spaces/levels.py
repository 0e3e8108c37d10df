"""Ranges of magnitudes as levels, for what takes single numbers, and levels that fill a range as that range."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby, product

from search_spaces.policy import OpChoice, Policy, SubPolicy

LEVELS = 30  # steps from nothing to the strongest, as in RandAugment and TrivialAugment: 31 levels
MOST_ROWS = 64  # that a sub-policy with several ranges becomes


def with_levels(policy: Policy) -> Policy:
    """The policy with every range as its equally likely levels: 31 of a single range, fewer where there are several."""
    if not policy.tables.has_ranges:
        return policy
    rows = [row for sub_policy in policy.sub_policies for row in _levelled(sub_policy)]
    return replace(policy, sub_policies=tuple(rows))


def levels_of(low: float, high: float, count: int) -> list[float]:
    """Evenly spread numbers, both ends among them."""
    return [low + (high - low) * (place / (count - 1)) for place in range(count)]


def levels_each(ranges: int) -> int:
    """How many levels each of so many ranges gets, so that their combinations stay few."""
    return LEVELS + 1 if ranges < 2 else max(2, math.floor(MOST_ROWS ** (1 / ranges) + 1e-9))


def _levelled(sub_policy: SubPolicy) -> Iterator[SubPolicy]:
    ranges = sum(isinstance(choice.magnitude, tuple) for choice in sub_policy.ops)
    count = levels_each(ranges)
    choices = [_choices(choice, count) for choice in sub_policy.ops]
    for ops in product(*choices):
        # Each level of a single range weighs what the range did, and a row without a range 31 times as much.
        yield SubPolicy(ops, sub_policy.weight * (LEVELS + 1) / count**ranges)


def _choices(choice: OpChoice, count: int) -> list[OpChoice]:
    if not isinstance(choice.magnitude, tuple):
        return [choice]
    return [replace(choice, magnitude=level) for level in levels_of(*choice.magnitude, count)]


def with_ranges(policy: Policy) -> Policy:
    """The policy with all 31 levels of an op, where they stand together and are equally likely, as one range.

    What `with_levels` made of single ranges becomes what it was.
    """
    groups = [list(group) for _, group in groupby(policy.sub_policies, key=_of_level)]
    if not any(map(_is_whole, groups)):
        return policy
    rows: list[SubPolicy] = []
    for found in groups:
        # A range weighs what one of its levels did, and the others a 31st: their shares stay.
        others = [replace(row, weight=row.weight / (LEVELS + 1)) for row in found]
        rows += [_as_range(found)] if _is_whole(found) else others
    return replace(policy, sub_policies=tuple(rows))


def _of_level(row: SubPolicy) -> tuple[object, ...]:
    """What the levels of an op have in common."""
    if len(row.ops) != 1 or not isinstance(row.ops[0].magnitude, float | int):
        return (id(row),)
    return row.ops[0].op, row.ops[0].probability, row.weight


def _is_whole(rows: Sequence[SubPolicy]) -> bool:
    return len(rows) == LEVELS + 1 and [row.ops[0].magnitude for row in rows] == levels_of(0.0, 1.0, LEVELS + 1)


def _as_range(rows: Sequence[SubPolicy]) -> SubPolicy:
    return SubPolicy((replace(rows[0].ops[0], magnitude=(0.0, 1.0)),), rows[0].weight)
