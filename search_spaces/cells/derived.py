"""Builds the network of a genotype, with fresh weights: one op on every edge, drop path, auxiliary head."""

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from search_spaces.cells.ops import CELL_OPS
from search_spaces.cells.skeleton import CellNetwork, Skeleton
from search_spaces.errors import InputError
from search_spaces.genotype import Genotype


class DropPath(nn.Module):
    """During training, sets an image's map to 0 with probability `rate`, and divides the others by 1 - rate."""

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same, some images 0 and the others divided by 1 - rate."""
        if not self.training or self.rate == 0:
            return x
        return x * dropout(x.new_ones(len(x), 1, 1, 1), self.rate)


class DerivedBody(nn.Module):
    """The nodes of one cell: each is the sum of its two edges."""

    def __init__(self, genotype: Genotype, channels: int, is_reduction: bool) -> None:
        super().__init__()
        self.nodes = genotype.reduction if is_reduction else genotype.normal
        self.edges = nn.ModuleList()
        for edge in (edge for node in self.nodes for edge in node):
            op = CELL_OPS[edge.op](channels, 2 if is_reduction and edge.source < 2 else 1, True)
            # As in DARTS, an identity edge is never dropped.
            self.edges.append(op if isinstance(op, nn.Identity) else nn.Sequential(op, DropPath()))

    def forward(self, before: Tensor, last: Tensor, mixture: None = None) -> Tensor:
        """Twice (B, channels, H, W) -> (B, nodes * channels, h, w)."""
        states = [before, last]
        edges = iter(self.edges)
        for first, second in self.nodes:
            states.append(next(edges)(states[first.source]) + next(edges)(states[second.source]))
        return torch.cat(states[2:], dim=1)


def derived_network(
    genotype: Genotype,
    skeleton: Skeleton,
    auxiliary: bool = False,
    drop_path_rate: float = 0.0,
    drop_rate: float = 0.0,
) -> CellNetwork:
    """The network of a genotype with fresh weights; `drop_rate` is the dropout before the classifier."""
    network = CellNetwork(
        skeleton,
        len(genotype.normal),
        lambda channels, is_reduction: DerivedBody(genotype, channels, is_reduction),
        auxiliary=auxiliary,
        drop_rate=drop_rate,
    )
    set_drop_path(network, drop_path_rate)
    return network


def set_drop_path(network: nn.Module, rate: float) -> None:
    """Set the rate of every DropPath; a training loop raises it linearly, as DARTS does."""
    if not 0 <= rate < 1:
        raise InputError(f"drop_path_rate={rate}; give a number from 0 up to, not including, 1")
    for module in network.modules():
        if isinstance(module, DropPath):
            module.rate = rate
