"""Rewards by forward-mode differentiation: exact, one pass, for networks whose every operation has a forward mode."""

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.autograd import forward_ad

from jointsearch.through_step.direction import checked_direction, in_precision_of_weights, with_gradient
from jointsearch.through_step.loss import per_image_loss
from jointsearch.through_step.precision import full_precision
from jointsearch.through_step.record import FrozenNetwork


def jvp(
    network: FrozenNetwork, direction: Mapping[str, Tensor], images: Tensor, labels: Tensor, step_size: float
) -> Tensor:
    """Rewards (B,): -step_size v . grad_w l_i; with their gradient to `images` where these require one."""
    differentiable = images.requires_grad and torch.is_grad_enabled()
    with full_precision(images.device), torch.set_grad_enabled(differentiable), warnings.catch_warnings():
        # On its first use, torch loads rules of forward mode that it still scripts, and warns of that.
        warnings.filterwarnings("ignore", message="`torch.jit")
        v = checked_direction(network, direction)
        inputs = in_precision_of_weights(images, network)
        leaves = inputs.detach().requires_grad_(differentiable)
        # Not torch.func.jvp: under it, dropout lays its mask out another way where images are channels_last, and the
        # rewards are those of other noise than the step's (torch 2.11 to 2.15).
        with forward_ad.dual_level():
            weights = {name: forward_ad.make_dual(network.weights[name], part) for name, part in v.parts.items()}
            losses = per_image_loss(network(weights, leaves), labels)
            slopes = forward_ad.unpack_dual(losses).tangent.detach()  # (B,)
            if differentiable:
                (gradient,) = torch.autograd.grad(losses.sum(), leaves)
                slopes = with_gradient(slopes, forward_ad.unpack_dual(gradient).tangent, inputs)
        return v.settle(-step_size * slopes)
