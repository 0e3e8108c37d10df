"""Cutout with a soft border: the share of a pixel that the square covers, so that its size has a gradient."""

import torch
from torch import Tensor

from search_spaces.augment.op import AugOp

# The mean color of ImageNet, as in the published policies; other channel counts take its mean.
FILL = (125 / 255, 123 / 255, 114 / 255)


def cutout(images: Tensor, amount: Tensor, position: Tensor) -> Tensor:
    """Cover a gray square, its side a share of the image's shorter side, centred anywhere; clipped at the border."""
    height, width = images.shape[-2:]
    side = amount * min(height, width)
    covered_x = _coverage(position[:, 0] * width, side, width)  # (B, W)
    covered_y = _coverage(position[:, 1] * height, side, height)  # (B, H)
    covered = (covered_y[:, None, :, None] * covered_x[:, None, None, :]).to(images.dtype)  # (B, 1, H, W)
    channels = images.shape[1]
    fill = torch.tensor(FILL if channels == 3 else [sum(FILL) / 3] * channels, dtype=images.dtype)
    fill = fill.to(images.device, non_blocking=True).reshape(1, -1, 1, 1)
    return images + covered * (fill - images)


def _coverage(center: Tensor, side: Tensor, size: int) -> Tensor:
    pixel = torch.arange(size, device=side.device, dtype=side.dtype)
    low, high = (center - side / 2)[:, None], (center + side / 2)[:, None]
    return (torch.minimum(pixel + 1, high) - torch.maximum(pixel, low)).clamp(min=0)


ERASING_OPS = (
    AugOp(
        "Cutout",
        cutout,
        identity=0.0,
        strongest=0.2,
        gradient="pathwise",
        unit="share of the shorter side",
        uses="position",
    ),
)
