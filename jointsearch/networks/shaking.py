"""Noise that is other noise backward than forward: Shake-Shake (Gastaldi 2017) and ShakeDrop (Yamada et al. 2019).

Both draws are made in the forward pass, from torch's global generator as dropout's: who repeats a forward pass from the
same state of the generator repeats its gradient, too.
"""

from typing import Any

import torch
from torch import Tensor, nn


class _Scaled(torch.autograd.Function):
    """x times one factor, and its gradient times another."""

    @staticmethod
    def forward(x: Tensor, ahead: Tensor, back: Tensor) -> Tensor:
        return x * ahead

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])
        ctx.save_for_forward(inputs[2])

    @staticmethod
    def jvp(ctx: Any, slope: Tensor, *_: None) -> Tensor:
        (back,) = ctx.saved_tensors
        return slope * back

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (back,) = ctx.saved_tensors
        return gradient * back, None, None


def scaled(x: Tensor, ahead: Tensor, back: Tensor) -> Tensor:
    """x (B, C, H, W) times `ahead` (B, 1, 1, 1); every derivative is that of x times `back` (B, 1, 1, 1)."""
    return _Scaled.apply(x, ahead.to(x.dtype), back.to(x.dtype))


class ShakeShake(nn.Module):
    """Mixes two branches, each image by a weight in [0, 1], and its gradient by another; in evaluation by 1/2."""

    own_backward = True  # what through_step asks: a difference of losses does not show the gradient of such a network

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Twice (B, C, H, W) -> (B, C, H, W)."""
        if not self.training:
            return (first + second).mul_(0.5)
        ahead, back = torch.rand(2, len(first), 1, 1, 1, device=first.device)
        return scaled(first, ahead, back).add_(scaled(second, 1 - ahead, 1 - back))


class ShakeDrop(nn.Module):
    """Multiplies a branch by b + a - ba, and its gradient by b + c - bc: a in [-1, 1], c in [0, 1], b is 0 or 1.

    As in the authors' code, b is drawn for the batch, and is 1 with probability `survival`; a and c are drawn for every
    image. In evaluation the branch is multiplied by the expectation, which is `survival`.
    """

    own_backward = True

    def __init__(self, survival: float) -> None:
        super().__init__()
        self.survival = survival

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        if not self.training:
            return x * self.survival
        survives = torch.rand((), device=x.device) < self.survival
        ahead, back = torch.rand(2, len(x), 1, 1, 1, device=x.device)
        # With b = 1 the formula is exactly 1, and 1 + a - a is not, in floating point.
        return scaled(x, torch.where(survives, 1.0, 2 * ahead - 1), torch.where(survives, 1.0, back))

    def extra_repr(self) -> str:
        """What `print` shows of it."""
        return f"survival={self.survival:g}"
