"""The body of a supernet's cell: every node is the weighted sum of all candidates on all its incoming edges."""

from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import channel_shuffle, max_pool2d

from jointsearch.soft.candidates import Candidate, Source
from jointsearch.soft.separable import as_channels_last, from_phases
from search_spaces.cells.derived import DropPath
from search_spaces.cells.ops import CELL_OPS
from search_spaces.cells.space import NO_EDGE, CellSpace

SKIP = "skip_connect"


@dataclass(frozen=True, eq=False)
class Mixture:
    """The weights of candidates and edges in one forward pass, for all cells of one kind."""

    ops: Tensor  # (E, O) the weight of each candidate
    edges: Tensor | None = None  # (E,) a factor for all candidates of each edge; None: 1
    chosen: tuple[int, ...] | None = None  # the only candidate to compute on each edge; None: all
    skip: Tensor | None = None  # () the weight of every edge's auxiliary skip

    @cached_property
    def weights(self) -> list[tuple[Tensor, ...]]:
        """E rows of O scalars, split once for all cells."""
        weights = self.ops if self.edges is None else self.ops * self.edges.unsqueeze(1)
        return [row.unbind() for row in weights.unbind()]

    @cached_property
    def past(self) -> tuple[Tensor, ...]:
        """E scalars: the weight of each edge's channels that bypass the candidates."""
        return (torch.ones_like(self.ops[:, 0]) if self.edges is None else self.edges).unbind()


class NodeSum:
    """The sum of the inputs of a node, some of them in phases; it has the shape of `like`."""

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._whole: Tensor | None = None
        self._phases: Tensor | None = None

    def add(self, part: Tensor, are_phases: bool = False) -> None:
        """Add a part (B, C, h, w), or the phases (4B, C, h / 2, w / 2) of one."""
        if are_phases:
            self._phases = part if self._phases is None else self._phases + part
        else:
            self._whole = part if self._whole is None else self._whole + part

    def add_weighted(self, part: Tensor, weight: Tensor) -> None:
        """Add weight * part."""
        self._whole = part * weight if self._whole is None else torch.addcmul(self._whole, part, weight)

    def total(self) -> Tensor:
        """The sum (B, C, h, w), or zeros without any input."""
        if self._phases is not None:
            self.add(from_phases(self._phases))
            self._phases = None
        return torch.zeros_like(self._like) if self._whole is None else self._whole


