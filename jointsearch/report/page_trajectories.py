"""How searches went: for each seed policy and cells above each other on one axis of epochs, so a jump of both shows.

What did not move is said in a line and not drawn. All other figures of the records are in a part that can be opened.
"""

import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from jointsearch.report.metric_facts import MetricFacts
from jointsearch.report.movement import SHARE
from jointsearch.report.page_charts import COLORS, REST, Line, Panel, stacked
from jointsearch.report.page_history import chart, figure_titles, points, selected_epoch
from jointsearch.report.page_html import Html, tag
from jointsearch.report.page_run import Part, number

Points = tuple[tuple[float, float], ...]

STILL = 0.05  # of its largest value: by less a figure does not move
STILL_SHARE = 0.01  # of images: by less an op does not move
# Beside the metric, what a panel is drawn for. The first of a line that a search records is taken.
OF_POLICY = ("effective_sub_policies", "effective_ops")
OF_CELLS = ("effective_candidates",)
OPS_TITLE, CELLS_TITLE = "Share of images on which an op acts, %", "Edges of both cells with an op"
EDGE = re.compile(r"\('(\w+)', \d+\)")  # of a genotype in DARTS's form
RULE = (
    f"A figure “did not move” where it changed by less than {STILL:.0%} of its largest value over all epochs of every "
    f"seed; an op, where the share of images on which it acts changed by less than {100 * STILL_SHARE:.0f} % of images."
)


def trajectories(step: Sequence[Part], metric: MetricFacts) -> list[Html]:
    """The curves of one step of a search."""
    titles = figure_titles(step, metric)
    if not titles:
        few = any(part.epochs for part in step)
        return [tag("p", "One epoch has been recorded, so nothing can be drawn over time.")] if few else []
    shares = [name for name in titles if name.startswith(SHARE)]
    # Curves of a panel by its title, a list for each seed; the ops of a panel have names, a single curve has "".
    groups: dict[str, list[dict[str, Points]]] = {}
    for name in (metric.validation, *OF_POLICY):
        if name in titles:
            groups[titles[name]] = [{"": points(part, name)} for part in step]
    if shares:
        groups[OPS_TITLE] = [
            {name.removeprefix(SHARE): _percent(points(part, name)) for name in shares} for part in step
        ]
    for name in OF_CELLS:
        if name in titles:
            groups[titles[name]] = [{"": points(part, name)} for part in step]
    groups |= {CELLS_TITLE: edges} if any(edges := [_edges(part) for part in step]) else {}
    moved = {title: curves for title, curves in groups.items() if _moved(title, curves)}
    colors = {title: _colors(curves) for title, curves in moved.items()}
    shown = [_figure(part, place, moved, colors) for place, part in enumerate(step) if part.epochs] if moved else []
    rest = {name: title for name, title in titles.items() if name not in shares and title not in moved}
    flat = [title for title in groups if title not in moved]
    parts = [tag("div", *shown, class_="stacks")] if shown else []
    return [*_legends(colors, moved), *parts, *_still(step, rest, flat), *_others(step, rest)]


def _figure(
    part: Part, place: int, moved: Mapping[str, Sequence[dict[str, Points]]], colors: Mapping[str, Mapping[str, int]]
) -> Html:
    """All panels of a seed; bounds are those of all seeds, so that seeds can be compared."""
    panels = [
        Panel(
            title,
            # Curves that are told apart come last, above the others.
            tuple(
                Line(line, colors[title].get(name))
                for name, line in sorted(curves[place].items(), key=lambda curve: curve[0] in colors[title])
                if line
            ),
            _bounds(curves),
        )
        for title, curves in moved.items()
    ]
    ends = [x for curves in moved.values() for of_seed in curves for line in of_seed.values() for x, _ in line]
    described = f"seed {part.seed}: {'; '.join(moved)}, over epochs"
    chart_ = stacked(panels, (min(ends), max(ends)), selected_epoch(part), described)
    return tag("figure", tag("figcaption", tag("b", f"Seed {part.seed}")), chart_)


def _bounds(curves: Sequence[dict[str, Points]]) -> tuple[float, float]:
    values = [y for of_seed in curves for line in of_seed.values() for _, y in line]
    return min(values), max(values)


def _moved(title: str, curves: Sequence[dict[str, Points]]) -> bool:
    least = 100 * STILL_SHARE if title == OPS_TITLE else None
    return any(_change(line) >= (least or STILL * _largest(line) or 1e-12) for one in curves for line in one.values())


