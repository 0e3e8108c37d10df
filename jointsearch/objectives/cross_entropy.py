"""The loss of classification."""

from collections.abc import Callable
from typing import Any

from timm.loss import create_classification_loss
from torch import Tensor, nn

from jointsearch.protocols import State
from jointsearch.through_step.loss import cross_entropies


class CrossEntropy:
    """Cross entropy with label smoothing, on classes (B,) or on mixed labels (B, C).

    A second classifier of the network, where it has one, adds its own loss with `auxiliary_weight`. `other` are more
    arguments of timm's `create_classification_loss`, as loss_type="bce".
    """

    def __init__(
        self, label_smoothing: float = 0.0, mixed_labels: bool = False, auxiliary_weight: float = 0.0, **other: Any
    ) -> None:
        self.auxiliary_weight = auxiliary_weight
        self._criterion = create_classification_loss(smoothing=label_smoothing, soft_targets=mixed_labels, **other)

    def loss(self, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of a batch."""
        if not self.auxiliary_weight:
            return self._criterion(network(images), labels)
        two_classifiers: Any = network
        outputs, auxiliary = two_classifiers.forward_with_auxiliary(images)
        return self._criterion(outputs, labels) + self.auxiliary_weight * self._criterion(auxiliary, labels)

    def losses(self, network: Callable[..., Any], images: Tensor, labels: Tensor) -> Tensor:
        """The cross entropy of each image, on plain labels and of the main classifier."""
        return cross_entropies(network, images, labels)

    def state(self) -> State:
        """Nothing is learned."""
        return {}

    def restore(self, state: State) -> None:
        """Nothing is learned."""
