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
        ordered = rewards.sort().values
        below = torch.searchsorted(ordered, rewards)
        above = len(rewards) - torch.searchsorted(ordered, rewards, right=True)
        # The last term keeps a NaN a NaN, so that the step is skipped.
        return (below - above) / max(len(rewards) - 1, 1) + 0 * rewards
    return rewards


def dealt(batch: int, noise: torch.Generator) -> Tensor:
    """A random permutation of a batch, for the control with shuffled rewards."""
    return torch.randperm(batch, generator=noise)
