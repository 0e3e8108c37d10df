"""What the searches of a results file cost, and how many sub-policies they left in use, by row."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from jointsearch.report.results_file import Record

HEAD = (
    "| search | seeds | steps | forward-equivalents | seconds, least to most | sub-policies in use |",
    "|---|---|---|---|---|---|",
)
NO_NAMES = r"\((?:R|TM)\)|, \d+ cores?$|\b(?:AMD|Intel|NVIDIA|Processor|CPU)\b"


def describe_costs(records: Iterable[Record]) -> str:
    """A Markdown table with a line for each row of searches; times are given by machine."""
    rows: dict[str, list[Record]] = {}
    for record in records:
        if record.is_search and record.result is not None:
            rows.setdefault(record.row, []).append(record)
    return "\n".join([*HEAD, *(_line(row, rows[row]) for row in sorted(rows))]) + "\n"


def machine(hardware: str) -> str:
    """The short name of a machine: EPYC of "AMD EPYC, 2 cores"."""
    return " ".join(re.sub(NO_NAMES, " ", hardware).split()) or hardware


def _line(row: str, records: Sequence[Record]) -> str:
    by_machine: dict[str, list[Record]] = {}
    for record in records:
        by_machine.setdefault(machine(str(record.birth.get("hardware", "unknown machine"))), []).append(record)
    seconds = ", ".join(f"{_span(by_machine[name], 'seconds', '.0f')} ({name})" for name in sorted(by_machine))
    steps, cost = (_span(records, key, ",") for key in ("steps", "forward_equivalents"))
    in_use = _span(records, "effective_sub_policies", ".1f")
    return f"| {row} | {len(records)} | {steps} | {cost} | {seconds} | {in_use} |"


def _span(records: Sequence[Record], key: str, form: str) -> str:
    values: list[Any] = [record.result[key] for record in records if record.result and key in record.result]
    if not values:
        return "-"
    return " to ".join(dict.fromkeys(format(value, form) for value in (min(values), max(values))))
