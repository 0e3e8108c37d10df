"""A random genotype: the control of every cell search."""

import random

from search_spaces.cells.space import CellSpace
from search_spaces.genotype import Edge, Genotype, Nodes


def random_genotype(space: CellSpace, seed: int) -> Genotype:
    """Draw two different sources for every node, and for each any op but none, all equally likely."""
    # Not torch's generator: it could give other cells under other versions of torch.
    drawn = random.Random(seed)

    def cell() -> Nodes:
        sources = [drawn.sample(range(node + 2), 2) for node in range(space.nodes)]
        edges = [[Edge(drawn.choice(space.choices), source) for source in pair] for pair in sources]
        return tuple((first, second) for first, second in edges)

    return Genotype(cell(), cell(), name=f"random-s{seed}")
