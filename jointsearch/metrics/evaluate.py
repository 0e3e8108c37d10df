"""Scores of a network on images as they are."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from jointsearch.data.sets import AnySet
from jointsearch.data.standard import Standard, normalize
from jointsearch.protocols import Metric, Scores

EVALUATION_BATCH = 500


class Evaluated(Protocol):
    """A network in training, as far as evaluation is concerned."""

    device: torch.device

    def network(self) -> nn.Module:
        """The network that is evaluated: the averaged one where there is one."""

    def outputs(self, images: Tensor) -> Tensor:
        """Its outputs for normalized images, in the precision of the recipe."""


@torch.no_grad()
def evaluate(
    trained: Evaluated, images: AnySet, standard: Standard, new_metric: Callable[[torch.device], Metric]
) -> Scores:
    """Score the network on a set; the network is left in evaluation mode."""
    trained.network().eval()
    metric = new_metric(trained.device)
    for batch in images.batches(torch.arange(len(images)), EVALUATION_BATCH):
        metric.update(trained.outputs(normalize(batch.images, standard)), batch.labels)
    return Scores(metric.compute(), metric.name, metric.higher_is_better)
