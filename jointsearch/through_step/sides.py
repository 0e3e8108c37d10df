"""The losses on both sides of a finite difference over the weights: two forward passes, whatever the network is."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from jointsearch.through_step.direction import (
    SHORTEST,
    Direction,
    checked_direction,
    in_precision_of_weights,
    with_gradient,
)
from jointsearch.through_step.loss import per_image_loss
from jointsearch.through_step.precision import full_precision
from jointsearch.through_step.record import FrozenNetwork


@dataclass(frozen=True, eq=False)
class Sides:
    """Losses (B,) at w + reach v and at w - reach v; where the images require a gradient, both carry it."""

    above: Tensor
    below: Tensor
    reach: Tensor  # ()
    direction: Direction

    def rewards(self, step_size: float) -> Tensor:
        """-step_size v . grad_w l_i, (B,)."""
        return self.direction.settle(self.scale(step_size) * (self.above - self.below))

    def scale(self, step_size: float) -> Tensor:
        """What makes a reward of the difference of the two losses."""
        return -step_size / (2 * self.reach)

    def losses(self) -> Tensor:
        """The losses in the middle, (B,), but for the square of the reach."""
        return (self.above + self.below).detach() / 2


def losses_on_both_sides(
    network: FrozenNetwork, direction: Mapping[str, Tensor], images: Tensor, labels: Tensor, epsilon: float = 0.01
) -> Sides:
    """Losses at w + reach v and w - reach v, reach = epsilon / ||v||."""
    with full_precision(images.device):
        v = checked_direction(network, direction)
        inputs = in_precision_of_weights(images, network)
        reach = epsilon / v.norm.clamp_min(SHORTEST)
        # One after the other, so that the activations of only one of them are in memory.
        above = _losses(network, _moved(network, v.parts, reach), inputs, labels)
        below = _losses(network, _moved(network, v.parts, -reach), inputs, labels)
        return Sides(above, below, reach, v)


def _moved(network: FrozenNetwork, direction: dict[str, Tensor], reach: Tensor) -> dict[str, Tensor]:
    return {name: torch.addcmul(network.weights[name], part, reach) for name, part in direction.items()}


def _losses(network: FrozenNetwork, weights: dict[str, Tensor], inputs: Tensor, labels: Tensor) -> Tensor:
    if not (inputs.requires_grad and torch.is_grad_enabled()):
        with torch.no_grad():
            return per_image_loss(network(weights, inputs), labels)
    leaves = inputs.detach().requires_grad_()
    losses = per_image_loss(network(weights, leaves), labels)
    (gradient,) = torch.autograd.grad(losses.sum(), leaves)
    return with_gradient(losses.detach(), gradient, inputs)
