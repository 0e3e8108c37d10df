"""A loss and a score that are not those of classification."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from jointsearch.protocols import State


class Brier:
    """The mean squared distance of the probabilities from the labels, as a score: lower is better."""

    name, unit, higher_is_better = "brier", "", False

    def __init__(self, device: torch.device) -> None:
        self.total, self.count = 0.0, 0

    def update(self, outputs: Tensor, labels: Tensor) -> None:
        self.total += float(distances(outputs, labels).sum())
        self.count += len(labels)

    def compute(self) -> Mapping[str, float]:
        return {self.name: self.total / self.count}


class SquaredDistance:
    """The same as a loss."""

    def __init__(self, recipe: Any) -> None:
        pass

    def loss(self, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return self.losses(network, images, labels).mean()

    def losses(self, network: Callable[..., Any], images: Tensor, labels: Tensor) -> Tensor:
        return distances(network(images), labels)

    def state(self) -> State:
        return {}

    def restore(self, state: State) -> None:
        pass


class GroupWeights:
    """The worst classes weigh more: each gets the running weight exp(sum of its losses), as group DRO does."""

    def __init__(self, recipe: Any) -> None:
        self.weights = torch.zeros(10)

    def loss(self, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        losses = self.losses(network, images, labels)
        self.weights.index_add_(0, labels, 0.1 * losses.detach())
        return (self.weights.softmax(0)[labels] * losses).sum()

    def losses(self, network: Callable[..., Any], images: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(network(images), labels, reduction="none")

    def state(self) -> State:
        return {"weights": self.weights}

    def restore(self, state: State) -> None:
        self.weights = state["weights"].clone()


def distances(outputs: Tensor, labels: Tensor) -> Tensor:
    """(B, C), (B,) -> (B,)."""
    return (outputs.softmax(1) - one_hot(labels, outputs.shape[1])).square().sum(1)
