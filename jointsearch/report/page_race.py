"""What a race of whole trainings believes of its arms, and when each left."""

from collections.abc import Sequence

from jointsearch.report.metric_facts import MetricFacts
from jointsearch.report.page_html import DASH, Html, table, tag
from jointsearch.report.page_run import Part
from jointsearch.report.searches import race_verdict

SHOWN = 8  # arms
HOW = (
    "Differences are shrunken towards those of similar arms, as the best of a few noisy trainings is partly lucky. "
    "An interval holds 95 of 100 true differences if the model is right. The race returns the best arm if it is above "
    "the control by 1.645 standard deviations, else the control."
)


def race_tables(parts: Sequence[Part], metric: MetricFacts) -> list[Html]:
    """The arms of every seed, best first; nothing for other searches."""
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
    return [*found, tag("p", HOW, class_="faint")] if found else []


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
    heads = ["arm", "trainings", f"mean {metric.words} as measured", f"minus {result['control']}, shrunken", "left"]
    first, others = rows[:SHOWN], rows[SHOWN:]
    shown = [table(heads, first)]
    if others:
        shown.append(tag("details", tag("summary", f"{len(others)} more arms"), table(heads, others)))
    return shown
