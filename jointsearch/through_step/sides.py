"""The losses on both sides of a finite difference over the weights: two forward passes of any network."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jointsearch.distributed import add_up, part_of
from jointsearch.through_step.direction import (
    SHORTEST,
    Direction,
    checked_direction,
    in_precision_of_weights,
    with_gradient,
    with_shared_gradient,
)
from jointsearch.through_step.precision import full_precision
from jointsearch.through_step.record import StepNetwork


@dataclass(frozen=True, eq=False)
class Sides:
    """Losses (B,) at w + reach v and at w - reach v, differentiable in images and architecture that require a gradient.

    All images share an architecture, so that only the sum of the losses has the right gradient in it. With live
    statistics that is so of the images, too.
    """

    above: Tensor
    below: Tensor
    reach: Tensor  # ()
    direction: Direction

    def rewards(self, step_size: float) -> Tensor:
        """-step_size v . grad_w l_i, (B,)."""
        return self.direction.settle(self.scale(step_size) * (self.above - self.below))

    def scale(self, step_size: float) -> Tensor:
        """The factor that turns the difference of the two losses into a reward."""
        return -step_size / (2 * self.reach)

    def losses(self) -> Tensor:
        """The losses at w, (B,), up to an error of the order of reach^2."""
        return (self.above + self.below).detach() / 2


def losses_on_both_sides(
    network: StepNetwork,
    direction: Mapping[str, Tensor],
    images: Tensor,
    labels: Tensor,
    epsilon: float = 0.01,
    architecture: Mapping[str, Tensor] | None = None,
) -> Sides:
    """Losses at w + reach v and w - reach v, reach = epsilon / ||v||, with `architecture` in place of the network's."""
    if found := with_own_backward(module for module, training in network.modes.items() if training):
        raise ValueError(
            f"{type(found).__name__} gives weights another gradient than the slope of the loss, so a difference of "
            "losses does not show what a step did; use jvp or double_backward, or a network without it"
        )
    with full_precision(images.device):
        v = checked_direction(network, direction)
        inputs = in_precision_of_weights(images, network)
        reach = epsilon / v.norm.clamp_min(SHORTEST)
        # One pass after the other, so that memory holds the activations of one only.
        above, below = (
            _losses(network, _moved(network, v.parts, sign * reach), inputs, labels, architecture or {})
            for sign in (1, -1)
        )
        return Sides(above, below, reach, v)


def with_own_backward(modules: Iterable[nn.Module]) -> nn.Module | None:
    """The first module whose gradient in training is not the derivative of its output: it says so by `own_backward`."""
    return next((module for module in modules if getattr(module, "own_backward", False)), None)


def _moved(network: StepNetwork, direction: dict[str, Tensor], reach: Tensor) -> dict[str, Tensor]:
    return {name: torch.addcmul(network.weights[name], part, reach) for name, part in direction.items()}


def _losses(
    network: StepNetwork,
    weights: dict[str, Tensor],
    inputs: Tensor,
    labels: Tensor,
    architecture: Mapping[str, Tensor],
) -> Tensor:
    learned = {name: logits for name, logits in architecture.items() if logits.requires_grad}
    through_images, mine = inputs.requires_grad, part_of(len(labels))
    if not (torch.is_grad_enabled() and (through_images or learned)):
        with torch.no_grad():
            (values,) = mine.whole(network.losses({**weights, **architecture}, mine.of(inputs), mine.of(labels)))
            return values
    images = mine.of(inputs.detach()).requires_grad_(through_images)
    leaves = {name: logits.detach().requires_grad_() for name, logits in learned.items()}
    losses = network.losses({**weights, **architecture, **leaves}, images, mine.of(labels))
    wanted = [*leaves.values(), *([images] if through_images else [])]
    gradients = torch.autograd.grad(losses.sum() / mine.copies, wanted, materialize_grads=True)
    add_up(gradients[: len(leaves)])
    values, *of_images = mine.whole(losses.detach(), *gradients[len(leaves) :])
    for logits, gradient in zip(learned.values(), gradients, strict=False):
        values = with_shared_gradient(values, gradient, logits)
    return with_gradient(values, of_images[0], inputs) if through_images else values
