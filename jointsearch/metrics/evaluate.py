"""Scores of a network on images as they are."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import nn

from jointsearch.data.groups import as_read_by
from jointsearch.protocols import Metric, Scores

EVALUATION_BATCH = 500


class Evaluated(Protocol):
    """A network in training, as far as evaluation is concerned."""

    device: torch.device

    def network(self) -> nn.Module:
        """The network that is evaluated: the averaged one where there is one."""

    def outputs(self, images: Any) -> Any:
        """Its outputs for normalized images, in the precision of the recipe."""


@torch.no_grad()
def evaluate(
    trained: Evaluated,
    images: Any,
    as_seen: Callable[[Any], Any],
    new_metric: Callable[[torch.device], Metric],
    batch_size: int = EVALUATION_BATCH,
    thorough: bool = False,
) -> Scores:
    """Score the network on a set, `thorough` with all that its metric can tell; it is left in evaluation mode.

    `as_seen` makes of the images what the network sees.
    """
    trained.network().eval()
    metric = new_metric(trained.device)
    for batch in images.batches(torch.arange(len(images)), batch_size):
        metric.update(trained.outputs(as_seen(batch.images)), as_read_by(metric, batch.targets))
    scores = Scores(metric.compute(), metric.name, metric.higher_is_better)
    if not thorough:
        return scores
    further, details = (getattr(metric, name, _nothing)(images.classes) for name in ("further", "details"))
    return replace(scores, further=further, details=details)


def _nothing(classes: Sequence[str]) -> dict[str, Any]:
    return {}
