"""The sharpness of the validation loss in the architecture. As it grows, cells found by gradients get worse.

Zela et al. 2020 (R-DARTS) stop a search when the largest eigenvalue of this Hessian rises.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from jointsearch.through_step.loss import ImageLosses, cross_entropies
from jointsearch.through_step.precision import full_precision
from jointsearch.through_step.validation import functional_form, validating


def largest_eigenvalue(
    network: nn.Module,
    batch: tuple[Tensor, Tensor],
    architecture: Mapping[str, Tensor],
    noise: torch.Generator,
    iterations: int = 20,
    image_losses: ImageLosses = cross_entropies,
) -> Tensor:
    """The eigenvalue of largest magnitude of d^2(validation loss)/d(architecture)^2, (), by power iteration.

    All iterations differentiate the same gradient; each costs about one forward and one backward pass.
    """
    leaves = {name: logits.detach().requires_grad_() for name, logits in architecture.items()}
    held = {name: weight.detach() for name, weight in network.named_parameters() if name not in leaves}
    images, labels = batch
    with validating(network), torch.enable_grad(), full_precision(images.device):
        loss = image_losses(functional_form(network, {**held, **leaves}), images, labels).mean()
        slopes = torch.autograd.grad(loss, list(leaves.values()), create_graph=True, materialize_grads=True)
        direction = _unit([torch.randn(logits.shape, generator=noise).to(logits) for logits in leaves.values()])
        eigenvalue = loss.new_zeros(())
        for _ in range(iterations):
            product = _product(slopes, list(leaves.values()), direction)
            eigenvalue = _dot(product, direction)
            direction = _unit(product)
    return eigenvalue


def _product(slopes: Sequence[Tensor], leaves: Sequence[Tensor], direction: Sequence[Tensor]) -> list[Tensor]:
    """The Hessian times a direction."""
    return list(torch.autograd.grad(slopes, leaves, direction, retain_graph=True, materialize_grads=True))


def _dot(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    return torch.stack([(one * other).sum() for one, other in zip(left, right, strict=True)]).sum()


def _unit(parts: Sequence[Tensor]) -> list[Tensor]:
    norm = _dot(parts, parts).sqrt().clamp_min(torch.finfo(parts[0].dtype).tiny)
    return [part / norm for part in parts]
