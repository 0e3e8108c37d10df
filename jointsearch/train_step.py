"""What a training loop lends a search algorithm: its own training step, and a way to take steps back."""

from contextlib import AbstractContextManager
from typing import Protocol

from torch import Tensor


class TrainStep(Protocol):
    """One step of a network's training."""

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Train on augmented images, and return the loss."""

    def undone(self) -> AbstractContextManager[None]:
        """Train inside for a trial: on leaving, all is as it was on entering."""
