"""Line charts as SVG inside the page: drawn in its colors, sharp at every size, light or dark."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from jointsearch.report.page_html import Html, tag

# Lengths in units of the drawing, about a pixel.
SIZE = (300, 140)
LEFT, RIGHT, TOP, BOTTOM = 48, 10, 8, 20
STRIP_WIDTH, STRIP_HEIGHT, STRIP_MARGIN = 150, 18, 8
PANEL_WIDTH, PANEL_HEIGHT, PANEL_TITLE = 380, 96, 22
COLORS = 8  # as many as the style sheet names
REST = "rest"  # the color of curves that are not told apart


@dataclass(frozen=True)
class Line:
    """One curve: points in order, and the place of the one that was kept. Without a color it is one of many."""

    points: tuple[tuple[float, float], ...]
    color: int | None = 0
    kept: float | None = None


@dataclass(frozen=True)
class Panel:
    """One of several charts above each other that share their epochs."""

    title: str
    lines: tuple[Line, ...]
    bounds: tuple[float, float]


@dataclass(frozen=True)
class Frame:
    """From values to places in the drawing."""

    x: tuple[float, float]
    ticks: tuple[float, ...]
    size: tuple[int, int]
    top: int = 0

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a point lies."""
        across = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1)
        up = (y - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])
        width, height = self.size[0] - LEFT - RIGHT, self.size[1] - TOP - BOTTOM
        return round(LEFT + across * width, 1), round(self.top + TOP + (1 - up) * height, 1)


def line_chart(lines: Sequence[Line], description: str, highest: float | None = None, across: str = "epoch") -> Html:
    """Curves over epochs, or what `across` names; with `highest` from 0 to there, to compare several charts."""
    points = [point for line in lines for point in line.points]
    places, up = [x for x, _ in points], [y for _, y in points]
    ticks = nice_ticks(min(up), max(up)) if highest is None else nice_ticks(0, highest)
    frame = Frame((min(places), max(places)), ticks, SIZE)
    width, height = SIZE
    drawn = _grid(frame)
    drawn += [part for line in lines for part in _curve(frame, line)]
    for end, anchor in zip(frame.x, ("start", "end"), strict=True):
        left, _ = frame.place(end, ticks[0])
        drawn.append(tag("text", f"{end:g}", x=left, y=height - 5, text_anchor=anchor))
    drawn.append(tag("text", across, x=(LEFT + width - RIGHT) / 2, y=height - 5, text_anchor="middle"))
    return drawing_of(drawn, SIZE, description, "chart")


def stacked(panels: Sequence[Panel], epochs: tuple[float, float], kept: float | None, description: str) -> Html:
    """Charts above each other on one axis of epochs; a stroke through all of them marks the epoch that was kept."""
    pitch = PANEL_TITLE + PANEL_HEIGHT
    height = len(panels) * pitch + BOTTOM
    drawn: list[Html] = []
    for place, panel in enumerate(panels):
        top = place * pitch + PANEL_TITLE
        # A frame takes the margin for the epochs off its height, and they stand once, below all of the panels.
        frame = Frame(epochs, nice_ticks(*panel.bounds), (PANEL_WIDTH, PANEL_HEIGHT + BOTTOM - TOP), top)
        if kept is not None:
            (x, low), (_, high) = (frame.place(kept, tick) for tick in (frame.ticks[0], frame.ticks[-1]))
            drawn.append(tag("line", x1=x, x2=x, y1=high, y2=low, class_="kept"))
        drawn.append(tag("text", panel.title, x=0, y=top - 4, class_="title"))
        drawn += _grid(frame)
        drawn += [part for line in panel.lines for part in _curve(frame, line)]
    frame = Frame(epochs, (0.0, 1.0), (PANEL_WIDTH, PANEL_HEIGHT))
    for tick in nice_ticks(*epochs, whole=True):
        if epochs[0] <= tick <= epochs[1]:
            x, _ = frame.place(tick, 0.0)
            drawn.append(tag("text", f"{tick:g}", x=x, y=height - 6, text_anchor="middle"))
    drawn.append(tag("text", "epoch", x=0, y=height - 6))
    return drawing_of(drawn, (PANEL_WIDTH, height), description, "chart")


