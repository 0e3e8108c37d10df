"""A comparison in a plain sentence."""

import re
from collections.abc import Iterator

from jointsearch.report.alike import OR
from jointsearch.report.comparison import NONE_FINISHED, Comparison, Row
from jointsearch.report.difference import FEWEST_SEEDS, NO_DIFFERENCE, Difference, paired_difference
from jointsearch.report.trainings_found import FINDINGS
from search_spaces.controls import is_control

UNITS = {"%": " points"}


def verdict_sentence(comparison: Comparison) -> str:
    """The best finding beside every control and every other finding; without a finding, all rows beside the baseline.

    found is better than none by 2.10 points (1.20 to 3.00, 5 seeds); no difference to trivialaugment was found (-0.30
    to 1.10).
    """
    if not comparison.rows:
        return NONE_FINISHED
    findings = [row for row in comparison.rows if _part(row.policy) in FINDINGS]
    ranked = [row for row in findings if len(row.values) >= FEWEST_SEEDS]  # one lucky seed is not the best mean
    if len(findings) > 1 and not ranked:
        return f"No finding has the {FEWEST_SEEDS} seeds that a verdict takes."
    told = [row for row in ranked or findings if row is not comparison.base]
    if not told:
        return _all_rows(comparison)
    best = told[0]
    said = [_said(comparison, best, other) for other in _beside(comparison, best)]
    if not said:
        return comparison.without_baseline
    is_first = said[0].startswith("is ")
    about = best.policy
    if len(ranked) > 1 and best is ranked[0]:
        about = f"Of {len(ranked)} findings {best.policy} has the best mean{'. It' if is_first else ''}"
    return f"{about}{' ' if is_first else ': '}{'; '.join(said)}."


def _beside(comparison: Comparison, row: Row) -> Iterator[Row]:
    """The rows that a finding is set beside: the baseline, each of its controls, and other findings."""
    if comparison.base is not None:
        yield comparison.base
    if comparison.correction != "none":
        return  # Holm's verdicts are those of the table, and it has only differences to the baseline
    rows = [other for other in comparison.rows if other is not row and other is not comparison.base]
    own = _searches(row.policy)  # not those with the cells of another search
    controls = (one for one in rows if is_control(_part(one.policy)))
    yield from (one for one in controls if not (theirs := _searches(one.policy)) or own & theirs)
    yield from (other for other in rows if _part(other.policy) in FINDINGS)


def _difference(comparison: Comparison, row: Row, other: Row) -> Difference | None:
    if other is comparison.base:
        return comparison.difference(row)
    return paired_difference(row.values, other.values, comparison.metric.higher_is_better)


def _said(comparison: Comparison, row: Row, beside: Row) -> str:
    """What may be said of a row beside another one; "better by" is positive also where less is better."""
    difference, other = _difference(comparison, row, beside), beside.policy
    if difference is None:
        return f"no seed is shared with {other}"
    seeds = f"{difference.seeds} seed{'s' * (difference.seeds > 1)}"
    unit = UNITS.get(comparison.metric.unit, "")
    if row.same_as(beside):
        return f"is the same as {other}: equal scores with {seeds}"
    if not difference.is_claim:
        mean = _number(comparison, difference.mean)
        if difference.seeds >= FEWEST_SEEDS:
            return f"the difference to {other} is {mean}{unit} for each of {seeds}, so nothing tells its spread"
        few = "is" if difference.seeds == 1 else "are"
        return f"{seeds} {few} too few for a verdict on {other} (difference {mean}{unit})"
    low, high = _ends(difference)
    if difference.verdict == NO_DIFFERENCE:
        return (
            f"no difference to {other} was found ({_number(comparison, low)} to {_number(comparison, high)}, {seeds})"
        )
    if difference.mean < 0:
        low, high = -high, -low
    ends = f"{_number(comparison, low)} to {_number(comparison, high)}"
    by = _number(comparison, abs(difference.mean))
    return f"is {difference.verdict} than {other} by {by}{unit} ({ends}, {seeds})"


def _ends(difference: Difference) -> tuple[float, float]:
    width = difference.half_width or 0.0
    return difference.mean - width, difference.mean + width


def _number(comparison: Comparison, value: float) -> str:
    # Adding 0.0 turns the -0.0 of a tiny negative number into 0.0.
    return f"{round(value, comparison.decimals) + 0.0:.{comparison.decimals}f}"


def _all_rows(comparison: Comparison) -> str:
    """All rows beside the baseline, by verdict."""
    if comparison.base is None:
        return comparison.without_baseline
    verdicts: dict[str, list[str]] = {}
    for row in comparison.rows:
        if (difference := comparison.difference(row)) is not None:
            verdicts.setdefault(difference.verdict, []).append(f"{row.policy} ({comparison.paired(difference)})")
    if not verdicts:
        return f"Only {comparison.baseline} is there, so nothing is compared."
    told = "; ".join(f"{verdict}: {', '.join(rows)}" for verdict, rows in verdicts.items())
    return f"Beside {comparison.baseline}, {told}."


def _part(row: str) -> str:
    """The policy that the name of a row begins with."""
    return re.split(r"[@+]| \(", row)[0]


def _searches(row: str) -> set[str]:
    """The searches that the name of a row ends with, where several are told apart."""
    names = row.partition(" (")[2].removesuffix(")")
    return set(names.split(OR)) if names else set()
