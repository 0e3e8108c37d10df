"""Spaces of cells: the candidate ops of every edge, and the number of inner nodes."""

import math
from dataclasses import dataclass

from search_spaces.cells.ops import CELL_OPS
from search_spaces.errors import InputError, nearest
from search_spaces.plain_json import shown

MAX_NODES = 16
NO_EDGE = "none"


@dataclass(frozen=True)
class CellSpace:
    """Every inner node may read the two previous cells (sources 0 and 1) and all earlier nodes (2, 3, ...)."""

    ops: tuple[str, ...]
    nodes: int
    name: str

    def __post_init__(self) -> None:
        for op in self.ops:
            if op not in CELL_OPS:
                raise InputError(f"cell space {self.name}: op is {shown(op)}; {nearest(op, CELL_OPS)}")
        if len(set(self.ops)) < len(self.ops) or not self.choices:
            raise InputError(
                f"cell space {self.name}: ops are {', '.join(self.ops) or 'missing'}; "
                f"name each once, and at least one besides {NO_EDGE}"
            )
        check_nodes(self.nodes, f"cell space {self.name}: nodes")

    @property
    def choices(self) -> tuple[str, ...]:
        """The ops that a finished cell may hold: all but none."""
        return tuple(op for op in self.ops if op != NO_EDGE)

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """(node, source) of every edge, in the order of the rows of the architecture weights; nodes count from 0."""
        return tuple((node, source) for node in range(self.nodes) for source in range(node + 2))

    @property
    def size(self) -> int:
        """The number of genotypes: two different sources with an op each, for every node of both cells."""
        return math.prod(math.comb(node + 2, 2) * len(self.choices) ** 2 for node in range(self.nodes)) ** 2


def check_nodes(nodes: int, what: str) -> None:
    """Refuse an invalid number of inner nodes."""
    if isinstance(nodes, bool) or not isinstance(nodes, int) or not 1 <= nodes <= MAX_NODES:
        raise InputError(f"{what} is {shown(nodes)}; wanted a whole number from 1 to {MAX_NODES}, DARTS has 4")


DARTS = CellSpace(
    (
        "none",
        "max_pool_3x3",
        "avg_pool_3x3",
        "skip_connect",
        "sep_conv_3x3",
        "sep_conv_5x5",
        "dil_conv_3x3",
        "dil_conv_5x5",
    ),
    nodes=4,
    name="darts",
)
# For a CPU: the ops of NAS-Bench-201 in its order, in cells of DARTS's form with half the nodes.
SMALL = CellSpace(("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"), nodes=2, name="small")

CELL_SPACES = {space.name: space for space in (DARTS, SMALL)}
