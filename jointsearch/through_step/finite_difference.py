"""Rewards by a finite difference over the weights: two forward passes of any network."""

from collections.abc import Mapping

from torch import Tensor

from jointsearch.through_step.record import StepNetwork
from jointsearch.through_step.sides import losses_on_both_sides


def finite_difference(
    network: StepNetwork,
    direction: Mapping[str, Tensor],
    images: Tensor,
    labels: Tensor,
    step_size: float,
    epsilon: float = 0.01,
) -> Tensor:
    """Rewards (B,): -step_size v . grad_w l_i; differentiable in `images` that require a gradient."""
    return losses_on_both_sides(network, direction, images, labels, epsilon).rewards(step_size)
