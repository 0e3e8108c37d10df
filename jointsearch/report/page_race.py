"""What a race of whole trainings believes of its arms, and when each left."""

from collections.abc import Sequence
from typing import Any

from jointsearch.report.metric_facts import MetricFacts
from jointsearch.report.page_html import DASH, Html, table, tag
from jointsearch.report.page_run import Part

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
        found += [tag("p", race_verdict(part.result or {}, part.seed)), *_arms(part, metric)]
    return [*found, tag("p", HOW, class_="faint")] if found else []


def race_verdict(result: dict[str, Any], seed: int) -> str:
    """In a sentence: who won, and by how much."""
    leader, control = result["leader"], result["control"]
    measured = (
        f"{leader} leads {control} by {result['leader_minus_control']:+.2f} ± {result['leader_interval']:.2f}, "
        f"{result['noise']:.2f} being the noise of a training"
    )
    if result["chosen"] == control:
        why = f"{control} leads itself" if leader == control else f"{measured}: not surely better"
        return f"Seed {seed}: {control}, the control, is returned after {result['trainings']} trainings ({why})."
    return f"Seed {seed}: {result['chosen']} is returned after {result['trainings']} trainings. {measured}."


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