class MixedEdge(nn.Module):
    """The candidates of one edge that have weights, and its auxiliary skip if that has weights."""

    def __init__(self, space: CellSpace, channels: int, stride: int, auxiliary_skip: bool) -> None:
        super().__init__()
        self.ops = space.ops
        self.candidates = nn.ModuleDict()
        for op in space.ops:
            module = CELL_OPS[op](channels, stride, False)
            if _has_weights(module):
                self.candidates[op] = Candidate(module, channels)
        self.drop_path = DropPath()
        self.auxiliary: Candidate | None = None
        if auxiliary_skip and stride == 2:
            self.auxiliary = Candidate(CELL_OPS[SKIP](channels, stride, False), channels)

    def forward(self, node: NodeSum, source: Source, row: int, mixture: Mixture) -> None:
        """Add the output of this edge to its node; `row` is the edge's row in the mixture."""
        for place, op in enumerate(self.ops):
            if op != NO_EDGE and (mixture.chosen is None or mixture.chosen[row] == place):
                self._add_candidate(node, source, op, mixture.weights[row][place])
        if mixture.skip is None:
            return
        if self.auxiliary is None:
            node.add_weighted(source.x, mixture.skip)
        else:
            node.add(self.auxiliary(source.active, mixture.skip))

    def _add_candidate(self, node: NodeSum, source: Source, op: str, weight: Tensor) -> None:
        if op not in self.candidates:
            part = source.common(op)
            # As in a derived network, an identity is never dropped.
            node.add_weighted(part if part is source.x else self._dropped(part), weight)
            return
        candidate = self.candidates[op]
        phases = source.phases if candidate.takes_phases else None
        if phases is None:
            node.add(self._dropped(candidate(source.active, weight)))
        else:
            node.add(self._dropped(candidate(phases, weight, are_phases=True), copies=4), are_phases=True)

    def _dropped(self, part: Tensor, copies: int = 1) -> Tensor:
        if not self.training or self.drop_path.rate == 0:
            return part
        kept = self.drop_path(part.new_ones(len(part) // copies, 1, 1, 1))  # (B, 1, 1, 1)
        return part * kept.repeat(copies, 1, 1, 1)


class MixedBody(nn.Module):
    """The nodes of one cell of a supernet.

    One in `share` channels goes through the candidates. The others bypass them, weighted by the edge, and the node
    shuffles all channels (Xu et al. 2020, PC-DARTS).
    """

    def __init__(
        self, space: CellSpace, channels: int, is_reduction: bool, share: int = 1, auxiliary_skip: bool = False
    ) -> None:
        super().__init__()
        self.is_reduction, self.share, self.mixed = is_reduction, share, channels // share
        edges = [MixedEdge(space, self.mixed, self._stride(source), auxiliary_skip) for _, source in space.edges]
        self.edges = nn.ModuleList(edges)
        self.rows = [[row for row, edge in enumerate(space.edges) if edge[0] == node] for node in range(space.nodes)]
        # A candidate without weights has the same output on all edges that leave a source.
        self.common = nn.ModuleList()
        for source in range(space.nodes + 1):
            self.common.append(_without_weights(space, self.mixed, self._stride(source)))

    def forward(self, before: Tensor, last: Tensor, mixture: Mixture) -> Tensor:
        """Twice (B, channels, H, W) -> (B, nodes * channels, h, w)."""
        states, sources, past = [before, last], list[Source](), list[Tensor]()
        for rows in self.rows:
            for place in range(len(sources), len(states)):
                mixed, passing = self._divided(states[place], place)
                sources.append(Source(mixed, cast(nn.ModuleDict, self.common[place])))
                past.append(passing)
            states.append(_with_dense_gradient(self._node(sources, past, rows, mixture)))
        return torch.cat(states[2:], dim=1)

    def _divided(self, state: Tensor, place: int) -> tuple[Tensor, Tensor]:
        """The channels for the candidates, and the bypassing channels at the size of the node."""
        if self.share == 1:
            return state, state[:, :0]
        past = state[:, self.mixed :]
        if self._stride(place) == 2:
            past = max_pool2d(past, 2, ceil_mode=True)
        return as_channels_last(state[:, : self.mixed]), past

    def _node(self, sources: list[Source], past: list[Tensor], rows: list[int], mixture: Mixture) -> Tensor:
        stride = self._stride(0)
        node, others = NodeSum(sources[0].x[:, :, ::stride, ::stride]), NodeSum(past[0])
        for row, source, passing in zip(rows, sources, past, strict=True):
            self.edges[row](node, source, row, mixture)
            if self.share > 1:
                others.add_weighted(passing, mixture.past[row])
        if self.share == 1:
            return node.total()
        return channel_shuffle(torch.cat([node.total(), others.total()], dim=1), self.share)

    def _stride(self, source: int) -> int:
        return 2 if self.is_reduction and source < 2 else 1


def _with_dense_gradient(state: Tensor) -> Tensor:
    """The same state. Its gradient is a slice of a larger one; it is copied once, not by every candidate."""
    if state.requires_grad:
        state.register_hook(as_channels_last)
    return state


def _without_weights(space: CellSpace, channels: int, stride: int) -> nn.ModuleDict:
    built = {op: CELL_OPS[op](channels, stride, False) for op in space.ops if op != NO_EDGE}
    return nn.ModuleDict({op: module for op, module in built.items() if not _has_weights(module)})


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None
