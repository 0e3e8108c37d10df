"""Derivation against a search through every pair of edges, ties included."""

import itertools

import pytest
import torch
from torch import Tensor

from search_spaces.cells.derive import derive, skips
from search_spaces.cells.space import CELL_SPACES, DARTS, SMALL, CellSpace
from search_spaces.errors import InputError
from search_spaces.genotype import Edge, Genotype, Nodes

NO_NONE = CellSpace(("nor_conv_3x3", "skip_connect"), nodes=3, name="without none")
NONE_LAST = CellSpace(("nor_conv_3x3", "skip_connect", "none"), nodes=3, name="none last")
SPACES = [*CELL_SPACES.values(), NO_NONE, NONE_LAST]


def weights(space: CellSpace, seed: int, levels: int | None) -> Tensor:
    """Weights after a softmax over all ops; few levels make ties, even of whole rows."""
    logits = torch.randn(len(space.edges), len(space.ops), generator=torch.Generator().manual_seed(seed))
    return (logits if levels is None else logits.mul(levels).round().div(levels)).softmax(1)


def by_brute_force(space: CellSpace, table: Tensor) -> Nodes:
    """Of all ordered pairs of edges with different sources, the one heaviest in its first, then in its second edge."""
    nodes = []
    for node in range(space.nodes):
        rows = [table[number] for number, (reader, _) in enumerate(space.edges) if reader == node]
        candidates = [
            (float(rows[source][place]), source, place, op)
            for source in range(node + 2)
            for place, op in enumerate(space.ops)
            if op != "none"
        ]
        pairs = [(a, b) for a, b in itertools.permutations(candidates, 2) if a[1] != b[1]]
        # Of equal weights the lowest source wins, then the lowest op.
        best = min(pairs, key=lambda pair: (-pair[0][0], pair[0][1:3], -pair[1][0], pair[1][1:3]))
        nodes.append(tuple(Edge(op, source) for _, source, _, op in best))
    return tuple(nodes)


@pytest.mark.parametrize("levels", [None, 4, 1], ids=["all different", "some ties", "many ties"])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_the_derived_genotype_is_the_one_brute_force_finds(space: CellSpace, seed: int, levels: int | None) -> None:
    normal, reduction = weights(space, seed, levels), weights(space, seed + 100, levels)
    expected = Genotype(by_brute_force(space, normal), by_brute_force(space, reduction))
    assert derive(space, normal, reduction) == expected


def test_when_all_is_equal_the_first_ops_and_sources_win() -> None:
    equal = torch.full((14, 8), 1 / 8)
    first = Edge("max_pool_3x3", 0), Edge("max_pool_3x3", 1)
    assert derive(DARTS, equal, equal) == Genotype((first,) * 4, (first,) * 4)


def test_none_takes_its_share_and_is_never_kept() -> None:
    # By logits the first edge is the heaviest; its softmax goes to none.
    logits = torch.zeros(5, 5)
    logits[2] = torch.tensor([9.0, 0.0, 0.0, 3.0, 0.0])
    logits[3] = torch.tensor([-9.0, 0.0, 0.0, 0.0, 1.0])
    logits[4] = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0])
    found = derive(SMALL, logits.softmax(1), torch.rand(5, 5)).normal[1]
    assert found == (Edge("avg_pool_3x3", 1), Edge("skip_connect", 2))


def test_the_heavier_edge_comes_first() -> None:
    table = torch.zeros(5, 5)
    table[0, 1], table[1, 2] = 0.1, 0.2
    assert derive(SMALL, table, table).normal[0] == (Edge("nor_conv_1x1", 1), Edge("skip_connect", 0))


def test_weights_are_left_alone_and_may_need_a_gradient() -> None:
    table = weights(SMALL, 0, None).to(torch.bfloat16).requires_grad_()
    before = table.detach().clone()
    derive(SMALL, table, table, name="mine")
    assert torch.equal(table, before)


@pytest.mark.parametrize(
    ("normal", "reduction", "said"),
    [
        (torch.rand(14, 8), torch.rand(5, 5), r"the normal cell are \(14, 8\), and the space small has \(5, 5\)"),
        (torch.rand(5, 5), torch.rand(5), r"the reduction cell are \(5,\)"),
        (torch.rand(5, 5), torch.full((5, 5), torch.nan), "the reduction cell hold NaN"),
    ],
)
def test_weights_that_cannot_be_are_refused_in_one_line(normal: Tensor, reduction: Tensor, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        derive(SMALL, normal, reduction)
    assert "; " in str(error.value)
    assert "\n" not in str(error.value)


def test_a_cap_takes_the_lightest_skips_of_the_normal_cell_only() -> None:
    space = CellSpace(("none", "skip_connect", "nor_conv_1x1"), nodes=2, name="two")
    # Edges of node 0: sources 0, 1; of node 1: 0, 1, 2. Skips everywhere, lightest on node 0's second edge.
    weights = torch.tensor([[0.1, 0.7, 0.2], [0.2, 0.5, 0.3], [0.1, 0.6, 0.3], [0.1, 0.8, 0.1], [0.9, 0.05, 0.05]])
    free = derive(space, weights, weights)
    assert [edge.op for node in free.normal for edge in node] == ["skip_connect"] * 4
    capped = derive(space, weights, weights, most_skips=2)
    # The skips of .5 and .6 are removed: those edges now have the weights of their convolutions, .3 each.
    assert capped.normal == (
        (Edge("skip_connect", 0), Edge("nor_conv_1x1", 1)),
        (Edge("skip_connect", 1), Edge("nor_conv_1x1", 0)),
    )
    assert capped.reduction == free.reduction
    assert skips(derive(space, weights, weights, most_skips=0).normal) == 0
    assert derive(space, weights, weights, most_skips=4) == free


def test_cells_that_can_only_skip_cannot_skip_less() -> None:
    space = CellSpace(("none", "skip_connect"), 1, "skips")
    weights = torch.full((2, 2), 0.5)
    with pytest.raises(InputError, match="whose only candidate is skip_connect; leave it out"):
        derive(space, weights, weights, most_skips=1)
