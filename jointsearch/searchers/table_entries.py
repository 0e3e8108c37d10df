"""The entries that a table measures: single ops at single magnitudes, and the identity."""

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from jointsearch.searchers.spaces import Measured
from search_spaces.augment.table import OPS
from search_spaces.controls import MAX_SEQUENCES
from search_spaces.errors import InputError
from search_spaces.policy import OpChoice, Policy, SubPolicy


def table_entries(space: Measured, levels: int | None) -> Policy:
    """A policy of one op each, the identity first: at so many levels, or as they stand in the start."""
    start = space.policy()
    likely = [sub_policy for sub_policy in start.sub_policies if sub_policy.weight]
    used = tuple(dict.fromkeys(choice.op for sub_policy in likely for choice in sub_policy.ops))
    if levels is None and (start.stages > 1 or not used):
        held = "a sub-policy of several ops" if used else "no op to measure"
        raise InputError(
            f"policy_space.start={space.start} has {held}, and searcher.levels=null measures the start's own "
            "sub-policies, of one op each; use searcher.levels=30 or policy_space.start=trivialaugment"
        )
    if not (ops := space.ops or used):
        raise InputError(f"policy_space.start={space.start} names no op to measure; name some in policy_space.ops")
    return Policy(own_entries(start) if levels is None else even_entries(ops, levels), name="table")


def table_rows(entries: Policy, by_op: bool) -> tuple[Tensor, ...]:
    """The places of the entries that are measured together: each by itself, or all of an op."""
    groups: defaultdict[object, list[int]] = defaultdict(list)
    for place, entry in enumerate(entries.sub_policies):
        groups[entry.ops[0].op if by_op and entry.ops else place].append(place)
    return tuple(torch.tensor(members) for members in groups.values())


def check_size(entries: Policy, stages: int, levels: int | None) -> None:
    """Refuse a finished policy that no file could hold."""
    count = len(entries.sub_policies)
    if count**stages > MAX_SEQUENCES:
        raise InputError(
            f"searcher.levels={levels or 'null'} makes {count} entries, and with searcher.stages={stages} a policy "
            f"file of {count**stages:,} sub-policies; at most {MAX_SEQUENCES:,} are allowed, lower searcher.levels or "
            "name fewer policy_space.ops"
        )


def own_entries(start: Policy) -> tuple[SubPolicy, ...]:
    """The sub-policies of a start, those that do nothing as one, the identity."""
    idle = math.fsum(one.weight for one in start.sub_policies if not one.ops)
    return SubPolicy((), idle), *(one for one in start.sub_policies if one.ops and one.weight)


def even_entries(ops: Sequence[str], levels: int) -> tuple[SubPolicy, ...]:
    """The ops at so many levels; as in TrivialAugment, every op is as likely as the identity."""
    entries = [SubPolicy()]
    for op in ops:
        if OPS[op].has_magnitude:
            choices = (OpChoice(op, 1.0, level / levels) for level in range(1, levels + 1))
            entries += [SubPolicy((choice,), 1 / levels) for choice in choices]
        else:
            entries.append(SubPolicy((OpChoice(op),)))
    return tuple(entries)
