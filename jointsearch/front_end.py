"""What happens to training images on their way to the network, in one place for search and retraining."""

from collections.abc import Callable

import torch
from torch import Tensor

from jointsearch.data.standard import ORDERS, Standard, cutout, normalize, random_crop_flip
from search_spaces.augment.apply import apply_policy
from search_spaces.policy import Policy


def augment(images: Tensor, policy: Policy, standard: Standard, noise: torch.Generator) -> Tensor:
    """Crop and flip, policy, normalization and cutout, in the order that `standard` states.

    uint8 images, or floating point ones in [0, 1]; floating point comes back.
    """
    return augment_with(lambda pixels: apply_policy(policy, pixels, noise), images, standard, noise)


def augment_with(
    transform: Callable[[Tensor], Tensor], images: Tensor, standard: Standard, noise: torch.Generator
) -> Tensor:
    """The same with any transform of (B, C, H, W) images in [0, 1] in the policy's place."""
    pixels = images / 255 if images.dtype == torch.uint8 else images  # (B, C, H, W)
    if standard.order == ORDERS[0]:
        augmented = transform(random_crop_flip(pixels, standard, noise))
    else:
        augmented = random_crop_flip(transform(pixels), standard, noise)
    return cutout(normalize(augmented, standard), standard.cutout, noise)
