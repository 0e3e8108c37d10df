"""Derives a genotype from architecture weights, by the rule of DARTS and a fixed rule for ties."""

from collections.abc import Sequence

from torch import Tensor

from search_spaces.cells.space import NO_EDGE, CellSpace
from search_spaces.errors import InputError
from search_spaces.genotype import Edge, Genotype, Nodes

SKIP = "skip_connect"


def derive(
    space: CellSpace,
    weights_normal: Tensor,
    weights_reduction: Tensor,
    name: str = "derived",
    most_skips: int | None = None,
) -> Genotype:
    """The genotype of weights (E, O), a softmax over all ops of an edge, with `none`, which is never kept.

    An edge keeps its heaviest op. A node keeps its two heaviest edges, the heavier first. Ties go to the first in the
    space. While a normal cell has more than `most_skips` skip connections, the lightest is removed and the cell is
    derived again.
    """
    normal = _nodes(space, weights_normal, "normal")
    if most_skips is not None and space.choices == (SKIP,):
        raise InputError(
            f"most_skips={most_skips} is impossible for cells whose only candidate is {SKIP}; leave it out"
        )
    while most_skips is not None and skips(normal) > most_skips:
        weights_normal = _without_lightest_skip(space, weights_normal, normal)
        normal = _nodes(space, weights_normal, "normal")
    return Genotype(normal, _nodes(space, weights_reduction, "reduction"), name)


def skips(nodes: Nodes) -> int:
    """The number of skip connections of a cell."""
    return sum(edge.op == SKIP for node in nodes for edge in node)


def _without_lightest_skip(space: CellSpace, weights: Tensor, nodes: Nodes) -> Tensor:
    # As in P-DARTS (Chen et al. 2019): without the weight of its skip, the edge takes another op.
    place = space.ops.index(SKIP)
    kept = {(node, edge.source) for node, edges in enumerate(nodes) for edge in edges if edge.op == SKIP}
    rows = [row for row, edge in enumerate(space.edges) if edge in kept]
    lightest = min(rows, key=lambda row: float(weights[row, place]))
    changed = weights.clone()
    changed[lightest, place] = -1.0  # below every softmaxed weight
    return changed


def _nodes(space: CellSpace, weights: Tensor, kind: str) -> tuple[tuple[Edge, Edge], ...]:
    shape = (len(space.edges), len(space.ops))
    if weights.shape != shape:
        raise InputError(
            f"the weights of the {kind} cell are {tuple(weights.shape)}, and the space {space.name} has {shape} "
            "(edges, ops); give the space they were searched in"
        )
    if not weights.isfinite().all():
        raise InputError(f"the weights of the {kind} cell hold NaN or infinity; lower the learning rate of the search")
    rows = weights.tolist()
    return tuple(_two_heaviest(space, rows, node) for node in range(space.nodes))


def _two_heaviest(space: CellSpace, rows: Sequence[Sequence[float]], node: int) -> tuple[Edge, Edge]:
    # Of equal weights, max returns the first, and sorted keeps the order.
    kept = [place for place, op in enumerate(space.ops) if op != NO_EDGE]
    found = []
    for (reader, source), row in zip(space.edges, rows, strict=True):
        if reader == node:
            best = max(kept, key=row.__getitem__)
            found.append((row[best], Edge(space.ops[best], source)))
    first, second, *_ = sorted(found, key=lambda entry: entry[0], reverse=True)
    return first[1], second[1]
