"""Small line charts as SVG inside the page: drawn in its colors, sharp at every size, light or dark."""

from collections.abc import Sequence
from dataclasses import dataclass

from jointsearch.report.page_html import Html, tag

# Lengths in units of the drawing, about a pixel.
LARGE, SMALL = (300, 140), (180, 84)
LEFT, RIGHT, TOP, BOTTOM = 48, 10, 8, 20
STRIP_WIDTH, STRIP_HEIGHT, STRIP_MARGIN = 150, 18, 8
COLORS = 8  # as many as the style sheet names


@dataclass(frozen=True)
class Line:
    """One curve: points in order, and the place of the one that was kept."""

    points: tuple[tuple[float, float], ...]
    color: int = 0
    kept: float | None = None


@dataclass(frozen=True)
class Frame:
    """From values to places in the drawing."""

    x: tuple[float, float]
    ticks: tuple[float, ...]
    size: tuple[int, int]

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a point lies."""
        across = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1)
        up = (y - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])
        width, height = self.size[0] - LEFT - RIGHT, self.size[1] - TOP - BOTTOM
        return round(LEFT + across * width, 1), round(TOP + (1 - up) * height, 1)


def line_chart(lines: Sequence[Line], description: str, highest: float | None = None, across: str = "epoch") -> Html:
    """Curves over epochs, or what `across` names; with `highest` a small chart from 0 to there, to compare."""
    points = [point for line in lines for point in line.points]
    places, up = [x for x, _ in points], [y for _, y in points]
    ticks, size = _ticks(min(up), max(up)), LARGE
    if highest is not None:
        bottom, *_, top = _ticks(0, highest)
        ticks, size = (bottom, top), SMALL
    frame = Frame((min(places), max(places)), ticks, size)
    width, height = size
    drawn = [part for tick in ticks for part in _grid(frame, tick)]
    drawn += [part for line in lines for part in _curve(frame, line)]
    for end, anchor in zip(frame.x, ("start", "end"), strict=True):
        left, _ = frame.place(end, ticks[0])
        drawn.append(tag("text", f"{end:g}", x=left, y=height - 5, text_anchor=anchor))
    drawn.append(tag("text", across, x=(LEFT + width - RIGHT) / 2, y=height - 5, text_anchor="middle"))
    return _drawing(drawn, size, description, "chart")


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
    return _drawing(drawn, (STRIP_WIDTH, STRIP_HEIGHT), description, "strip")


def _ticks(low: float, high: float) -> tuple[float, ...]:
    # Imported here: needed only where a picture is made.
    from matplotlib.ticker import MaxNLocator

    if low == high:
        low, high = (low - 1, high + 1) if low else (0.0, 1.0)
    return tuple(float(tick) for tick in MaxNLocator(3, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))


def _grid(frame: Frame, tick: float) -> tuple[Html, Html]:
    left, y = frame.place(frame.x[0], tick)
    label = tag("text", f"{tick:.6g}", x=LEFT - 6, y=y + 3.5, text_anchor="end")
    return tag("line", x1=left, x2=frame.size[0] - RIGHT, y1=y, y2=y, class_="grid"), label


def _curve(frame: Frame, line: Line) -> list[Html]:
    color = f"c{line.color % COLORS}"
    places = [frame.place(x, y) for x, y in line.points]
    drawn = [tag("polyline", points=" ".join(f"{x},{y}" for x, y in places), class_=f"line {color}")]
    dots = [frame.place(x, y) for x, y in line.points if x == line.kept]
    return drawn + [tag("circle", cx=x, cy=y, r=3, class_=f"dot {color}") for x, y in dots]


def _drawing(drawn: Sequence[Html], size: tuple[int, int], description: str, kind: str) -> Html:
    return tag("svg", *drawn, viewBox=f"0 0 {size[0]} {size[1]}", role="img", aria_label=description, class_=kind)
