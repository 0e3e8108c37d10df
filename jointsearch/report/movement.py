"""Whether a search moved what it searches, and what it kept, dropped and gained, in sentences.

The policy of a seed did not move where fewer than 5 % of images would draw another sub-policy at the end than at the
start. Cells did not move where the shares of an edge's candidates are, on average, less than 5 % away from equal ones.
"""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from jointsearch.report.page_run import Part, number
from jointsearch.report.searches import agreement_between_seeds, named
from jointsearch.runs.run_folder import GENOTYPE_FILE, POLICY_FILE
from search_spaces.genotype import Genotype
from search_spaces.policy import Policy
from search_spaces.schedule import load_policy_or_schedule

STILL = 0.05  # of the draws, or of the shares of an edge
SHARE = "share/"  # begins, in the record of an epoch, the share of images on which an op acts
SHOWN = 3  # names in a sentence
RULE = (
    f"A policy “did not move” where, in every seed, fewer than {STILL:.0%} of images would draw another sub-policy at "
    "the end than at the start; cells, where the shares of an edge's candidates stayed, on average, within "
    f"{STILL:.0%} of equal ones."
)


def policy_movement(part: Part) -> float | None:
    """The share of images that would draw another sub-policy than at the start; None where a search does not say."""
    result = part.result or {}
    shares, gained = numbers(result.get("sub_policy_shares")), numbers(result.get("sub_policy_preferences"))
    if shares and len(shares) == len(gained):
        # A preference is the logarithm of what a share gained over the start.
        start = [share * math.exp(-gain) for share, gain in zip(shares, gained, strict=True)]
        return _distance(shares, start)
    first = part.epochs[0] if part.epochs else {}
    names = [name for name in part.selected if name.startswith(SHARE)]
    then, now = ([number(record.get(name)) or 0.0 for name in names] for record in (first, part.selected))
    return _distance(now, then) if sum(then) and sum(now) and len(part.epochs) > 1 else None


def cells_movement(part: Part) -> float | None:
    """How far the shares of an edge's candidates are from equal ones, on average; None where a search does not say."""
    result = part.result or {}
    tables = [result.get(f"weights/{kind}") for kind in ("normal", "reduction")]
    edges = [numbers(edge) for table in tables if isinstance(table, list) for edge in table]
    distances = [_distance(edge, [1.0] * len(edge)) for edge in edges if sum(edge)]
    return statistics.fmean(distances) if distances else None


def still(step: Sequence[Part]) -> list[str]:
    """What of a search did not move, or moved as chance would move it; empty where it moved, or nobody knows."""
    said, part = [], step[0]
    if part.finds_policy and all("table" not in (one.result or {}) for one in step):
        moved = [policy_movement(one) for one in step]
        largest = max((one for one in moved if one is not None), default=None)
        if largest is not None and None not in moved and largest < STILL:
            said.append(f"The policy did not move: at most {largest:.1%} of images would draw another sub-policy")
        elif largest is not None and agree_by_chance(step):
            said.append(
                f"The policy moved for up to {largest:.0%} of images, but its seeds agree no more than random orders"
            )
    if part.finds_policy and (tables := _tables(step)) and not any(_dropped(table) for table in tables):
        said.append("The search dropped nothing, so the policy found is the one that it started from")
    if part.finds_cells:
        moved = [cells_movement(one) for one in step]
        largest = max((one for one in moved if one is not None), default=None)
        if largest is not None and None not in moved and largest < STILL:
            said.append(f"The cells did not move: the shares of their candidates stayed within {largest:.1%} of equal")
    return said


def agree_by_chance(step: Sequence[Part]) -> bool:
    """Whether several seeds rank the sub-policies no more alike than random orders would."""
    return (said := agreement(step)) is not None and "no more than random" in said


def agreement(step: Sequence[Part]) -> str | None:
    """How alike the seeds rank the sub-policies; None where that cannot be compared."""
    usable = [one for part in step if (one := numbers((part.result or {}).get("sub_policy_preferences")))]
    if len({len(one) for one in usable}) != 1:
        return None
    return agreement_between_seeds("sub-policies' preferences", usable)


