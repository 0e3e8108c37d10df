"""A policy schedule: one policy for each span of epochs, as dynamic search methods return it."""

import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search_spaces.errors import InputError
from search_spaces.plain_json import check_header, check_keys, check_name, located, read_json, shown, shown_path
from search_spaces.policy import CONVERTED, Policy, policy_from_data

SCHEDULE_FORMAT, VERSION = "jointsearch-schedule", 1  # its policies name their own versions
SCHEDULE_BYTES = 16_000_000  # a policy of 40 sub-policies for each of 2,100 epochs


@dataclass(frozen=True)
class PolicySchedule:
    """Spans of (first epoch, policy) in rising order; the first span starts at epoch 0."""

    spans: tuple[tuple[int, Policy], ...]
    name: str = field(default="schedule", compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.spans, tuple) or not all(_is_span(span) for span in self.spans):
            raise InputError("spans is not a tuple of (first epoch, Policy); write ((0, policy), ...)")
        check_name(self.name)
        starts = [start for start, _ in self.spans]
        if not starts or starts[0] != 0:
            raise InputError("the first span of a schedule must start at from_epoch 0; set it to 0")
        if any(later <= earlier for earlier, later in itertools.pairwise(starts)):
            raise InputError(f"from_epoch of the spans is {starts}; wanted rising numbers, sort the spans")

    def at(self, epoch: int) -> Policy:
        """The policy of an epoch."""
        return next(policy for start, policy in reversed(self.spans) if start <= epoch)

    def to_json(self) -> str:
        """The schedule as text."""
        rows = [
            json.dumps({"from_epoch": start, "policy": json.loads(policy.to_json())}) for start, policy in self.spans
        ]
        head = json.dumps({"format": SCHEDULE_FORMAT, "version": VERSION, "name": self.name})
        return head.removesuffix("}") + ', "spans": [\n' + ",\n".join(rows) + "\n]}\n"

    def save(self, path: Path | str) -> None:
        """Write the schedule as JSON."""
        Path(path).write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str) -> "PolicySchedule":
        """Read a schedule file."""
        return schedule_from_data(
            read_json(path, "schedule", SCHEDULE_BYTES, max_depth=12), f"schedule file {shown_path(path)}"
        )


def load_policy_or_schedule(path: Path | str) -> Policy | PolicySchedule:
    """Read a policy file or a schedule file; the content decides which."""
    data = read_json(path, "policy", SCHEDULE_BYTES, max_depth=12)
    if isinstance(data, dict) and data.get("format") == SCHEDULE_FORMAT:
        return schedule_from_data(data, f"schedule file {shown_path(path)}")
    return policy_from_data(data, f"policy file {shown_path(path)}")


def schedule_from_data(data: Any, where: str) -> PolicySchedule:
    """A schedule from parsed JSON; errors name the field."""
    check_header(data, SCHEDULE_FORMAT, (VERSION,), {"spans"}, where, CONVERTED)
    rows = data.get("spans")
    if not isinstance(rows, list):
        raise InputError(f"{where}: spans is {shown(rows)}; wanted a list of spans")
    spans = []
    for n, row in enumerate(rows):
        here = f"{where}: spans[{n}]"
        check_keys(row, {"from_epoch", "policy"}, here)
        start = row.get("from_epoch")
        if isinstance(start, bool) or not isinstance(start, int) or start < 0:
            raise InputError(f"{here}.from_epoch is {shown(start)}; wanted a whole number, 0 or more")
        spans.append((start, policy_from_data(row.get("policy"), f"{here}.policy")))
    return located(where, PolicySchedule, tuple(spans), data.get("name", "schedule"))


def _is_span(span: Any) -> bool:
    return isinstance(span, tuple) and len(span) == 2 and isinstance(span[0], int) and isinstance(span[1], Policy)
