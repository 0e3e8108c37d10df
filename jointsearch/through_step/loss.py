"""The loss l_i of an image: a reward measures its gradient."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

# A network, images and labels (B, ...) in, one loss per image (B,) out. The network may be any function of the images.
ImageLosses = Callable[[Callable[..., Any], Tensor, Tensor], Tensor]


def cross_entropies(network: Callable[..., Any], images: Tensor, labels: Tensor) -> Tensor:
    """The cross entropy of each image, (B,): the losses of classification."""
    return per_image_loss(network(images), labels)


def per_image_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy (B,) of outputs (B, C) and labels, classes (B,) or probabilities (B, C), at least in float32."""
    outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
    soft = labels.is_floating_point()
    return cross_entropy(outputs, labels.to(outputs.dtype) if soft else labels, reduction="none")
