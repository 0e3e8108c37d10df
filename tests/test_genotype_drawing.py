"""The drawing of a genotype names every op once, and no two things in it lie on each other."""

import itertools
from collections import Counter
from pathlib import Path

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Circle, FancyBboxPatch
from PIL import Image

from jointsearch.report.genotype_drawing import COLORS, genotype_drawing, write_genotype_drawing
from search_spaces.cells.derive import derive
from search_spaces.cells.ops import CELL_OPS
from search_spaces.cells.space import CELL_SPACES, CellSpace
from search_spaces.errors import InputError
from search_spaces.genotype import PUBLISHED, Genotype

LARGE = CellSpace(tuple(CELL_OPS), nodes=7, name="large")
RANDOM = [
    derive(space, *torch.rand(2, len(space.edges), len(space.ops)), name=space.name)
    for space in (*CELL_SPACES.values(), LARGE, CellSpace(("skip_connect",), nodes=1, name="one"))
]


@pytest.mark.parametrize("genotype", [*PUBLISHED.values(), *RANDOM], ids=lambda genotype: genotype.name)
def test_every_op_is_named_and_nothing_lies_on_anything_else(genotype: Genotype) -> None:
    figure = genotype_drawing(genotype)
    (axes,) = figure.axes
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = {text: text.get_window_extent(renderer) for text in axes.texts}
    shapes = [shape for shape in axes.patches if isinstance(shape, FancyBboxPatch | Circle)]
    ops = Counter(edge.op for nodes in genotype.cells.values() for node in nodes for edge in node)
    written = Counter(text.get_text() for text in texts)
    assert {op: written[op] for op in ops} == ops
    assert sum(ops.values()) == sum(isinstance(shape, FancyBboxPatch) for shape in shapes)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(texts.values(), 2))
    boxes = [shape.get_window_extent(renderer) for shape in shapes]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    paper = figure.bbox
    for text, extent in texts.items():
        assert paper.contains(extent.x0, extent.y0)
        assert paper.contains(extent.x1, extent.y1)
        around = [box for box in boxes if box.overlaps(extent)]
        assert len(around) <= 1, text
        assert all(box.x0 < extent.x0 and extent.x1 < box.x1 for box in around), text


def test_every_op_has_a_color() -> None:
    assert {op.partition("_")[0] for op in CELL_OPS} - {"none"} == set(COLORS)


def test_the_picture_is_a_png_in_a_folder_that_exists(tmp_path: Path) -> None:
    known = PUBLISHED["DARTS_V2"]
    named = Genotype(known.normal, known.reduction, r"cost: $\frac$ " + "n" * 100)
    write_genotype_drawing(named, tmp_path / "genotype.png")
    with Image.open(tmp_path / "genotype.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 2 * picture.height
    for path in (tmp_path / "genotype.svg", tmp_path / "nowhere" / "genotype.png"):
        with pytest.raises(InputError, match=r"give a name that ends in \.png"):
            write_genotype_drawing(known, path)
