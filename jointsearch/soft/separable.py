"""Separable convolutions by the fastest CPU kernels. A supernet spends most of its time and memory in them."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, pad

# The widest depthwise kernel whose weight gradient oneDNN 3 vectorizes; a wider one is computed as if it were dense.
STRIP = 3


class Separable(nn.Module):
    """A depthwise convolution followed by a pointwise one."""

    def __init__(self, depthwise: nn.Conv2d, pointwise: nn.Conv2d) -> None:
        super().__init__()
        self.depthwise, self.pointwise = depthwise, pointwise
        self.stride, self.dilation = depthwise.stride[0], depthwise.dilation[0]

    @property
    def takes_phases(self) -> bool:
        """Whether an undilated convolution of the phases of x replaces this convolution of x."""
        return self.stride == 1 and self.dilation == 2

    def forward(self, x: Tensor, are_phases: bool = False) -> Tensor:
        """(B, C, H, W) -> (B, C, H / stride, W / stride), or phases to phases."""
        stride, dilation = self.stride, 1 if are_phases else self.dilation
        if stride == dilation == 2:
            # Only even rows and columns are read, so the others are dropped first. Pooling keeps the memory layout, in
            # backward too.
            x, stride, dilation = avg_pool2d(x, 1, 2), 1, 1
        weights = self.depthwise.weight, self.pointwise.weight  # (C, 1, K, K), (C, C, 1, 1)
        if x.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
            return _Separable.apply(x, *weights, stride, dilation)
        return conv2d(_depthwise(x, weights[0], stride, dilation), weights[1])


def as_channels_last(x: Tensor) -> Tensor:
    """x in the layout in which the backward of depthwise convolutions is 3 to 10 times faster."""
    return x.contiguous(memory_format=torch.channels_last)


def to_phases(x: Tensor) -> Tensor | None:
    """(B, C, H, W) -> (4B, C, H / 2, W / 2), even and odd rows and columns apart; None where a side is odd.

    An ordinary convolution of the phases replaces one of dilation 2 of x, and its backward is 4 to 6 times faster.
    """
    batch, channels, height, width = x.shape
    if height % 2 or width % 2:
        return None
    apart = x.permute(0, 2, 3, 1).reshape(batch, height // 2, 2, width // 2, 2, channels)
    return apart.permute(2, 4, 0, 1, 3, 5).flatten(0, 2).permute(0, 3, 1, 2)


def from_phases(phases: Tensor) -> Tensor:
    """(4B, C, h, w) -> (B, C, 2h, 2w), undoing `to_phases`."""
    apart = phases.permute(0, 2, 3, 1).unflatten(0, (2, 2, -1))  # (2, 2, B, h, w, C)
    return apart.permute(2, 3, 0, 4, 1, 5).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


def _depthwise(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    return conv2d(x, weight, None, stride, dilation * (weight.shape[3] // 2), dilation, groups=len(weight))


class _Separable(torch.autograd.Function):
    """Recomputes the map between the two convolutions in backward: a third of the memory for 5% of the time."""

    @staticmethod
    def forward(x: Tensor, depthwise: Tensor, pointwise: Tensor, stride: int, dilation: int) -> Tensor:
        return conv2d(_depthwise(x, depthwise, stride, dilation), pointwise)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.stride, ctx.dilation = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def jvp(ctx: Any, *slopes: Any) -> Tensor:
        x, depthwise, pointwise = ctx.saved_tensors
        measures = ctx.stride, ctx.dilation
        x_slope, depthwise_slope, pointwise_slope = slopes[:3]
        total = torch.zeros(())
        if x_slope is not None:
            total = total + conv2d(_depthwise(x_slope, depthwise, *measures), pointwise)
        if depthwise_slope is not None:
            total = total + conv2d(_depthwise(x, depthwise_slope, *measures), pointwise)
        if pointwise_slope is not None:
            total = total + conv2d(_depthwise(x, depthwise, *measures), pointwise_slope)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, depthwise, pointwise = ctx.saved_tensors
        of_pointwise = None
        if ctx.needs_input_grad[2]:
            between = _depthwise(x, depthwise, ctx.stride, ctx.dilation)
            of_between, of_pointwise = _gradients(gradient, between, pointwise, _Measures())
        else:
            of_between = conv2d(gradient, pointwise.transpose(0, 1))
        reach = ctx.dilation * (depthwise.shape[3] // 2)
        whole = _Measures(ctx.stride, ctx.dilation, (reach, reach))
        needs_x, needs_depthwise = ctx.needs_input_grad[:2]
        if depthwise.shape[3] != 2 * STRIP - 1 or ctx.dilation > 1 or not needs_depthwise:
            both = _gradients(of_between, x, depthwise, whole, (needs_x, needs_depthwise))
            return *both, of_pointwise, None, None
        # Two strips of three columns take 2.2 ms, five columns at once 5.2 (64x16x32x32, one thread, AVX-512).
        of_x, _ = _gradients(of_between, x, depthwise, whole, (needs_x, False))
        strip = _Measures(ctx.stride, padding=(reach, 0))
        _, left = _gradients(of_between, pad(x, (reach, 0)), depthwise[..., :STRIP], strip, (False, True))
        _, right = _gradients(of_between, pad(x, (0, reach)), depthwise[..., -STRIP:], strip, (False, True))
        return of_x, torch.cat([left, right[..., 1:]], dim=3), of_pointwise, None, None


class _Measures(NamedTuple):
    stride: int = 1
    dilation: int = 1
    padding: tuple[int, int] = (0, 0)


def _gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, measures: _Measures, wanted: tuple[bool, bool] = (True, True)
) -> tuple[Tensor, Tensor]:
    """The gradients of a convolution in x and in its weight, as far as they are wanted."""
    groups = x.shape[1] // weight.shape[1]
    strides, dilations = [measures.stride] * 2, [measures.dilation] * 2
    of_x, of_weight, _ = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, strides, measures.padding, dilations, False, [0, 0], groups, [*wanted, False]
    )
    return of_x, of_weight
