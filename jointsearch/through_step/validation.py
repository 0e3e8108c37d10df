"""The gradient of the validation loss at the weights after a step: the direction along which rewards are measured."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from jointsearch.distributed import add_up, part_of
from jointsearch.through_step.loss import ImageLosses, cross_entropies
from jointsearch.through_step.precision import full_precision


def validation_gradient(
    network: nn.Module,
    batches: Sequence[tuple[Tensor, Tensor]],
    architecture: Mapping[str, Tensor] | None = None,
    of_weights: bool = True,
    image_losses: ImageLosses = cross_entropies,
) -> dict[str, Tensor]:
    """d(mean loss of the images of all batches)/d(weights and architecture), by name; the network is left unchanged.

    Each validation batch is normalized with its own statistics, and dropout is off. `architecture` holds the parameters
    that are no weights, by their names in the network; one backward pass gives both gradients. If `of_weights` is
    False, the gradient of the weights is not computed.
    """
    weights = {name: one for name, one in network.named_parameters() if one.requires_grad}
    held = {} if of_weights else {name: one.detach() for name, one in weights.items()}
    learned: dict[str, Tensor] = {**(weights if of_weights else {}), **(architecture or {})}
    total = sum(len(labels) for _, labels in batches)
    gradient: list[Tensor] = []
    with validating(network), torch.enable_grad():
        for images, labels in batches:
            forward, mine = functional_form(network, {**held, **learned}), part_of(len(labels))
            with full_precision(images.device):
                loss = image_losses(forward, mine.of(images), mine.of(labels)).sum() / (total * mine.copies)
                part = torch.autograd.grad(loss, list(learned.values()), materialize_grads=True)
            gradient = list(torch._foreach_add(gradient, part)) if gradient else list(part)
    add_up(gradient)
    return dict(zip(learned, gradient, strict=True))


def functional_form(network: nn.Module, parameters: Mapping[str, Tensor]) -> Callable[..., Any]:
    """The network as a function of its inputs at these parameters."""
    # Copies, so that only training batches update the running statistics for evaluation.
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    return lambda *inputs: functional_call(network, {**parameters, **buffers}, inputs)


@contextmanager
def validating(network: nn.Module) -> Iterator[None]:
    """Set evaluation mode for all modules but batch normalization, and restore every flag afterwards."""
    flags = {module: module.training for module in network.modules()}
    try:
        for module, flag in flags.items():
            module.training = flag and isinstance(module, _BatchNorm)  # one in evaluation mode stays so
        yield
    finally:
        for module, flag in flags.items():
            module.training = flag