def dot_strip(values: Sequence[float], bounds: tuple[float, float], color: int, description: str) -> Html:
    """A dot for each value on a line from bound to bound, and a stroke at their mean."""
    low, high = bounds
    inner, middle = STRIP_WIDTH - 2 * STRIP_MARGIN, STRIP_HEIGHT / 2

    def place(value: float) -> float:
        return round(STRIP_MARGIN + (value - low) / ((high - low) or 1) * inner, 1)

    mean = place(sum(values) / len(values))
    drawn = [tag("line", x1=STRIP_MARGIN, x2=STRIP_WIDTH - STRIP_MARGIN, y1=middle, y2=middle, class_="grid")]
    drawn += [tag("circle", cx=place(value), cy=middle, r=3.5, class_=f"dot c{color % COLORS}") for value in values]
    drawn.append(tag("line", x1=mean, x2=mean, y1=1, y2=STRIP_HEIGHT - 1, class_="mean"))
    return drawing_of(drawn, (STRIP_WIDTH, STRIP_HEIGHT), description, "strip")


def nice_ticks(low: float, high: float, whole: bool = False) -> tuple[float, ...]:
    """Round numbers from below `low` to above `high`."""
    # Imported here: needed only where a picture is made.
    from matplotlib.ticker import MaxNLocator

    # 4.99999 and 5.00001 are one number that was computed twice: without this, ticks show the rounding.
    if high - low <= 1e-4 * max(abs(low), abs(high)):
        middle = (low + high) / 2
        low, high = (middle - abs(middle) / 10, middle + abs(middle) / 10) if middle else (0.0, 1.0)
    steps = [1, 2, 5, 10] if whole else [1, 2, 2.5, 5, 10]
    located = MaxNLocator(5 if whole else 3, steps=steps, integer=whole)
    return tuple(float(tick) for tick in located.tick_values(low, high))


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Ticks in as few decimals as tell them exactly, the same for all."""
    step = min((right - left for left, right in itertools.pairwise(ticks)), default=abs(ticks[0]) or 1.0)
    finest = 2 - math.floor(math.log10(step))
    exact = (places for places in range(max(finest, 0)) if all(abs(round(t, places) - t) < step / 100 for t in ticks))
    places = next(exact, max(finest, 0))
    # Adding 0.0 turns the -0.0 of a tick that was rounded into 0.0.
    return [f"{round(tick, places) + 0.0:,.{places}f}" for tick in ticks]


def _grid(frame: Frame) -> list[Html]:
    drawn = []
    for tick, label in zip(frame.ticks, tick_labels(frame.ticks), strict=True):
        left, y = frame.place(frame.x[0], tick)
        drawn.append(tag("line", x1=left, x2=frame.size[0] - RIGHT, y1=y, y2=y, class_="grid"))
        drawn.append(tag("text", label, x=LEFT - 6, y=y + 3.5, text_anchor="end"))
    return drawn


def _curve(frame: Frame, line: Line) -> list[Html]:
    color = REST if line.color is None else f"c{line.color % COLORS}"
    places = [frame.place(x, y) for x, y in line.points]
    drawn = [tag("polyline", points=" ".join(f"{x},{y}" for x, y in places), class_=f"line {color}")]
    dots = [frame.place(x, y) for x, y in line.points if x == line.kept]
    return drawn + [tag("circle", cx=x, cy=y, r=3, class_=f"dot {color}") for x, y in dots]


def drawing_of(drawn: Sequence[Html], size: tuple[int, int], description: str, kind: str) -> Html:
    """Parts of a drawing as an element of the page."""
    return tag("svg", *drawn, viewBox=f"0 0 {size[0]} {size[1]}", role="img", aria_label=description, class_=kind)
