"""What may stand on an edge of a cell: the candidates of DARTS (Liu 2019) and of NAS-Bench-201 (Dong & Yang 2020).

Every op keeps the channels, and halves height and width at stride 2, odd ones upwards: 7 becomes 4.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

# (channels, stride, affine) -> module. `affine` is False in a supernet, whose candidates normalize without a scale of
# their own: a scale would compete with the architecture weights.
CellOp = Callable[[int, int, bool], nn.Module]


class Zero(nn.Module):
    """The edge that is not there."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> zeros (B, C, H / stride, W / stride)."""
        return x[:, :, :: self.stride, :: self.stride].mul(0.0)


class FactorizedReduce(nn.Module):
    """Halves a map by two 1x1 convolutions of stride 2, the second a pixel further, so that all four corners count."""

    def __init__(self, in_channels: int, channels: int, affine: bool) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.even = nn.Conv2d(in_channels, channels // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(in_channels, channels - channels // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(channels, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, channels, H / 2, W / 2)."""
        active = self.relu(x)
        height, width = x.shape[2:]
        # An odd side gets a line of zeros behind it; DARTS, which knows even sides only, stops there.
        further = pad(active, (-1, width % 2, -1, height % 2))
        return self.norm(torch.cat([self.even(active), self.odd(further)], dim=1))


def relu_conv_norm(in_channels: int, channels: int, kernel: int, stride: int, affine: bool) -> nn.Sequential:
    """ReLU, convolution, BatchNorm: the order of every convolution in a cell."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    )


def _depthwise_separable(channels: int, kernel: int, stride: int, dilation: int, affine: bool) -> list[nn.Module]:
    padding = dilation * (kernel // 2)
    return [
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    ]


def _separable(kernel: int) -> CellOp:
    def build(channels: int, stride: int, affine: bool) -> nn.Module:
        first = _depthwise_separable(channels, kernel, stride, 1, affine)
        return nn.Sequential(*first, *_depthwise_separable(channels, kernel, 1, 1, affine))

    return build


def _dilated(kernel: int) -> CellOp:
    return lambda channels, stride, affine: nn.Sequential(*_depthwise_separable(channels, kernel, stride, 2, affine))


def _convolution(kernel: int) -> CellOp:
    return lambda channels, stride, affine: relu_conv_norm(channels, channels, kernel, stride, affine)


def _pooling(pool: Callable[[int], nn.Module]) -> CellOp:
    def build(channels: int, stride: int, affine: bool) -> nn.Module:
        # In a supernet the other candidates are normalized; a pooled map next to them must have their size.
        return pool(stride) if affine else nn.Sequential(pool(stride), nn.BatchNorm2d(channels, affine=False))

    return build


def _skip(channels: int, stride: int, affine: bool) -> nn.Module:
    return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine)


CELL_OPS: dict[str, CellOp] = {
    "none": lambda channels, stride, affine: Zero(stride),
    "max_pool_3x3": _pooling(lambda stride: nn.MaxPool2d(3, stride, padding=1)),
    "avg_pool_3x3": _pooling(lambda stride: nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)),
    "skip_connect": _skip,
    "sep_conv_3x3": _separable(3),
    "sep_conv_5x5": _separable(5),
    "dil_conv_3x3": _dilated(3),
    "dil_conv_5x5": _dilated(5),
    "nor_conv_1x1": _convolution(1),
    "nor_conv_3x3": _convolution(3),
}
