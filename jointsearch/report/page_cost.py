"""Accuracy against cost: every row of trainings at the seconds that its search and training took."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jointsearch.report.alike import tables_of
from jointsearch.report.chance import Chance
from jointsearch.report.comparison import Comparison, Row
from jointsearch.report.ledger import Costs, ledger
from jointsearch.report.page_charts import COLORS, drawing_of, nice_ticks, tick_labels
from jointsearch.report.page_history import policy_colors
from jointsearch.report.page_html import Html, tag
from jointsearch.report.page_run import Run
from jointsearch.report.trainings_found import sources_of

# Lengths in units of the drawing, about a pixel. Names stand in a column of their own, so that none overlap.
WIDTH, HEIGHT, LEFT, NAMES_AT, TOP, BOTTOM, LINE = 430, 250, 44, 258, 22, 40, 15
LONGEST = 22  # letters of a name
SPANS = 8  # from the cheapest row to the dearest: from there on the axis is logarithmic


@dataclass(frozen=True)
class Axis:
    """From values to places in the drawing, by their logarithm or as they are."""

    low: float
    high: float
    start: float
    end: float
    by_logarithm: bool = False

    def place(self, value: float) -> float:
        """Where a value lies."""
        scale = math.log10 if self.by_logarithm else float
        low, high, here = map(scale, (self.low, self.high, value))
        return round(self.start + (here - low) / ((high - low) or 1) * (self.end - self.start), 1)


def cost_section(run: Run, comparison: Comparison | None, chance: Chance | None) -> list[Html]:
    """The drawing and how to read it; nothing where no row is finished."""
    if comparison is None or not comparison.rows:
        return []
    costs = costs_of(run)
    seconds = {
        one.row: one.seconds for one in costs if one.seconds
    }  # 0 after rounding has no place on a logarithmic axis
    if not seconds:
        return []
    rows = [row for row in comparison.rows if row.policy in seconds]
    near = chance if chance is not None and chance.is_near([row.mean for row in rows]) else None
    drawn = _scatter(rows, seconds, comparison, policy_colors(run), near)
    return [tag("figure", drawn, class_="cost"), tag("p", _how_to_read(run, costs, near), class_="faint")]


def costs_of(run: Run) -> list[Costs]:
    """The cost of every row that has a finished training."""
    [trained] = tables_of(sources_of([run.folder]))  # one table, as all of a run is compared
    return list(ledger(trained))


def _how_to_read(run: Run, costs: Sequence[Costs], near: Chance | None) -> str:
    said = "A row stands at the mean of its seeds: the stroke is their standard deviation, small dots are the seeds. "
    if any(cost.search is not None for cost in costs):
        said += (
            "The cost of a row is its training and the search that it needed, for one seed: rows with what was found "
            "include the search. "
        )
    else:
        said += (
            "The cost of a row is its training, for one seed; a search elsewhere, as of a published policy, is not in "
            "it. "
        )
    machines = {str(part.birth["hardware"]) for part in run.parts if "hardware" in part.birth}
    if len(machines) > 1:
        said += f"Seconds are those of {len(machines)} kinds of machine, so compare them with care. "
    else:
        said += "Seconds depend on the machine and on what else ran on it. "
    if near is not None:
        said += f"The dashed line is chance: {near.accuracy:.1f} % by {near.words}."
    return said.strip()


def _scatter(
    rows: Sequence[Row],
    seconds: Mapping[str, float],
    comparison: Comparison,
    colors: Mapping[str, int],
    near: Chance | None,
) -> Html:
    height = max(HEIGHT, TOP + BOTTOM + LINE * len(rows))
    across = _across([seconds[row.policy] for row in rows])
    values = [value for row in rows for value in row.values.values()]
    values += [row.mean + sign * (row.spread or 0) for row in rows for sign in (-1, 1)]
    values += [near.accuracy] if near is not None else []
    ticks = nice_ticks(min(values), max(values))
    up = Axis(ticks[0], ticks[-1], height - BOTTOM, TOP)
    drawn = _axes(across, up, ticks, height, comparison.title)
    if near is not None:
        y = up.place(near.accuracy)
        drawn.append(tag("line", x1=LEFT, x2=NAMES_AT - 20, y1=y, y2=y, class_="chance"))
        drawn.append(tag("text", "chance", x=LEFT + 4, y=y - 4))
    places = {row.policy: (across.place(seconds[row.policy]), up.place(row.mean)) for row in rows}
    names = spread_out([places[row.policy][1] for row in rows], TOP, height - BOTTOM)
    for row, at in zip(rows, names, strict=True):
        x, y = places[row.policy]
        color = f"c{colors[row.policy] % COLORS}"
        name = row.policy if len(row.policy) <= LONGEST else row.policy[: LONGEST - 1] + "…"
        drawn.append(tag("line", x1=x, x2=NAMES_AT - 6, y1=y, y2=at, class_="leader"))
        low, high = (up.place(row.mean + sign * (row.spread or 0)) for sign in (-1, 1))
        drawn.append(tag("line", x1=x, x2=x, y1=low, y2=high, class_=f"line {color}"))
        drawn += [tag("circle", cx=x, cy=up.place(value), r=2, class_=f"dot {color}") for value in row.values.values()]
        drawn.append(tag("circle", cx=x, cy=y, r=5, class_=f"dot {color}"))
        drawn.append(tag("circle", cx=NAMES_AT, cy=at, r=3.5, class_=f"dot {color}"))
        drawn.append(tag("text", name, x=NAMES_AT + 8, y=at + 3.5, class_="name"))
    described = f"{comparison.metric.words} of every row over the seconds of its search and training"
    return drawing_of(drawn, (WIDTH, height), described, "chart")


def _across(costs: Sequence[float]) -> Axis:
    low, high = min(costs), max(costs)
    if high > SPANS * low:
        return Axis(low / 1.5, high * 1.5, LEFT, NAMES_AT - 20, by_logarithm=True)
    ticks = nice_ticks(0.0, high)
    return Axis(ticks[0], ticks[-1], LEFT, NAMES_AT - 20)


def _axes(across: Axis, up: Axis, ticks: Sequence[float], height: int, title: str) -> list[Html]:
    drawn = [tag("text", title, x=0, y=12, class_="title")]
    for tick, label in zip(ticks, tick_labels(ticks), strict=True):
        y = up.place(tick)
        drawn.append(tag("line", x1=LEFT, x2=NAMES_AT - 20, y1=y, y2=y, class_="grid"))
        drawn.append(tag("text", label, x=LEFT - 6, y=y + 3.5, text_anchor="end"))
    for tick, label in _cost_ticks(across):
        drawn.append(tag("text", label, x=across.place(tick), y=height - BOTTOM + 16, text_anchor="middle"))
    said = "seconds of search and training" + (", logarithmic" if across.by_logarithm else "")
    return [*drawn, tag("text", said, x=LEFT, y=height - 6)]


def _cost_ticks(across: Axis) -> list[tuple[float, str]]:
    if not across.by_logarithm:
        ticks = nice_ticks(across.low, across.high)
        return list(zip(ticks, tick_labels(ticks), strict=True))
    powers = range(math.floor(math.log10(across.low)), math.ceil(math.log10(across.high)) + 1)
    steps = (1,) if len(powers) > 4 else (1, 3)
    ticks = tuple(step * 10.0**power for power in powers for step in steps)
    return [(tick, f"{tick:,.10g}") for tick in ticks if across.low <= tick <= across.high]


def spread_out(places: Sequence[float], low: float, high: float) -> list[float]:
    """Heights for names beside `places`, at least a line apart and, as far as they fit, within the bounds."""
    order = sorted(range(len(places)), key=lambda place: places[place])
    heights = [0.0] * len(places)
    at = low - LINE
    for number in order:
        at = max(at + LINE, places[number])
        heights[number] = at
    # Pushed down past the end, they are pushed up again from there.
    at = high + LINE
    for number in reversed(order):
        at = min(at - LINE, heights[number])
        heights[number] = round(at, 1)
    return heights
