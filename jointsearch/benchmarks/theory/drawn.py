"""The figures of docs/theory.md: charts of the report side by side, as an SVG file of its own."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jointsearch.report import page_charts
from jointsearch.report.page_charts import Line, line_chart, nice_ticks, tick_labels
from jointsearch.report.page_cost import Axis
from jointsearch.report.page_html import Html, tag

# Lengths in units of the drawing, about a pixel.
WIDTH, HEIGHT = page_charts.SIZE
MARGIN, GAP, TITLE, KEY = 12, 24, 24, 15
NAMES, ROW = 130, 15
# The lines of the report's style sheet that a chart needs, in its light colors.
STYLE = re.compile(r"^(svg|\.grid|\.line|\.dot|\.mean|\.c\d|\.rest|\.chance)[ .{].*$", re.MULTILINE)
PALETTE = re.compile(r"--(?:paper|ink|faint|grid|k\d): #\w+")


@dataclass(frozen=True)
class Panel:
    """Curves by name over one axis."""

    title: str
    curves: Mapping[str, Sequence[tuple[float, float]]]
    across: str

    @property
    def height(self) -> int:
        """With title and key."""
        return TITLE + HEIGHT + KEY * len(self.curves) + 4

    def drawn(self) -> list[Html]:
        """Title, chart and key."""
        lines = [Line(tuple(points), color) for color, points in enumerate(self.curves.values())]
        chart = line_chart(lines, self.title, across=self.across)
        parts = [tag("text", self.title, x=0, y=13, class_="title")]
        parts.append(tag("svg", chart, x=0, y=TITLE, width=WIDTH, height=HEIGHT))
        for place, name in enumerate(self.curves):
            y = TITLE + HEIGHT + KEY * (place + 1)
            parts.append(tag("circle", cx=page_charts.LEFT + 4, cy=y - 4, r=4, class_=f"dot c{place}"))
            parts.append(tag("text", name, x=page_charts.LEFT + 14, y=y))
        return parts


@dataclass(frozen=True)
class Rows:
    """Means with their intervals, a row each; one color for each group."""

    title: str
    groups: Mapping[str, Mapping[str, tuple[float, float]]]  # group -> row -> mean and half width
    across: str

    @property
    def height(self) -> int:
        """With title, axis and key."""
        return TITLE + ROW * len(next(iter(self.groups.values()))) + 24 + KEY * len(self.groups) + 4

    def drawn(self) -> list[Html]:
        """Title, rows, axis and key."""
        ends = [mean + side * half for rows in self.groups.values() for mean, half in rows.values() for side in (-1, 1)]
        ticks = nice_ticks(min(ends), max(ends))
        axis = Axis(ticks[0], ticks[-1], NAMES, WIDTH - page_charts.RIGHT)
        names = list(next(iter(self.groups.values())))
        bottom = TITLE + ROW * len(names)
        parts = [tag("text", self.title, x=0, y=13, class_="title")]
        for tick, label in zip(ticks, tick_labels(ticks), strict=True):
            x = axis.place(tick)
            parts.append(tag("line", x1=x, x2=x, y1=TITLE, y2=bottom, class_="chance" if tick == 0 else "grid"))
            parts.append(tag("text", label, x=x, y=bottom + 12, text_anchor="middle"))
        parts.append(tag("text", self.across, x=0, y=bottom + 12))
        for place, name in enumerate(names):
            y = TITLE + ROW * (place + 0.5)
            parts.append(tag("text", name, x=0, y=y + 3.5))
            for color, rows in enumerate(self.groups.values()):
                (mean, half), at = rows[name], y + 4 * (color - (len(self.groups) - 1) / 2)
                low, high = axis.place(mean - half), axis.place(mean + half)
                parts.append(tag("line", x1=low, x2=high, y1=at, y2=at, class_=f"line c{color}"))
                parts.append(tag("circle", cx=axis.place(mean), cy=at, r=2.5, class_=f"dot c{color}"))
        for color, name in enumerate(self.groups):
            y = bottom + 24 + KEY * (color + 0.5)
            parts.append(tag("circle", cx=4, cy=y - 4, r=4, class_=f"dot c{color}"))
            parts.append(tag("text", name, x=14, y=y))
        return parts


def figure(panels: Sequence[Panel | Rows], description: str) -> str:
    """Panels side by side, as the text of an SVG file."""
    width = 2 * MARGIN + len(panels) * (WIDTH + GAP) - GAP
    height = 2 * MARGIN + max(panel.height for panel in panels)
    parts = [tag("style", _style()), tag("rect", width=width, height=height, fill="var(--paper)")]
    for place, panel in enumerate(panels):
        left = MARGIN + place * (WIDTH + GAP)
        parts.append(tag("g", *panel.drawn(), transform=f"translate({left} {MARGIN})"))
    sizes = {"width": width, "height": height, "viewBox": f"0 0 {width} {height}"}
    return tag("svg", *parts, xmlns="http://www.w3.org/2000/svg", role="img", aria_label=description, **sizes) + "\n"


def _style() -> str:
    sheet = Path(page_charts.__file__).with_name("page.css").read_text(encoding="utf-8")
    palette = "; ".join(dict.fromkeys(PALETTE.findall(sheet.partition("@media")[0])))
    return "\n".join([f":root {{ {palette}; }}", *(found.group() for found in STYLE.finditer(sheet))])
