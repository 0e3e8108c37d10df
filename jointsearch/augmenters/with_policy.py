"""Augment training images with a finished policy, or with a schedule of policies."""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from jointsearch.data.sets import Batch
from jointsearch.data.standard import Standard
from jointsearch.front_end import augment, augment_with
from jointsearch.protocols import Moment
from search_spaces.augment.apply import apply_draw, draw_policy
from search_spaces.policy import Policy
from search_spaces.schedule import PolicySchedule


class WithPolicy:
    """Crop and flip, the policy of the epoch, normalization and cutout."""

    def __init__(self, policy: Policy | PolicySchedule, standard: Standard) -> None:
        self.policy, self.standard = policy, standard

    def __call__(self, batch: Batch, network: nn.Module, at: Moment, noise: torch.Generator) -> Batch:
        """The batch as it is trained on."""
        policy = self.policy if isinstance(self.policy, Policy) else self.policy.at(at.epoch)
        return replace(batch, images=augment(batch.images, policy, self.standard, noise))


class CountedPolicy(WithPolicy):
    """The same with one policy, and how often each of its sub-policies was drawn."""

    def __init__(self, policy: Policy, standard: Standard) -> None:
        super().__init__(policy, standard)
        self.one = policy
        self.draws = torch.zeros(len(policy.sub_policies), dtype=torch.int64)

    def __call__(self, batch: Batch, network: nn.Module, at: Moment, noise: torch.Generator) -> Batch:
        """The batch as it is trained on."""
        images = augment_with(partial(self._drawn, noise=noise), batch.images, self.standard, noise)
        return replace(batch, images=images)

    def _drawn(self, pixels: Tensor, noise: torch.Generator) -> Tensor:
        draw = draw_policy(self.one, len(pixels), noise)
        self.draws += torch.bincount(draw.sub_policy.flatten().cpu(), minlength=len(self.draws))
        return apply_draw(pixels, draw)