def _change(line: Points) -> float:
    values = [y for _, y in line]
    return max(values) - min(values) if values else 0.0


def _largest(line: Points) -> float:
    return max((abs(y) for _, y in line), default=0.0)


def _colors(curves: Sequence[dict[str, Points]]) -> dict[str, int]:
    """Colors for the curves of a panel that move most, the others stay gray."""
    names = dict.fromkeys(name for of_seed in curves for name in of_seed)
    moves = {name: statistics.fmean(_change(of_seed.get(name, ())) for of_seed in curves) for name in names}
    chosen = sorted(moves, key=lambda name: -moves[name])[:COLORS]
    return {name: place for place, name in enumerate(chosen)}


def _legends(colors: Mapping[str, Mapping[str, int]], moved: Mapping[str, Sequence[dict[str, Points]]]) -> list[Html]:
    """Which color is whose in the panels with several curves, with the mean over seeds of the first and last value."""
    said = []
    for title, of_names in colors.items():
        if set(of_names) == {""}:
            continue
        keys = []
        for name, color in of_names.items():
            lines = [line for of_seed in moved[title] if (line := of_seed.get(name))]
            first, last = (statistics.fmean(line[end][1] for line in lines) for end in (0, -1))
            keys.append(tag("span", f"{name} {first:.3g} to {last:.3g}", class_=f"key c{color}"))
        names = {name for of_seed in moved[title] for name in of_seed}
        rest = [tag("span", f"{len(names) - len(of_names)} others", class_=f"key {REST}")]
        keys += rest if len(names) > len(of_names) else []
        said.append(tag("p", tag("b", f"{title}:"), *keys, class_="legend"))
    return said


def _still(step: Sequence[Part], rest: Mapping[str, str], flat: Sequence[str]) -> list[Html]:
    """One line about everything that did not move."""
    figures = [f"{title} ({_mean(name, step):.3g})" for name, title in rest.items() if _is_flat(name, step)]
    figures += [title for title in flat if title in (OPS_TITLE, CELLS_TITLE)]
    if not figures:
        return []
    return [tag("p", tag("b", "Did not move: "), f"{'; '.join(figures)}."), tag("p", RULE, class_="faint")]


def _others(step: Sequence[Part], rest: Mapping[str, str]) -> list[Html]:
    """Everything else that moved, closed; a curve for each seed."""
    colors = {part.folder: place for place, part in enumerate(step)}
    charts = [
        chart(name, title, step, colors, f"{_mean(name, step):.3g}")
        for name, title in rest.items()
        if not _is_flat(name, step)
    ]
    if not charts:
        return []
    keys = [tag("span", f"seed {part.seed}", class_=f"key c{colors[part.folder] % COLORS}") for part in step]
    said = "A dot marks the selected epoch. The number beside a title is the mean over seeds in that epoch."
    inside = [tag("p", *keys, said, class_="legend"), tag("div", *charts, class_="charts")]
    return [tag("details", tag("summary", f"{len(charts)} more figures of the search"), *inside)]


def _is_flat(name: str, step: Sequence[Part]) -> bool:
    lines = [points(part, name) for part in step]
    return all(_change(line) < (STILL * _largest(line) or 1e-12) for line in lines)


def _mean(name: str, step: Sequence[Part]) -> float:
    """In the selected epoch, else in the last that has the figure; over all seeds that have it."""
    ends = [(line, number(part.selected.get(name))) for part in step if (line := points(part, name))]
    return statistics.fmean(line[-1][1] if selected is None else selected for line, selected in ends)


def _percent(line: Points) -> Points:
    return tuple((epoch, 100 * value) for epoch, value in line)


def _edges(part: Part) -> dict[str, Points]:
    """Of every op the edges in both cells that it had in each epoch, as the records have the genotype."""
    counted = [(record["epoch"], _ops(record.get("genotype"))) for record in part.epochs]
    known = [(epoch, ops) for epoch, ops in counted if ops]
    names = dict.fromkeys(name for _, ops in known for name in sorted(ops))
    if len(known) < 2:
        return {}
    return {name: tuple((epoch, float(ops[name])) for epoch, ops in known) for name in names}


def _ops(genotype: Any) -> Counter[str]:
    return Counter(EDGE.findall(genotype)) if isinstance(genotype, str) else Counter()
