"""A running mean of one number per step of a search."""

import torch
from torch import Tensor, nn

MOMENTUM = 0.9


class RunningMean(nn.Module):
    """The exponential moving average of the observed values; 0 before the first one."""

    sum: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        # A running mean that starts at 0 is too small by a known factor: the total weight of its values so far.
        self.register_buffer("sum", torch.zeros(()))
        self.register_buffer("weight", torch.zeros(()))

    @torch.no_grad()
    def observe(self, value: Tensor) -> None:
        """Add a value."""
        self.sum.lerp_(value.to(self.sum), 1 - MOMENTUM)
        self.weight.lerp_(torch.ones_like(self.weight), 1 - MOMENTUM)

    def value(self) -> Tensor:
        """The mean of the values so far."""
        return self.sum / self.weight.clamp(min=1 - MOMENTUM)
