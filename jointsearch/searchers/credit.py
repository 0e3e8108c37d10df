"""From the rewards of images to the credit of draws: scaled, ranked, shuffled for the control, or one for a batch."""

import torch
from torch import Tensor

# Below this loss an image counts as learned; dividing by less would let a few such images decide.
SMALLEST_LOSS = 0.05


def scaled(rewards: Tensor, losses: Tensor | None, scale: str) -> Tensor:
    """Rewards (B,) as they are, per unit of the image's own loss, or as ranks from -1 to 1."""
    if scale == "loss" and losses is not None:
        return rewards / losses.clamp(min=SMALLEST_LOSS)
    if scale == "rank":
        # Large losses make large rewards, whatever the op: a rank counts every image the same.
        return rewards.argsort().argsort().to(rewards.dtype).mul(2 / max(len(rewards) - 1, 1)) - 1
    return rewards


def shuffled(rewards: Tensor, noise: torch.Generator) -> Tensor:
    """The same rewards dealt to other images: what is then learned is noise, of just this size."""
    return rewards[torch.randperm(len(rewards), generator=noise).to(rewards.device)]
