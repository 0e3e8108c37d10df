"""A genotype as one picture: every map is a line to the right, an op stands where a node taps the line of its source.

Lines and ops each have a place of their own, so nothing overlaps, whatever the genotype; a layout by graph could not
promise that.
"""

from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from search_spaces.errors import InputError
from search_spaces.genotype import Genotype, Nodes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Lengths in pixels of the picture; a font's 0.72 points are one of them. Saved at twice that, for sharp letters.
MARGIN, HEADER, LANE, COLUMN, LABEL, END, MIN_PANEL = 28, 112, 64, 158, 44, 78, 340
OP_WIDTH, OP_HEIGHT, OP_DROP, RADIUS, BEND = 102, 24, 32, 14, 12
DOTS, POINTS, SHARPNESS = 100, 0.72, 2
INK, FAINT, LINE, PAPER = "#1c1c1c", "#8c8c8c", "#6b7280", "#ffffff"
INPUTS = ("$c_{k-2}$", "$c_{k-1}$")
MAX_NAME = 60

# Fill and edge by the kind of op; they stay apart for color-blind readers, and in gray by their words.
COLORS = {
    "sep": ("#dbe9f8", "#3b78b8"),
    "dil": ("#d9f0e8", "#2a8a6b"),
    "nor": ("#e6e0f5", "#6b53ab"),
    "max": ("#fdeacb", "#b97a12"),
    "avg": ("#fdeacb", "#b97a12"),
    "skip": ("#eeeeee", "#777777"),
}


def genotype_drawing(genotype: Genotype) -> "Figure":
    """The normal and the reduction cell beside each other."""
    # Imported here: needed only where a picture is made. Figure keeps no global state, unlike pyplot.
    from matplotlib.figure import Figure

    nodes = len(genotype.normal)
    panel = max(MIN_PANEL, LABEL + nodes * COLUMN + END)
    width, height = 3 * MARGIN + 2 * panel, HEADER + (nodes + 1) * LANE + 2 * MARGIN
    figure = Figure(figsize=(width / DOTS, height / DOTS), dpi=DOTS)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    name = genotype.name if len(genotype.name) <= MAX_NAME else genotype.name[:MAX_NAME] + "..."
    _write(axes, MARGIN, 32, name, fontsize=19 * POINTS, weight="bold", ha="left")
    titles = ("normal cell", f"reduction cell: ops on {INPUTS[0]} and {INPUTS[1]} have stride 2")
    for left, title, drawn in zip((MARGIN, 2 * MARGIN + panel), titles, genotype.cells.values(), strict=True):
        _write(axes, left, 66, title, math=True, color=FAINT, ha="left")
        _draw_cell(axes, left, drawn)
    return figure


def write_genotype_drawing(genotype: Genotype, path: FilePath | str) -> None:
    """Write the drawing as a PNG file."""
    path = FilePath(path)
    if path.suffix.lower() != ".png" or path.is_dir() or not path.parent.is_dir():
        raise InputError(f"picture {path} cannot be written; give a name that ends in .png, in a folder that exists")
    genotype_drawing(genotype).savefig(path, dpi=SHARPNESS * DOTS)


def _draw_cell(axes: "Axes", left: float, nodes: Nodes) -> None:
    output = left + LABEL + len(nodes) * COLUMN + 30
    last_read = {edge.source: number for number, node in enumerate(nodes) for edge in node}
    for source, label in enumerate(INPUTS):
        _write(axes, left, _lane(source), label, math=True, fontsize=15 * POINTS, ha="left")
        _stroke(axes, [(left + LABEL - 6, _lane(source)), (_tap(left, last_read[source]), _lane(source))])
    for number in range(len(nodes)):
        _stroke(axes, [(_trunk(left, number), _lane(number + 2)), (output, _lane(number + 2))])
    top, bottom = _lane(2) - RADIUS, _lane(len(nodes) + 1) + RADIUS
    _stroke(axes, [(output, top), (output, bottom)], linewidth=4, color=INK)
    _write(axes, output + 15, (top + bottom) / 2, "output", rotation=90)
    for number, node in enumerate(nodes):
        for edge in node:
            _draw_edge(axes, left, number, edge.source, edge.op)
        _draw_node(axes, _trunk(left, number), _lane(number + 2), str(number))


def _lane(source: int) -> float:
    return HEADER + source * LANE


def _op_left(left: float, number: int) -> float:
    return left + LABEL + number * COLUMN + 24


def _tap(left: float, number: int) -> float:
    return _op_left(left, number) - 22


def _trunk(left: float, number: int) -> float:
    return _op_left(left, number) + OP_WIDTH + 16


def _draw_edge(axes: "Axes", left: float, number: int, source: int, op: str) -> None:
    """From the source's line through the op into the trunk, which falls into the node."""
    from matplotlib.patches import FancyBboxPatch

    x, y = _op_left(left, number), _lane(source) + OP_DROP
    _stroke(axes, [(_tap(left, number), _lane(source)), (x - 11, _lane(source)), (x - 11, y), (x, y)], bend="S")
    trunk, node = _trunk(left, number), _lane(number + 2)
    _stroke(axes, [(x + OP_WIDTH, y), (trunk, y), (trunk, node)], halo=True, bend="L")
    fill, edge = COLORS[op.partition("_")[0]]
    box = FancyBboxPatch(
        (x, y - OP_HEIGHT / 2),
        OP_WIDTH,
        OP_HEIGHT,
        boxstyle=f"round,pad=0,rounding_size={OP_HEIGHT / 2}",
        facecolor=fill,
        edgecolor=edge,
        linewidth=1,
        zorder=4,
    )
    axes.add_patch(box)
    _write(axes, x + OP_WIDTH / 2, y, op, fontsize=12.5 * POINTS)


def _draw_node(axes: "Axes", x: float, y: float, label: str) -> None:
    from matplotlib.patches import Circle

    axes.add_patch(Circle((x, y), RADIUS, facecolor=INK, edgecolor=PAPER, linewidth=2, zorder=4))
    _write(axes, x, y, label, color=PAPER, weight="bold")


def _stroke(axes: "Axes", points: list[tuple[float, float]], halo: bool = False, bend: str = "", **style: Any) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    if bend == "S":
        path = Path(points, [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4])
    elif bend == "L":
        start, corner, end = points
        rounded = [start, (corner[0] - BEND, corner[1]), corner, (corner[0], corner[1] + BEND), end]
        path = Path(rounded, [Path.MOVETO, Path.LINETO, Path.CURVE3, Path.CURVE3, Path.LINETO])
    else:
        path = Path(points)
    style = {"color": LINE, "linewidth": 1.5, "fill": False, "capstyle": "round", "zorder": 1, **style}
    if halo:
        # A gap in the lines that a trunk crosses: they do not meet.
        axes.add_patch(PathPatch(path, **{**style, "color": PAPER, "linewidth": 7, "capstyle": "butt", "zorder": 2}))
        style["zorder"] = 3
    axes.add_patch(PathPatch(path, **style))


def _write(axes: "Axes", x: float, y: float, text: str, math: bool = False, **style: Any) -> None:
    style = {"color": INK, "fontsize": 13 * POINTS, "va": "center_baseline", "ha": "center", "zorder": 5, **style}
    # Names come out of files: `$` would start a formula.
    axes.text(x, y, text if math else text.replace("$", r"\$"), **style)
