"""Augment training images with a finished policy, or with a schedule of policies."""

import torch
from torch import nn

from jointsearch.data.sets import Batch
from jointsearch.data.standard import Standard
from jointsearch.front_end import augment
from jointsearch.protocols import Moment
from search_spaces.policy import Policy
from search_spaces.schedule import PolicySchedule


class WithPolicy:
    """Crop and flip, the policy of the epoch, normalization and cutout."""

    def __init__(self, policy: Policy | PolicySchedule, standard: Standard) -> None:
        self.policy, self.standard = policy, standard

    def __call__(self, batch: Batch, network: nn.Module, at: Moment, noise: torch.Generator) -> Batch:
        """The batch as it is trained on."""
        policy = self.policy if isinstance(self.policy, Policy) else self.policy.at(at.epoch)
        return Batch(augment(batch.images, policy, self.standard, noise), batch.labels, batch.index)
