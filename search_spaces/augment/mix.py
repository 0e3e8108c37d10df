"""Ops that mix another image in."""

import torch
from torch import Tensor

from search_spaces.augment.op import AugOp, per_image


def sample_pairing(images: Tensor, amount: Tensor, partners: Tensor) -> Tensor:
    """Mix another image in; the label stays the same."""
    return torch.lerp(images, partners, per_image(amount))


MIXING_OPS = (
    AugOp(
        "SamplePairing",
        sample_pairing,
        identity=0.0,
        strongest=0.4,
        gradient="pathwise",
        unit="weight of the other image",
        uses="partner",
    ),
)
