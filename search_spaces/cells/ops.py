"""The candidate ops for an edge of a cell, from DARTS (Liu 2019) and NAS-Bench-201 (Dong & Yang 2020).

Every op keeps the channels. At stride 2 it halves height and width, rounded up: 7 becomes 4.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

# (channels, stride, affine) -> module. In a supernet `affine` is False: the candidates normalize without a scale, which
# would compete with the architecture weights.
CellOp = Callable[[int, int, bool], nn.Module]


class Zero(nn.Module):
    """The op `none`, an absent edge: its output is 0."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> zeros (B, C, H / stride, W / stride)."""
        return x[:, :, :: self.stride, :: self.stride].mul(0.0)


class FactorizedReduce(nn.Module):
    """Halves a map by two 1x1 convolutions of stride 2: one reads even rows and columns, the other odd ones."""

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
        # An odd side is padded with a line of zeros at its end. DARTS's code fails on odd sides.
        further = pad(active, (-1, width % 2, -1, height % 2))
        return self.norm(torch.cat([self.even(active), self.odd(further)], dim=1))


class DilatedConv2d(nn.Conv2d):
    """A convolution that stays in float32 on a CPU.

    In bfloat16, on a Xeon with AMX and torch 2.15, the weight gradient of a dilated depthwise convolution (batch 96,
    4 channels, 32x32) differed between runs of the same program: 3 outcomes in 8 runs.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, h, w)."""
        if x.device.type != "cpu":
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.to(self.weight.dtype))


def relu_conv_norm(in_channels: int, channels: int, kernel: int, stride: int, affine: bool) -> nn.Sequential:
    """ReLU, convolution, BatchNorm: the order of every convolution in a cell."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    )


def _depthwise_separable(channels: int, kernel: int, stride: int, dilation: int, affine: bool) -> list[nn.Module]:
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d if dilation == 1 else DilatedConv2d
    return [
        nn.ReLU(),
        convolution(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False),
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
        # In a supernet the other candidates are normalized, and a pooled map must have the same scale as theirs.
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
