"""What a race of whole trainings believes of its arms, and when each left."""

import itertools
from collections.abc import Sequence

from jointsearch.report.metric_facts import MetricFacts
from jointsearch.report.page_html import DASH, Html, table, tag
from jointsearch.report.page_run import Part, Run, number
from jointsearch.report.searches import race_verdict
from jointsearch.report.trainings_found import FOUND

SHOWN = 8  # arms
HOW = (
    "Differences are shrunken towards those of similar arms, as the best of a few noisy trainings is partly lucky. "
    "An interval holds 95 of 100 true differences if the model is right. The race returns the best arm if its "
    "interval lies above 0, else the control."
)


def race_tables(parts: Sequence[Part], run: Run) -> list[Html]:
    """The arms of every seed, best first; nothing for other searches."""
    metric = run.metric
    raced = [part for part in parts if "arms" in (part.result or {})]
    found: list[Html] = []
    for part in raced:
        found += [tag("p", race_verdict({"seed": part.seed, **(part.result or {})})), *_arms(part, metric)]
        if tried := (part.result or {}).get("tried_factors"):
            rows = [
                (row["setting"], f"{row['factor']:g}", f"{row['minus_given']:+.2f} ± {row['interval']:.2f}")
                for row in tried
            ]
            found.append(table(["recipe", "times", "minus as given, over all arms"], rows))
    if said := order_beside_trainings(raced, run):
        found.append(tag("p", said))
    return [*found, tag("p", HOW, class_="faint")] if found else []


def order_beside_trainings(raced: Sequence[Part], run: Run) -> str:
    """How many pairs of arms the race ordered as test images ordered the trainings with them; empty if there are none.

    Trainings of a race have fewer images than those afterwards, so their order might be another one.
    """
    score, sign = run.metric.test("last"), 1 if run.metric.higher_is_better else -1
    tested = {(one.group, one.seed): number((one.result or {}).get(score)) for one in run.trainings}
    alike, pairs = 0, 0
    for part in raced:
        result = part.result or {}
        believed = {row["arm"]: float(row["minus_control"]) for row in result["arms"]}
        # The arm that was handed over is trained as the row found.
        measured = {arm: tested.get((arm, part.seed)) for arm in believed}
        if measured.get(result["chosen"]) is None:
            measured[result["chosen"]] = tested.get((FOUND, part.seed))
        both = [(mean, one) for arm, mean in believed.items() if (one := measured[arm]) is not None]
        for (mean, one), (other_mean, other) in itertools.combinations(both, 2):
            if mean != other_mean and one != other:
                pairs += 1
                alike += (mean > other_mean) == (sign * one > sign * other)
    return (
        f"Pairs of arms that were trained afterwards, too: {pairs}, of which the race has {alike} in their order."
        * (pairs > 0)
    )


def _arms(part: Part, metric: MetricFacts) -> list[Html]:
    """The best arms at once, the others when they are opened."""
    result = part.result or {}
    rows = [
        (
            row["arm"],
            str(row["trainings"]),
            f"{row['score']:.2f}",
            f"{row['minus_control']:+.2f} ± {row['interval']:.2f}",
            DASH if row["left_after"] is None else f"after {row['left_after']}",
        )
        for row in result["arms"]
    ]
    heads = [
        "arm",
        "trainings",
        f"mean {metric.words} as measured",
        f"better than {result['control']} by, shrunken",
        "left",
    ]
    first, others = rows[:SHOWN], rows[SHOWN:]
    shown = [table(heads, first)]
    if others:
        shown.append(tag("details", tag("summary", f"{len(others)} more arms"), table(heads, others)))
    return shown
