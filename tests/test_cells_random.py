"""Random cells are valid, depend on the seed only, and draw every choice with equal probability."""

from collections import Counter

import pytest

from search_spaces.cells.random import random_genotype
from search_spaces.cells.space import CELL_SPACES, CellSpace

SEEDS = range(600)
FOUR_DEVIATIONS = 4


@pytest.mark.parametrize("space", CELL_SPACES.values(), ids=CELL_SPACES)
def test_every_op_and_every_pair_of_sources_is_as_likely_as_every_other(space: CellSpace) -> None:
    genotypes = [random_genotype(space, seed) for seed in SEEDS]
    for cells in ([one.normal for one in genotypes], [one.reduction for one in genotypes]):
        ops = Counter(edge.op for nodes in cells for node in nodes for edge in node)
        last = Counter(frozenset(edge.source for edge in nodes[-1]) for nodes in cells)
        assert set(ops) == set(space.choices)
        for counts, kinds in ((ops, len(space.choices)), (last, (space.nodes + 1) * space.nodes // 2)):
            total = sum(counts.values())
            assert len(counts) == kinds
            deviation = (total / kinds * (1 - 1 / kinds)) ** 0.5
            assert all(abs(count - total / kinds) < FOUR_DEVIATIONS * deviation for count in counts.values())


def test_a_seed_always_draws_the_same_cells_and_another_seed_others() -> None:
    space = CELL_SPACES["darts"]
    assert random_genotype(space, 3) == random_genotype(space, 3)
    assert len({random_genotype(space, seed).to_darts() for seed in SEEDS}) == len(SEEDS)
    assert random_genotype(space, 3).normal != random_genotype(space, 3).reduction
