"""The supernet as DARTS defines it, one module for each candidate of each edge: what ours has to equal, and to beat."""

from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.cells.ops import CELL_OPS
from search_spaces.cells.skeleton import CellNetwork, Skeleton
from search_spaces.cells.space import DARTS, CellSpace

START_SPREAD = 1e-3


class PlainBody(nn.Module):
    """All candidates of all edges as modules of their own; the mixture is the weights (E, O)."""

    def __init__(self, space: CellSpace, channels: int, is_reduction: bool) -> None:
        super().__init__()
        self.space = space
        self.edges = nn.ModuleList()
        for _, source in space.edges:
            stride = 2 if is_reduction and source < 2 else 1
            self.edges.append(nn.ModuleList(CELL_OPS[op](channels, stride, False) for op in space.ops))

    def forward(self, before: Tensor, last: Tensor, weights: Tensor) -> Tensor:
        """Twice (B, channels, H, W) -> (B, nodes * channels, h, w)."""
        states = [before, last]
        for node in range(self.space.nodes):
            rows = [row for row, (reader, _) in enumerate(self.space.edges) if reader == node]
            parts = [self._mixed(row, states[self.space.edges[row][1]], weights[row]) for row in rows]
            states.append(sum(parts[1:], start=parts[0]))
        return torch.cat(states[2:], dim=1)

    def _mixed(self, row: int, x: Tensor, weights: Tensor) -> Tensor:
        candidates: Any = self.edges[row]
        parts = [weight * candidate(x) for candidate, weight in zip(candidates, weights, strict=True)]
        return sum(parts[1:], start=parts[0])


class PlainSuperNet(nn.Module):
    """The released search network: its logits get a gradient in every step, also in those that train the weights."""

    def __init__(self, skeleton: Skeleton, space: CellSpace = DARTS) -> None:
        super().__init__()
        self.network = CellNetwork(
            skeleton, space.nodes, lambda channels, reduces: PlainBody(space, channels, reduces), affine=False
        )
        shape = (2, len(space.edges), len(space.ops))
        self.logits = nn.Parameter(START_SPREAD * torch.randn(shape))

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, in_chans, H, W) -> logits (B, num_classes)."""
        return self.network(images.contiguous(), tuple(self.logits.softmax(-1)))
