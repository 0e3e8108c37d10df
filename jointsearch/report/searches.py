"""What searches say of themselves: their cost, how wide their policies are, and whether seeds agree."""

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import Any

from scipy.stats import spearmanr

from jointsearch.jobs import TUNED


def describe_searches(results: Sequence[dict[str, Any]]) -> str:
    """A Markdown table with a line for each seed, and the agreement between them; of races, who won."""
    if raced := [race_verdict(result) for result in results if "arms" in result]:
        return "\n".join(raced) + "\n"
    lines = [
        "| seed | seconds | cost in forward passes of a batch | sub-policies, as many equally likely ones | "
        "images left as they are | draws of each sub-policy | steps skipped |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        lines.append(
            f"| {result['seed']} | {result['seconds']:.0f} | {result['forward_equivalents']:,} | "
            f"{_number(result, 'effective_sub_policies', '.1f')} | {_number(result, 'idle_share', '.1%')} | "
            f"{_number(result, 'visits_mean', '.0f')} | {result['skipped_steps']} |"
        )
    tables = [result["table"] for result in results if "table" in result]
    for result in results if tables else []:
        dropped = ", ".join(named(row) for row in result["table"] if not row["share"] and row["op"] != "identity")
        alone = ", measured once, which is no evidence" if result.get("measurements") == 1 else ""
        lines += ["", f"Seed {result['seed']} drops {dropped or 'nothing'}{alone}."]
    if tables:  # shares of entries that are kept say only how many levels their ops have
        compared, values = "gains", [gains_in_order(table) for table in tables]
    else:  # what the starting policy gave them is common to all seeds, and no agreement
        compared = "sub-policies' preferences"
        values = [result["sub_policy_preferences"] for result in results if "sub_policy_preferences" in result]
    if said := agreement_between_seeds(compared, values):
        lines += ["", said]
    return "\n".join(lines) + "\n"


def race_verdict(result: dict[str, Any]) -> str:
    """What the race of a seed returns, in words: who won, by how much, and what it cost."""
    leader, control = result["leader"], result["control"]
    measured = (
        f"{leader} leads {control} by {result['leader_minus_control']:+.2f} ± {result['leader_interval']:.2f}, "
        f"{result['noise']:.2f} being the noise of a training"
    )
    cost = f"{result['trainings']} whole trainings, which took {result['seconds']:,.0f} seconds"
    said = f"Seed {result['seed']}: {result['chosen']} is returned after {cost}. {measured}."
    if result["chosen"] == control:
        why = "no other arm has a larger estimate" if leader == control else f"{measured}: not surely better"
        said = f"Seed {result['seed']}: {control}, the control, is returned after {cost} ({why})."
    tuned = [f"{name} x{factor:g}" for name, factor in result.get(TUNED, {}).items() if factor != 1]
    if TUNED in result:
        said += f" All rows train with {' and '.join(tuned) or 'the recipe as it was given, which none surely beats'}."
    return said


def named(row: dict[str, Any]) -> str:
    """A row of a table: its op, and its magnitude where it has a single one."""
    return row["op"] if row["magnitude"] is None else f"{row['op']} at {row['magnitude']:.2f}"


def gains_in_order(table: Sequence[dict[str, Any]]) -> list[float]:
    """The gains of a table, which lies there with the largest first, in an order that all seeds share."""
    return [row["gain"] for row in sorted(table, key=named)]


def agreement_between_seeds(compared: str, values: Sequence[Sequence[float]]) -> str | None:
    """How alike the seeds rank, and how alike they would by chance; None where nothing can be compared."""
    mean = rank_agreement(values)
    if mean is None:
        return None
    # Ranks of n things that nothing but chance orders correlate with a variance of 1 / (n - 1), ties or not, and pairs
    # of seeds are uncorrelated.
    chance = min(1.0, 1.96 / math.sqrt((len(values[0]) - 1) * math.comb(len(values), 2)))
    said = (
        f"Rank correlation of the {compared} between seeds: {mean:+.2f} on average (1: the same order in each). Random "
        f"orders give a value within ±{chance:.2f} in 95 of 100 cases, or a wider range where several share one "
        "learned number."
    )
    return said + (" So the seeds agree no more than random orders would." if abs(mean) <= chance else "")


def rank_agreement(values: Sequence[Sequence[float]]) -> float | None:
    """Spearman's correlation, averaged over all pairs of seeds; None where there is no pair, or nothing was learned."""
    if any(len(set(one)) == 1 for one in values):
        return None
    correlations = [float(spearmanr(one, other).statistic) for one, other in itertools.combinations(values, 2)]
    return statistics.fmean(correlations) if correlations else None


def _number(result: dict[str, Any], key: str, form: str) -> str:
    return format(result[key], form) if key in result else "-"
