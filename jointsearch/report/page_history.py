"""How trainings went, epoch by epoch: a small chart for every figure they recorded."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from jointsearch.report.metric_facts import MetricFacts
from jointsearch.report.movement import SHARE
from jointsearch.report.page_charts import COLORS, Line, line_chart
from jointsearch.report.page_html import Html, capitalized, tag
from jointsearch.report.page_run import Part, Run, number

# In the order in which they are shown, after the metric; others follow under their own names.
FIGURES = {
    "validation_loss": "Validation loss",
    "train_loss": "Training loss",
    "effective_sub_policies": "Sub-policies in use, exp(entropy)",
    "effective_ops": "Ops in use, exp(entropy)",
    "idle_share": "Share of images left as they are",
    "effective_candidates": "Candidates in use, exp(entropy)",
    "normal_skips": "Skip connections in the normal cell",
    "visits_mean": "Tries of a sub-policy, mean",
    "visits_least": "Tries of the least tried sub-policy",
}


def training_history(run: Run) -> list[Html]:
    """The charts of all trainings, a curve for each, colored by policy."""
    colors = policy_colors(run)
    by_folder = {part.folder: colors[part.group] for part in run.trainings}
    figures = figure_titles(run.trainings, run.metric)
    charts = [chart(name, title, run.trainings, by_folder) for name, title in figures.items()]
    return [policy_legend(colors, "One curve for each seed."), tag("div", *charts, class_="charts")] if charts else []


def policy_colors(run: Run) -> dict[str, int]:
    """A color for every policy that was trained."""
    return {name: place for place, name in enumerate(dict.fromkeys(part.group for part in run.trainings))}


def policy_legend(colors: Mapping[str, int], said: str = "") -> Html:
    """Which color is whose."""
    keys = [tag("span", name, class_=f"key c{color % COLORS}") for name, color in colors.items()]
    return tag("p", *keys, said, class_="legend")


def figure_titles(parts: Sequence[Part], metric: MetricFacts) -> dict[str, str]:
    """What the records hold numbers of in more than one epoch, in the order in which it is shown, with its title."""
    first = {metric.validation: capitalized(metric.title(metric.validation))}
    known = first | FIGURES | first
    found = dict.fromkeys(name for part in parts for record in part.epochs for name in record)
    several = [name for name in found if len({epoch for part in parts for epoch, _ in points(part, name)}) > 1]
    own = {
        name: name.removeprefix(SHARE) if name.startswith(SHARE) else capitalized(name.replace("_", " "))
        for name in several
        if name not in (*known, "epoch", "step")
    }
    return {name: title for name, title in known.items() if name in several} | own


def chart(name: str, title: str, parts: Sequence[Part], colors: Mapping[Path, int], said: str = "") -> Html:
    """A figure over epochs, a curve for each part."""
    lines = [Line(points(part, name), colors[part.folder], selected_epoch(part)) for part in parts]
    drawn = line_chart([line for line in lines if line.points], f"{title} over epochs")
    return tag("figure", tag("figcaption", tag("b", title), tag("span", said)), drawn)


def selected_epoch(part: Part) -> float | None:
    """The epoch that was kept of a search."""
    return part.selected["epoch"] if "search" in part.settings and part.result is not None else None


def points(part: Part, name: str) -> tuple[tuple[float, float], ...]:
    """A figure over epochs; what is no number there, as a loss that diverged, is left out."""
    found = ((record["epoch"], number(record.get(name))) for record in part.epochs)
    return tuple((epoch, value) for epoch, value in found if value is not None)