def kept_and_dropped(step: Sequence[Part]) -> list[tuple[str, str]]:
    """What the searches of a step kept, dropped and gained, as terms with what there is to say."""
    said: list[tuple[str, str]] = []
    if step[0].finds_policy:
        if tables := _tables(step):
            dropped = Counter(name for table in tables for name in _dropped(table))
            told = ", ".join(f"{name} ({count} of {len(tables)} seeds)" for name, count in dropped.most_common())
            said.append(("dropped", told or "nothing"))
        elif sizes := [size for part in step if (size := _kept(part))]:
            said.append(
                ("kept", f"{_span([kept for kept, _ in sizes])} of {_span([of for _, of in sizes])} sub-policies")
            )
        said += _gains(step)
    if step[0].finds_cells and (chosen := _cells(step)):
        said.append(("edges of the cells", chosen))
    return said


def op_gains(step: Sequence[Part]) -> dict[str, float]:
    """By how much the share of images on which an op acts rose over the search, mean over seeds; largest first."""
    gains: dict[str, list[float]] = {}
    for part in step:
        for name, now in part.selected.items() if len(part.epochs) > 1 else ():
            then = number(part.epochs[0].get(name))
            if name.startswith(SHARE) and then is not None and (value := number(now)) is not None:
                gains.setdefault(name.removeprefix(SHARE), []).append(value - then)
    means = {name: statistics.fmean(values) for name, values in gains.items()}
    return dict(sorted(means.items(), key=lambda gain: -gain[1]))


def numbers(values: Any) -> list[float]:
    """A list of a file, if it holds finite numbers only; else an empty one."""
    if not isinstance(values, list):
        return []
    read = [number(value) for value in values]
    return [] if None in read else [one for one in read if one is not None]


def _distance(shares: Sequence[float], others: Sequence[float]) -> float:
    """The share of draws that fall elsewhere: half of the summed differences, each made to sum to 1."""
    total, other = sum(shares), sum(others)
    return sum(abs(a / total - b / other) for a, b in zip(shares, others, strict=True)) / 2


def _tables(step: Sequence[Part]) -> list[list[dict[str, Any]]]:
    tables = [(part.result or {}).get("table") for part in step]
    keys = {"op", "magnitude", "share"}
    return [
        table
        for table in tables
        if isinstance(table, list) and all(isinstance(row, dict) and keys <= row.keys() for row in table)
    ]


def _dropped(table: Sequence[dict[str, Any]]) -> list[str]:
    return [named(row) for row in table if not row["share"] and row["op"] != "identity"]


def _kept(part: Part) -> tuple[int, int] | None:
    """The sub-policies of a finished policy, and those among which the search chose."""
    among, path = numbers((part.result or {}).get("sub_policy_shares")), part.folder / POLICY_FILE
    found = load_policy_or_schedule(path) if among and path.is_file() else None
    if not isinstance(found, Policy):
        return None
    return sum(sub_policy.weight > 0 for sub_policy in found.sub_policies), len(among)


def _gains(step: Sequence[Part]) -> list[tuple[str, str]]:
    gains = [(name, gain) for name, gain in op_gains(step).items() if abs(gain) >= 0.0005]
    told = {
        "ops that gained most": [(name, gain) for name, gain in gains if gain > 0][:SHOWN],
        "ops that lost most": [(name, gain) for name, gain in reversed(gains) if gain < 0][:SHOWN],
    }
    return [(term, ", ".join(f"{name} {100 * gain:+.1f}" for name, gain in few)) for term, few in told.items() if few]


def _cells(step: Sequence[Part]) -> str:
    paths = [path for part in step if (path := part.folder / GENOTYPE_FILE).is_file()]
    cells = [node for path in paths for nodes in Genotype.load(path).cells.values() for node in nodes]
    chosen = Counter(edge.op for node in cells for edge in node)
    return ", ".join(f"{op} {count}" for op, count in chosen.most_common())


def _span(values: Sequence[int]) -> str:
    return " to ".join(str(value) for value in dict.fromkeys((min(values), max(values))))
