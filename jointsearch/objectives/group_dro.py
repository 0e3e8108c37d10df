"""Group DRO (Sagawa et al., ICLR 2020): min over weights of the network, max over weights q of the groups, of q . L.

L holds the mean loss of each group. Before each step q_g is multiplied by exp(step_size * L_g): the worst weighs most.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from jointsearch.data.groups import Grouped, as_read_by
from jointsearch.distributed import add_up
from jointsearch.protocols import State
from jointsearch.through_step.loss import cross_entropies
from search_spaces.errors import InputError


class GroupWeights:
    """The weights q of the groups, which learn. `within_classes` holds the share of each class where it is.

    The loss of a group that has n training images counts as L_g + adjustment / sqrt(n) for q.
    """

    def __init__(self, step_size: float, adjustment: float = 0.0, within_classes: bool = False) -> None:
        self.step_size, self.adjustment, self.within_classes = step_size, adjustment, within_classes
        self.counts = torch.zeros(0, 0)  # training images, (classes, attributes)
        self.logs = torch.zeros(0, 0, dtype=torch.float64)  # of the weights

    def begin(self, train: Any, reader: str) -> None:
        """Start with equal weights of the groups of training images; `reader` is what needs them."""
        if getattr(train, "groups", None) is None:
            raise InputError(
                f"objective={reader} compares groups of images, and this data set tells none; use one that does, as "
                "dataset=colored_digits, or leave objective out"
            )
        shape = (len(train.classes), len(train.groups.attributes))
        counts = torch.bincount(train.groups.numbers.cpu(), minlength=shape[0] * shape[1])
        self.counts, self.logs = counts.view(shape), torch.zeros(shape, dtype=torch.float64)

    def weights(self) -> Tensor:
        """q of each group, (classes, attributes); 0 for one without training images."""
        logs = self.logs.masked_fill(self.counts.to(self.logs.device) == 0, -torch.inf)
        if not self.within_classes:
            return logs.flatten().softmax(0).view(logs.shape)
        shares = (self.counts.sum(1, keepdim=True) / self.counts.sum()).to(logs)
        return logs.softmax(1) * shares

    @torch.no_grad()
    def learn(self, means: Tensor, there: Tensor) -> None:
        """Move q by the mean losses (classes * attributes,) of a batch; groups that are not `there` tell nothing."""
        self.logs = self.logs.to(means.device)
        counted = means.view(self.logs.shape).double()
        counted = counted + self.adjustment / self.counts.to(means.device).clamp(min=1).sqrt()
        logs = self.logs + self.step_size * torch.where(there.view(self.logs.shape), counted, 0.0)
        self.logs = logs - (logs.logsumexp(1, keepdim=True) if self.within_classes else logs.flatten().logsumexp(0))

    def loss(self, losses: Tensor, numbers: Tensor) -> Tensor:
        """q . L of the losses (B,) of images in these groups, after q has moved.

        Several processes of torchrun compare the groups of the whole batch; the mean of what they return is the loss.
        """
        member = one_hot(numbers, self.counts.numel()).to(losses.dtype)  # (B, groups)
        sums, counts = losses.detach() @ member, member.sum(0)
        add_up([sums, counts])
        self.learn(sums / counts.clamp(min=1), counts > 0)
        shares = self.weights().flatten().to(losses.dtype) / counts.clamp(min=1)
        return (member @ shares * losses).sum() * (counts.sum() / len(losses))


class GroupDro:
    """The loss of the groups, weighted by how bad they are."""

    by_group = True

    def __init__(self, weights: GroupWeights, label_smoothing: float = 0.0) -> None:
        self.group_weights, self.label_smoothing = weights, label_smoothing

    def begin(self, train: Any, standard: Any) -> None:
        """Count the training images of each group."""
        self.group_weights.begin(train, "group_dro")

    def loss(self, network: nn.Module, images: Tensor, labels: Any) -> Tensor:
        """q . L of a batch, after q has moved."""
        told = with_groups(labels, "group_dro")
        return self.group_weights.loss(image_losses(network(images), told, self.label_smoothing), told.groups.numbers)

    def losses(self, network: Callable[..., Any], images: Tensor, labels: Any) -> Tensor:
        """The cross entropy of each image, whatever its group."""
        return cross_entropies(network, images, as_read_by(None, labels))

    def state(self) -> State:
        """The weights of the groups."""
        return {"log_weights": self.group_weights.logs}

    def restore(self, state: State) -> None:
        """Continue from a state."""
        self.group_weights.logs = state["log_weights"].clone()


def image_losses(outputs: Tensor, labels: Grouped, label_smoothing: float) -> Tensor:
    """The cross entropy (B,) of class logits (B, C), in float32 at least."""
    outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
    return cross_entropy(outputs, labels.labels, reduction="none", label_smoothing=label_smoothing)


def with_groups(labels: Any, reader: str) -> Grouped:
    """The labels of a training step, if they tell its groups."""
    if not isinstance(labels, Grouped):
        raise InputError(
            f"objective={reader} compares groups of images, and this step was told none: an augmenter of your own has "
            "to hand on batch.groups, and no search inside one training does; train with retrain.py, or search without"
        )
    return labels


def check_recipe(recipe: Any, reader: str) -> None:
    """Refuse what a loss of groups would not do."""
    more = recipe.timm
    unread = {
        "mixing": recipe.mixing,
        "auxiliary_weight": recipe.auxiliary_weight,
        "timm.bce_loss": more is not None and more.bce_loss,
        "timm.grad_accum_steps": more is not None and more.grad_accum_steps > 1,
    }
    if wrong := [name for name, value in unread.items() if value]:
        raise InputError(
            f"recipe.{wrong[0]} does not go with objective={reader}, which takes the cross entropy of whole batches, "
            "group by group; leave one of the two out"
        )
