"""The control of every search of cells: a genotype drawn blindly."""

import random

from search_spaces.cells.space import CellSpace
from search_spaces.genotype import Edge, Genotype, Nodes


def random_genotype(space: CellSpace, seed: int) -> Genotype:
    """Two different sources for every node and any op but none for each, all equally likely; the seed decides."""
    # A generator of its own for each seed; torch's would give other cells on other versions of torch.
    drawn = random.Random(seed)

    def cell() -> Nodes:
        sources = [drawn.sample(range(node + 2), 2) for node in range(space.nodes)]
        edges = [[Edge(drawn.choice(space.choices), source) for source in pair] for pair in sources]
        return tuple((first, second) for first, second in edges)

    return Genotype(cell(), cell(), name=f"random-s{seed}")
