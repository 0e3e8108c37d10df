"""What happens to training images on their way to the network, in one place for search and retraining."""

import torch
from torch import Tensor

from jointsearch.data.standard import Standard, cutout, normalize, random_crop_flip
from search_spaces.augment.apply import apply_policy
from search_spaces.policy import Policy


def augment(images: Tensor, policy: Policy, standard: Standard, noise: torch.Generator) -> Tensor:
    """Crop and flip, then the policy, then normalization and cutout: uint8 (B, C, H, W) to float32."""
    cropped = random_crop_flip(images, standard, noise)
    augmented = apply_policy(policy, cropped.float().div_(255), noise)
    return cutout(normalize(augmented, standard), standard.cutout, noise)
