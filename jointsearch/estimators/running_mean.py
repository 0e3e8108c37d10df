"""A running mean of what the steps of a search were rewarded with."""

import torch
from torch import Tensor, nn

MOMENTUM = 0.9


class RunningMean(nn.Module):
    """The mean of what was observed, the latest with the most weight; 0 before anything was."""

    sum: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        # A running mean that starts at 0 is too small by exactly the weight that its observations have so far.
        self.register_buffer("sum", torch.zeros(()))
        self.register_buffer("weight", torch.zeros(()))

    @torch.no_grad()
    def observe(self, value: Tensor) -> None:
        """Take in one more."""
        self.sum.lerp_(value.to(self.sum), 1 - MOMENTUM)
        self.weight.lerp_(torch.ones_like(self.weight), 1 - MOMENTUM)

    def value(self) -> Tensor:
        """The mean so far."""
        return self.sum / self.weight.clamp(min=1 - MOMENTUM)
