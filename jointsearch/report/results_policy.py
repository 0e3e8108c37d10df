"""Policies in a results file: a control by its name, any other in a short form that gives back every bit of it."""

import itertools
import re
from collections.abc import Sequence
from typing import Any

from search_spaces.controls import is_control, named_policy
from search_spaces.errors import InputError
from search_spaces.levels import LEVELS
from search_spaces.plain_json import check_keys, located, shown
from search_spaces.policy import OpChoice, Policy, SubPolicy
from search_spaces.schedule import PolicySchedule

LEVEL_RANGE = re.compile(r"(\d{1,4})\.\.(\d{1,4})/(\d{1,4})")
RANGE = re.compile(r"(\d[\d.e-]*)\.\.\.(\d[\d.e-]*)")
SUB_POLICY_FORM = '[weight, [op, probability, magnitude], ...], as in [0.5, ["Rotate", 1.0, 0.3]]'


def pack_policy(policy: Policy | PolicySchedule) -> Any:
    """Plain data of a policy: the name of a control, {"name", "sub_policies"}, or {"name", "spans"} of a schedule.

    Neighbors that differ only in the magnitude of their one op share a row: its magnitude is a list, or "0..30/30" for
    the levels 0/30, 1/30, ... 30/30. A range of magnitudes is "0.0...1.0". Several draws stand beside sub_policies.
    """
    if isinstance(policy, PolicySchedule):
        return {"name": policy.name, "spans": [[start, pack_policy(span)] for start, span in policy.spans]}
    if is_control(policy.name) and named_policy(policy.name) == policy:
        return policy.name
    rows = [_pack_group(list(group)) for _, group in itertools.groupby(_numbered(policy), key=lambda pair: pair[0])]
    return {"name": policy.name, "sub_policies": rows} | ({"draws": policy.draws} if policy.draws > 1 else {})


def unpack_policy(data: Any, where: str) -> Policy | PolicySchedule:
    """The policy that `pack_policy` wrote; InputError starts with `where`."""
    if isinstance(data, str):
        return located(where, named_policy, data)
    check_keys(data, {"name", "sub_policies", "spans", "draws"}, where)
    name = data.get("name", "policy")
    if "spans" in data:
        spans = _rows(data["spans"], f"{where}: spans")
        if not all(len(span) == 2 for span in spans):
            raise InputError(f"{where}: spans are {shown(spans)}; write [first epoch, policy] for each")
        unpacked = tuple((start, unpack_policy(policy, f"{where}: span {start}")) for start, policy in spans)
        return located(where, PolicySchedule, unpacked, name)
    rows = enumerate(_rows(data.get("sub_policies"), f"{where}: sub_policies"))
    sub_policies = [one for n, row in rows for one in _unpack_row(row, f"{where}: sub_policies[{n}]")]
    return located(where, Policy, tuple(sub_policies), name, data.get("draws", 1))


def _numbered(policy: Policy) -> list[tuple[Any, SubPolicy]]:
    # Only neighbors of one op with an amount may share a row; any other sub-policy has a key of its own.
    keyed: list[tuple[Any, SubPolicy]] = []
    for n, sub_policy in enumerate(policy.sub_policies):
        first = sub_policy.ops[0] if len(sub_policy.ops) == 1 else None
        alone = first is None or not isinstance(first.magnitude, float | int)
        keyed.append((n if first is None or alone else (first.op, first.probability, sub_policy.weight), sub_policy))
    return keyed


def _pack_group(group: Sequence[tuple[Any, SubPolicy]]) -> list[Any]:
    first = group[0][1]
    row: list[Any] = [first.weight]
    for choice in first.ops:
        entry: list[Any] = [choice.op, choice.probability]
        if choice.magnitude is not None:
            magnitudes = [sub_policy.ops[0].magnitudes[0] for _, sub_policy in group]
            entry.append(_pack_magnitudes(magnitudes) if len(group) > 1 else _pack_magnitude(choice))
        row.append(entry)
    return row


def _pack_magnitude(choice: OpChoice) -> Any:
    return "...".join(map(repr, choice.magnitude)) if isinstance(choice.magnitude, tuple) else choice.magnitude


def _pack_magnitudes(magnitudes: list[float]) -> str | list[float]:
    start = round(magnitudes[0] * LEVELS)
    levels = [(start + place) / LEVELS for place in range(len(magnitudes))]
    return f"{start}..{start + len(levels) - 1}/{LEVELS}" if magnitudes == levels else magnitudes


def _unpack_row(row: Any, where: str) -> list[SubPolicy]:
    if not isinstance(row, list) or not row or not all(isinstance(entry, list) for entry in row[1:]):
        raise InputError(f"{where} is {shown(row)}; write {SUB_POLICY_FORM}")
    if any(len(entry) not in (2, 3) for entry in row[1:]):
        raise InputError(f"{where} is {shown(row)}; give each op its probability, and its magnitude if it has one")
    several = _magnitudes(row[1][2], where) if len(row) == 2 and len(row[1]) == 3 else None
    if several is None:
        choices = tuple(located(where, OpChoice, *entry[:2], *map(_magnitude, entry[2:])) for entry in row[1:])
        return [located(where, SubPolicy, choices, row[0])]
    op, probability, _ = row[1]
    each = [located(where, OpChoice, op, probability, magnitude) for magnitude in several]
    return [located(where, SubPolicy, (choice,), row[0]) for choice in each]


def _magnitude(value: Any) -> Any:
    found = RANGE.fullmatch(value) if isinstance(value, str) else None
    return (float(found[1]), float(found[2])) if found else value


def _magnitudes(value: Any, where: str) -> list[Any] | None:
    # None: a single magnitude.
    if isinstance(value, str) and not RANGE.fullmatch(value):
        found = LEVEL_RANGE.fullmatch(value)
        first, last, levels = (int(digits) for digits in found.groups()) if found else (1, 0, 1)
        if first > last or last > levels:
            raise InputError(
                f'{where} has the magnitude {shown(value)}; write a number, a list, or levels as "0..30/30"'
            )
        return [level / levels for level in range(first, last + 1)]
    return value if isinstance(value, list) else None


def _rows(value: Any, where: str) -> list[list[Any]]:
    if not isinstance(value, list) or not all(isinstance(row, list) for row in value):
        raise InputError(f"{where} is {shown(value)}; wanted a list of lists")
    return value
