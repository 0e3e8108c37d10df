"""The candidate ops on the edges of a supernet, without repeated computation.

Results that depend on the source of an edge alone (its ReLU, its pooled maps and their normalization) are computed once
for all edges that leave it. The weight of a candidate with convolutions is the scale of its last BatchNorm.
"""

from functools import cached_property
from typing import cast

from torch import Tensor, nn
from torch.nn.functional import batch_norm, relu

from jointsearch.soft.separable import Separable, to_phases
from search_spaces.cells.ops import FactorizedReduce


class ScaledNorm(nn.BatchNorm2d):
    """A BatchNorm with one number as its scale, an argument: weighting its output thus costs no extra pass."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=False)

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:  # type: ignore[override]
        """(B, C, H, W) -> the same, normalized, times the scalar `scale`."""
        if self.training:
            cast(Tensor, self.num_batches_tracked).add_(1)
        # Repeated, because backward on a CPU misreads an expanded scale without an error (torch 2.15).
        scales = scale.repeat(self.num_features)  # (C,)
        momentum = cast(float, self.momentum)
        return batch_norm(x, self.running_mean, self.running_var, scales, None, self.training, momentum, self.eps)


class Candidate(nn.Module):
    """A candidate with weights on one edge. The source runs its first ReLU; its last BatchNorm takes a scale."""

    def __init__(self, op: nn.Module, channels: int) -> None:
        super().__init__()
        self.first, *others = _without_ends(op)
        self.others = nn.Sequential(*others)
        self.norm = ScaledNorm(channels)
        self.takes_phases = isinstance(self.first, Separable) and self.first.takes_phases

    def forward(self, active: Tensor, scale: Tensor, are_phases: bool = False) -> Tensor:
        """The source after its ReLU (B, C, H, W), or its phases -> the output (B, C, h, w), or its phases."""
        first = self.first(active, are_phases=True) if are_phases else self.first(active)
        return self.norm(self.others(first), scale)


class Source:
    """A state of a cell, and the results that its outgoing edges share, each computed on first use."""

    def __init__(self, x: Tensor, common: nn.ModuleDict) -> None:
        self.x, self._common = x, common
        self._outputs: dict[str, Tensor] = {}

    @cached_property
    def active(self) -> Tensor:
        """The state after the ReLU that starts every candidate with weights, (B, C, H, W)."""
        return relu(self.x)

    @cached_property
    def phases(self) -> Tensor | None:
        """`active` split into phases for dilated convolutions, (4B, C, H / 2, W / 2); None if a side is odd."""
        return to_phases(self.active)

    def common(self, op: str) -> Tensor:
        """The output (B, C, h, w) of a candidate without weights."""
        if op not in self._outputs:
            self._outputs[op] = self._common[op](self.x)
        return self._outputs[op]


def _without_ends(op: nn.Module) -> list[nn.Module]:
    """The layers of a candidate between its first ReLU and its last BatchNorm."""
    if isinstance(op, FactorizedReduce):
        op.relu, op.norm = nn.Identity(), nn.Identity()  # type: ignore[assignment]
        return [op]
    if not (isinstance(op, nn.Sequential) and isinstance(op[0], nn.ReLU) and isinstance(op[-1], nn.BatchNorm2d)):
        raise TypeError(
            f"{op} does not go from a ReLU to a BatchNorm, as every candidate with weights of CELL_OPS must"
        )
    layers: list[nn.Module] = []
    for layer in op[1:-1]:
        before = layers[-1] if layers else None
        if isinstance(before, nn.Conv2d) and before.groups > 1 and isinstance(layer, nn.Conv2d):
            layers[-1] = Separable(before, layer)
        else:
            layers.append(nn.ReLU(inplace=True) if isinstance(layer, nn.ReLU) else layer)
    return layers
