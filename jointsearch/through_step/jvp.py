"""Rewards by forward-mode differentiation: exact, in one pass. Every operation of the network needs a forward mode."""

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.autograd import forward_ad

from jointsearch.distributed import part_of
from jointsearch.through_step.direction import checked_direction, in_precision_of_weights, with_gradient
from jointsearch.through_step.precision import full_precision
from jointsearch.through_step.record import StepNetwork


def jvp(
    network: StepNetwork, direction: Mapping[str, Tensor], images: Tensor, labels: Tensor, step_size: float
) -> Tensor:
    """Rewards (B,): -step_size v . grad_w l_i; their sum is differentiable in `images` that require a gradient."""
    differentiable = images.requires_grad and torch.is_grad_enabled()
    with full_precision(images.device), torch.set_grad_enabled(differentiable), warnings.catch_warnings():
        # On first use torch scripts some of its forward-mode rules, and warns about that.
        warnings.filterwarnings("ignore", message="`torch.jit")
        v = checked_direction(network, direction)
        inputs, mine = in_precision_of_weights(images, network), part_of(len(labels))
        leaves = mine.of(inputs.detach()).requires_grad_(differentiable)
        # Not torch.func.jvp: under it, dropout lays out its mask differently if images are channels_last, so that the
        # rewards belong to other noise than the step's (torch 2.11 to 2.15).
        with forward_ad.dual_level():
            weights = {name: forward_ad.make_dual(network.weights[name], part) for name, part in v.parts.items()}
            losses = network.losses(weights, leaves, mine.of(labels))
            (slopes,) = mine.whole(forward_ad.unpack_dual(losses).tangent.detach())  # (B,)
            if differentiable:
                (gradient,) = torch.autograd.grad(losses.sum(), leaves)
                (of_images,) = mine.whole(forward_ad.unpack_dual(gradient).tangent)
                slopes = with_gradient(slopes, of_images, inputs)
        return v.settle(-step_size * slopes)
