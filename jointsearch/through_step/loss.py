"""The loss l_i of an image: a reward measures its gradient."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def per_image_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy (B,) of outputs (B, C) and labels, classes (B,) or probabilities (B, C), at least in float32."""
    outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
    soft = labels.is_floating_point()
    return cross_entropy(outputs, labels.to(outputs.dtype) if soft else labels, reduction="none")
