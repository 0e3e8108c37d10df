"""Code that all exporters share: the amounts that an op can take, and the list of approximations."""

import math
from collections import Counter
from collections.abc import Container
from dataclasses import dataclass
from typing import Generic, TypeVar

from search_spaces.augment.quantized import TIE
from search_spaces.augment.table import OPS
from search_spaces.errors import InputError
from search_spaces.levels import LEVELS, with_levels
from search_spaces.policy import OpChoice, Policy, SubPolicy

T = TypeVar("T")

LEVELLED = f"a range of magnitudes is one of {LEVELS + 1} levels, or of fewer where a sub-policy has several ranges"
LEFT_OUT = "left out, because it mixes in another image of a batch"
OF_USER = "left out, because the other library has no such op"


@dataclass(frozen=True)
class Exported(Generic[T]):
    """A policy in another library's form, and one line for each kind of difference between them."""

    value: T
    approximations: tuple[str, ...]


class Differences:
    """Counts the differences of the other library, and lists each kind once."""

    def __init__(self) -> None:
        self._found: dict[str, Counter[str]] = {}

    def note(self, op: str, difference: str) -> None:
        """Count a use of an op with this difference."""
        self._found.setdefault(difference, Counter())[op] += 1

    def lines(self) -> tuple[str, ...]:
        """One line for each kind of difference, with its ops and how often each is used."""
        return tuple(
            f"{', '.join(f'{op} x{count}' for op, count in sorted(found.items()))}: {difference}"
            for difference, found in self._found.items()
        )


def drawable(
    policy: Policy, differences: Differences, leave_out: bool, known: Container[str] | None = None
) -> tuple[SubPolicy, ...]:
    """The sub-policies of positive weight, each with its ops that can act, need one image only and are known there.

    `known` are the ops that the other library has; None: any op can be wrapped. A range of magnitudes becomes levels.
    """
    for choice in (choice for row in policy.sub_policies if row.weight > 0 for choice in row.ops):
        if isinstance(choice.magnitude, tuple):
            differences.note(choice.op, LEVELLED)

    def fits(op: str) -> bool:
        return OPS[op].uses != "partner" and (known is None or op in known)

    found = []
    for sub_policy in (one for one in with_levels(policy).sub_policies if one.weight > 0):
        ops = [choice for choice in sub_policy.ops if choice.probability > 0 and not _is_idle(choice)]
        for choice in ops:
            if not fits(choice.op):
                _leave_out(choice.op, differences, leave_out)
        kept = tuple(choice for choice in ops if fits(choice.op))
        found.append(SubPolicy(kept, sub_policy.weight))
    return tuple(found)


def amounts(choice: OpChoice) -> tuple[float, ...]:
    """The equally likely amounts of an op, positive direction first; empty for an op without an amount."""
    op = OPS[choice.op]
    if not isinstance(choice.magnitude, float | int) or op.identity is None or op.strongest is None:
        return ()
    step = choice.magnitude * (op.strongest - op.identity)
    steps = (step, -step) if op.signed else (step,)
    # Nine digits keep an amount in a file readable and change no pixel.
    return tuple(round(op.identity + directed, 9) for directed in steps)


def posterize_bits(amount: float) -> int:
    """The bits that Posterize keeps."""
    return round(amount)


def solarize_level(amount: float) -> int:
    """The lowest of the levels 0 to 255 that Solarize inverts; 256 for none."""
    return math.ceil((amount - TIE) * 255)


def _is_idle(choice: OpChoice) -> bool:
    # Between magnitude 0 and the first bit or level, these two leave 8-bit images as they are; libraries that take a
    # whole number of bits or levels have no value for "none".
    if choice.op == "Posterize":
        return posterize_bits(amounts(choice)[0]) >= 8
    if choice.op == "Solarize":
        return solarize_level(amounts(choice)[0]) > 255
    return choice.magnitude is not None and set(amounts(choice)) == {OPS[choice.op].identity}


def _leave_out(op: str, differences: Differences, leave_out: bool) -> None:
    mixes = OPS[op].uses == "partner"
    if not leave_out:
        reason = (
            "mixes in another image of a batch, but exported policies see one image at a time"
            if mixes
            else "has no counterpart in the other library"
        )
        raise InputError(f"{op} {reason}; give leave_out=true to export without it, or use search_spaces.apply_policy")
    differences.note(op, LEFT_OUT if mixes else OF_USER)
