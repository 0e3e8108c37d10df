"""A finished augmentation policy: a frozen, checked value that is stored as plain JSON."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from search_spaces.augment.table import OPS
from search_spaces.errors import InputError, nearest
from search_spaces.plain_json import (
    check_header,
    check_keys,
    check_name,
    located,
    parse_json,
    read_json,
    shown,
    shown_path,
)

FORMAT = "jointsearch-policy"
VERSIONS = (1, 2)  # 2 has magnitudes drawn from a range, and several draws for an image
MAX_STAGES = 16  # of an image, over all its draws
Magnitude = float | tuple[float, float]
CONVERTED = "Policies published elsewhere are converted by python scripts/show_policy.py policy=FILE save=policy.json"


@dataclass(frozen=True)
class OpChoice:
    """One op of a sub-policy with its probability and magnitude. Ops without an amount have magnitude None.

    A magnitude is a number, or a range (low, high) from which every image draws its own.
    """

    op: str
    probability: float = 1.0
    magnitude: Magnitude | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.op, str) or self.op not in OPS:
            raise InputError(f"op is {shown(self.op)}, which is not a known op; {nearest(self.op, OPS)}")
        _check_share("probability", self.probability)
        if OPS[self.op].has_magnitude:
            _check_magnitude(self.magnitude)
        elif self.magnitude is not None:
            raise InputError(f"{self.op} has no amount but magnitude is {shown(self.magnitude)}; leave magnitude out")

    @property
    def magnitudes(self) -> tuple[float, float]:
        """The least and the greatest magnitude; 0 where there is none."""
        return self.magnitude if isinstance(self.magnitude, tuple) else (self.magnitude or 0.0,) * 2


@dataclass(frozen=True)
class SubPolicy:
    """Ops applied one after another. A sub-policy without ops leaves the image unchanged."""

    ops: tuple[OpChoice, ...] = ()
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.ops, tuple) or not all(isinstance(choice, OpChoice) for choice in self.ops):
            raise InputError("ops of a sub-policy is not a tuple of OpChoice; write (OpChoice(...), ...)")
        if len(self.ops) > MAX_STAGES:
            raise InputError(f"a sub-policy has {len(self.ops)} ops; at most {MAX_STAGES} are allowed, split it")
        if not _is_number(self.weight) or not 0 <= self.weight < math.inf:
            raise InputError(f"weight is {shown(self.weight)}; wanted a finite number, 0 or more")


@dataclass(frozen=True)
class PolicyTables:
    """A policy as tensors: N sub-policies, K stages of one draw, missing stages padded with op -1."""

    cumulative: Tensor  # (N,) running share of the weights
    op: Tensor  # (N, K) place in OPS
    probability: Tensor  # (N, K)
    magnitude: Tensor  # (N, K) the least one
    span: Tensor  # (N, K) from the least to the greatest

    @cached_property
    def has_ranges(self) -> bool:
        """Whether a magnitude is drawn for every image."""
        return bool((self.span > 0).any())


@dataclass(frozen=True)
class Policy:
    """Sub-policies and their weights; every image draws one of them, or several that act one after the other."""

    sub_policies: tuple[SubPolicy, ...]
    name: str = field(default="policy", compare=False)
    draws: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.sub_policies, tuple) or not all(isinstance(s, SubPolicy) for s in self.sub_policies):
            raise InputError("sub_policies is not a tuple of SubPolicy; write (SubPolicy(...), ...)")
        if not self.sub_policies:
            raise InputError("sub_policies is empty; a policy that does nothing holds one sub-policy without ops")
        total = sum(sub_policy.weight for sub_policy in self.sub_policies)
        if not 0 < total < math.inf:
            raise InputError(f"the weights of all sub_policies add up to {total}; wanted a finite number above 0")
        check_name(self.name)
        if isinstance(self.draws, bool) or not isinstance(self.draws, int) or self.draws < 1:
            raise InputError(f"draws is {shown(self.draws)}; wanted a whole number, 1 or more")
        if self.draws * max(1, self.stages) > MAX_STAGES:
            raise InputError(
                f"{self.draws} draws of up to {self.stages} ops are more than the {MAX_STAGES} that an image may have; "
                "lower draws"
            )

    @property
    def stages(self) -> int:
        """The number of ops of the longest sub-policy."""
        return max(len(sub_policy.ops) for sub_policy in self.sub_policies)

    @cached_property
    def tables(self) -> PolicyTables:
        """The policy as tensors, built on first use."""
        place = {name: index for index, name in enumerate(OPS)}
        size = (len(self.sub_policies), self.stages)
        op = torch.full(size, -1, dtype=torch.long)
        probability, magnitude, span = (torch.zeros(size) for _ in range(3))
        for n, sub_policy in enumerate(self.sub_policies):
            for k, choice in enumerate(sub_policy.ops):
                op[n, k] = place[choice.op]
                probability[n, k] = choice.probability
                low, high = choice.magnitudes
                magnitude[n, k], span[n, k] = low, high - low
        weights = torch.tensor([sub_policy.weight for sub_policy in self.sub_policies], dtype=torch.float64)
        return PolicyTables((weights / weights.sum()).cumsum(0), op, probability, magnitude, span)

    @property
    def version(self) -> int:
        """The oldest version of the format that can hold it, so that older readers take what they understand."""
        several = self.draws > 1 or any(isinstance(c.magnitude, tuple) for s in self.sub_policies for c in s.ops)
        return VERSIONS[several]

    def to_json(self) -> str:
        """The policy as JSON text. `ops` states the range of each magnitude, so that other code can use the file."""
        used = {choice.op for sub_policy in self.sub_policies for choice in sub_policy.ops}
        rows = [json.dumps(_sub_policy_data(sub_policy)) for sub_policy in self.sub_policies]
        scales = [f"    {json.dumps(name)}: {json.dumps(op_scale(name))}" for name in OPS if name in used]
        drawn = f'  "draws": {self.draws},\n' if self.version > 1 else ""
        return (
            f'{{\n  "format": "{FORMAT}",\n  "version": {self.version},\n  "name": {json.dumps(self.name)},\n{drawn}'
            + '  "ops": {\n'
            + ",\n".join(scales)
            + '\n  },\n  "sub_policies": [\n    '
            + ",\n    ".join(rows)
            + "\n  ]\n}\n"
        )

    @classmethod
    def from_json(cls, text: str, where: str = "policy") -> "Policy":
        """Parse the output of `to_json`. Anything else raises a one-line error that starts with `where`."""
        return policy_from_data(parse_json(text, where), where)

    def save(self, path: Path | str) -> None:
        """Write the policy as JSON."""
        Path(path).write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str) -> "Policy":
        """Read a policy file in the format of `save`; search_spaces.read_policy reads other formats."""
        return policy_from_data(read_json(path, "policy"), f"policy file {shown_path(path)}")


def op_scale(name: str) -> dict[str, Any]:
    """The amounts of an op at magnitude 0 and 1, as plain data."""
    op = OPS[name]
    if not op.has_magnitude:
        return {}
    return {"at_0": op.identity, "at_1": op.strongest, "unit": op.unit, "random_sign": op.signed}


def policy_from_data(data: Any, where: str) -> Policy:
    """A policy from parsed JSON; errors name the field."""
    check_header(data, FORMAT, VERSIONS, {"ops", "sub_policies", "draws"}, where, CONVERTED)
    if data["version"] == 1 and "draws" in data:
        raise InputError(f"{where}: draws stands in a file of version 1, which has none; write version 2")
    _check_scales(data.get("ops", {}), f"{where}: ops")
    rows = data.get("sub_policies")
    if not isinstance(rows, list):
        raise InputError(f"{where}: sub_policies is {shown(rows)}; wanted a list of sub-policies")
    sub_policies = tuple(_sub_policy(row, f"{where}: sub_policies[{n}]") for n, row in enumerate(rows))
    policy = located(where, Policy, sub_policies, data.get("name", "policy"), data.get("draws", 1))
    if policy.version > data["version"]:
        raise InputError(f"{where}: a magnitude is a range, and its version is 1; write version 2")
    return policy


def _sub_policy_data(sub_policy: SubPolicy) -> dict[str, Any]:
    ops = []
    for choice in sub_policy.ops:
        entry: dict[str, Any] = {"op": choice.op, "probability": choice.probability}
        if choice.magnitude is not None:
            entry["magnitude"] = choice.magnitude
        ops.append(entry)
    return {"weight": sub_policy.weight, "ops": ops}


def _sub_policy(row: Any, where: str) -> SubPolicy:
    check_keys(row, {"weight", "ops"}, where)
    entries = row.get("ops")
    if not isinstance(entries, list):
        raise InputError(f"{where}.ops is {shown(entries)}; wanted a list of ops, [] for none")
    choices = []
    for k, entry in enumerate(entries):
        here = f"{where}.ops[{k}]"
        check_keys(entry, {"op", "probability", "magnitude"}, here)
        if "op" not in entry or "probability" not in entry:
            raise InputError(f"{here} has the keys {sorted(entry)}; give at least op and probability")
        magnitude = entry.get("magnitude")
        magnitude = tuple(magnitude) if isinstance(magnitude, list) else magnitude
        choices.append(located(here, OpChoice, entry["op"], entry["probability"], magnitude))
    return located(where, SubPolicy, tuple(choices), row.get("weight", 1.0))


def _check_scales(scales: Any, where: str) -> None:
    # A magnitude must never silently mean another strength, so a file with other ranges is refused.
    if not isinstance(scales, Mapping):
        raise InputError(f"{where} is {shown(scales)}; wanted an object, or leave it out")
    for name, scale in scales.items():
        if name not in OPS:
            raise InputError(f"{where} has the unknown op {shown(name)}; {nearest(name, OPS)}")
        if scale != op_scale(name):
            raise InputError(
                f"{where}.{name} is {shown(scale, 120)}, but here magnitudes mean {op_scale(name)}; convert the "
                "magnitudes, or leave ops out if they already have this meaning"
            )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_magnitude(value: Any) -> None:
    if not isinstance(value, tuple):
        return _check_share("magnitude", value)
    if len(value) != 2:
        raise InputError(f"magnitude is {shown(list(value))}; wanted a number, or a range as [0.0, 1.0]")
    for end in value:
        _check_share("an end of the range of magnitude", end)
    if value[0] >= value[1]:
        raise InputError(f"magnitude is {shown(list(value))}; wanted a range that rises, or one number")
    return None


def _check_share(field_name: str, value: Any) -> None:
    if not _is_number(value) or not 0 <= value <= 1:
        raise InputError(f"{field_name} is {shown(value)}; wanted a number from 0 to 1")
