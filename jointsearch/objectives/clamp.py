"""CLAMP, the loss of model patching (Goel et al., ICLR 2021): group DRO within classes, and equal predictions for an
image and what a translator makes of it with every attribute."""

from collections.abc import Sequence
from math import log
from typing import Any

import torch
from torch import Tensor, nn

from jointsearch.data.groups import Translate
from jointsearch.data.standard import Standard, normalize
from jointsearch.objectives.group_dro import GroupDro, GroupWeights, image_losses, with_groups
from search_spaces.errors import InputError


class Clamp(GroupDro):
    """Group DRO within classes plus `consistency` times the distance of predictions.

    Without a `translate` it is the one that the data set knows, as of drawn digits their color.
    """

    def __init__(
        self,
        weights: GroupWeights,
        consistency: float,
        translate: Translate | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weights, label_smoothing)
        self.consistency, self.translate = consistency, translate
        self.standard = Standard()
        self.passes = 1

    def begin(self, train: Any, standard: Standard) -> None:
        """Count the training images of each group, and find the translator."""
        self.group_weights.begin(train, "clamp")
        self.standard, self.translate = standard, _known(self.translate or train.groups.translate)
        getattr(self.translate, "check", lambda train: None)(train)
        self.passes = 1 + len(train.groups.attributes)

    def loss(self, network: nn.Module, images: Tensor, labels: Any) -> Tensor:
        """The loss of a batch: its images and their translations pass the network together."""
        told = with_groups(labels, "clamp")
        shown = [images, *self.translations(images, told.groups.numbers)]
        outputs = network(torch.cat(shown)).chunk(len(shown))
        robust = self.group_weights.loss(image_losses(outputs[0], told, self.label_smoothing), told.groups.numbers)
        return robust + self.consistency * inconsistency(outputs[0], outputs[1:]).mean()

    @torch.no_grad()
    def translations(self, images: Tensor, groups: Tensor) -> list[Tensor]:
        """Normalized images (B, C, H, W) with each attribute, as the translator makes them of what the network sees."""
        translate = _known(self.translate)
        mean, std = (torch.tensor(of).to(images).view(1, -1, 1, 1) for of in (self.standard.mean, self.standard.std))
        pixels = (images * std + mean).clamp(0, 1)
        attributes = range(self.group_weights.counts.shape[1])
        return [normalize(translate(pixels, groups, to), self.standard).to(images.dtype) for to in attributes]


def inconsistency(outputs: Tensor, translated: Sequence[Tensor]) -> Tensor:
    """How far the predictions for images (B, C) and for their translations, Z times (B, C), are apart, (B,).

    KL(p || m) / 2 + sum over z of KL(p_z || m) / (2 Z), where m is the mean of the p_z: with two attributes the weights
    are 1/2, 1/4 and 1/4.
    """
    of_image = _log_probabilities(outputs)
    each = torch.stack([_log_probabilities(one) for one in translated])  # (Z, B, C)
    middle = each.logsumexp(0) - log(len(translated))
    apart = (each.exp() * (each - middle)).sum(-1).mean(0)
    return ((of_image.exp() * (of_image - middle)).sum(-1) + apart) / 2


def _known(translate: Translate | None) -> Translate:
    if translate is None:
        raise InputError(
            "objective=clamp needs a translator of images between attributes, and this data set brings none; train one "
            "with scripts/translator.py and name its file in objective.translator"
        )
    return translate


def _log_probabilities(outputs: Tensor) -> Tensor:
    return outputs.to(torch.promote_types(outputs.dtype, torch.float32)).log_softmax(-1)
