"""Gumbel-softmax: differentiate through a relaxed draw. A lower temperature gives less bias and more variance."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from jointsearch.estimators.draw import (
    DRAWS,
    DRAWS_HELP,
    Draw,
    Noise,
    PolicyLogits,
    check_scoring,
    check_temperature,
)
from jointsearch.estimators.sample import draw_sample, rows
from jointsearch.settings import bounded, check_fields, choice


@dataclass(frozen=True)
class GumbelSettings:
    """Straight-through Gumbel-softmax. It applies every sub-policy to every image, and so draws the ops of all."""

    uses_rewards: ClassVar[bool] = False  # it differentiates through the images

    temperature: float = bounded(0.5, 1e-3, 100.0, help="of the relaxed draws")
    draws: str = choice("image", *DRAWS, help=DRAWS_HELP)

    def __post_init__(self) -> None:
        check_fields(self)

    def build(self, sub_policies: int, stages: int) -> "Gumbel":
        """The estimator."""
        return Gumbel(self.temperature, hard=True, scoring="joint")


class Gumbel(nn.Module):
    """Draws differentiable sub-policy weights and bits, rounded (`hard`, straight-through) or relaxed.

    `sum_n weights_n image_n` needs the image of *every* sub-policy. With constants in place of the images that were not
    drawn, the straight-through gradient is wrong.
    """

    def __init__(self, temperature: float = 0.5, hard: bool = True, scoring: str = "hierarchical") -> None:
        super().__init__()
        check_scoring(scoring)
        check_temperature(temperature)
        self.temperature = temperature
        self.hard = hard
        self.scoring = scoring

    def forward(self, logits: PolicyLogits, noise: Noise) -> Draw:
        """Draw; the gradient flows through `weights`, `acts` and `all_acts`."""
        sample = draw_sample(logits, noise, self.scoring)
        weights = torch.softmax(sample.relaxed_sub_policy / self.temperature, -1)  # (D, N)
        acts = torch.sigmoid(sample.relaxed_acts / self.temperature)  # (D, K) or (D, N, K)
        if self.hard:
            weights = straight_through(one_hot(sample.sub_policy, weights.shape[1]), weights)
            acts = straight_through(sample.bits, acts)
        if self.scoring == "hierarchical":
            return Draw(sample.sub_policy, acts, torch.zeros_like, weights=weights)
        return Draw(sample.sub_policy, rows(acts, sample.sub_policy), torch.zeros_like, weights=weights, all_acts=acts)

    def observe(self, rewards: Tensor) -> None:
        """Do nothing: this estimator has no state."""


def straight_through(rounded: Tensor, soft: Tensor) -> Tensor:
    """The rounded values, with the gradient of the soft ones."""
    return rounded + (soft - soft.detach())
