"""Rewards by differentiating a gradient: exact, and the reference for tests of the cheaper methods."""

from collections.abc import Mapping

import torch
from torch import Tensor

from jointsearch.through_step.direction import checked_direction, in_precision_of_weights
from jointsearch.through_step.precision import full_precision
from jointsearch.through_step.record import StepNetwork


def double_backward(
    network: StepNetwork,
    direction: Mapping[str, Tensor],
    images: Tensor,
    labels: Tensor,
    step_size: float,
    architecture: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """Rewards (B,): -step_size v . grad_w l_i; differentiable in images and architecture that require a gradient."""
    learned = {} if architecture is None else architecture
    inputs = (images, *learned.values())
    differentiable = any(one.requires_grad for one in inputs) and torch.is_grad_enabled()
    with full_precision(images.device), torch.enable_grad():
        v = checked_direction(network, direction)
        weights = {name: network.weights[name].detach().requires_grad_() for name in v.parts}
        losses = network.losses({**weights, **learned}, in_precision_of_weights(images, network), labels)  # (B,)
        # v . grad_w sum_i share_i l_i is linear in the shares, and its slope in share_i is v . grad_w l_i.
        shares = torch.ones_like(losses, requires_grad=True)
        gradients = torch.autograd.grad(
            losses, list(weights.values()), shares, create_graph=True, materialize_grads=True
        )
        products = [(part * gradient).sum() for part, gradient in zip(v.parts.values(), gradients, strict=True)]
        (slopes,) = torch.autograd.grad(torch.stack(products).sum(), shares, create_graph=differentiable)  # (B,)
        return v.settle(-step_size * slopes)
