"""The losses of a detector, as it adds them up itself."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from jointsearch.data.objects import Objects, Padded
from jointsearch.protocols import State


class Detection:
    """The sum of a detector's losses: of classes and boxes, and of proposals and masks where it has them."""

    def loss(self, network: nn.Module, images: Padded, labels: Objects) -> Tensor:
        """The loss of a batch."""
        return torch.stack([*network(images, labels).values()]).sum()

    def losses(self, network: Callable[..., Any], images: Padded, labels: Objects) -> Tensor:
        """The loss of each image by itself: a detector averages over the objects of a batch, not over its images."""
        alone = [slice(row, row + 1) for row in range(len(images))]
        parts = [network(Padded(images.pixels[row], images.sizes[row]), labels.rows(row)) for row in alone]
        return torch.stack([torch.stack([*part.values()]).sum() for part in parts])

    def state(self) -> State:
        """Nothing is learned."""
        return {}

    def restore(self, state: State) -> None:
        """Nothing is learned."""
