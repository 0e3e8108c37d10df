"""The gradient of the validation loss at the weights after a step: the direction along which images are judged."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from jointsearch.through_step.loss import per_image_loss
from jointsearch.through_step.precision import full_precision


def validation_gradient(
    network: nn.Module, batches: Sequence[tuple[Tensor, Tensor]], architecture: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """d(mean cross entropy over all batches)/d(weights and architecture), by name; the network is left as it was.

    Batch statistics are those of each validation batch, and nothing is dropped: validation carries no noise. Names of
    `architecture` stand for parameters of the network that are no weights; one backward pass serves both.
    """
    weights: dict[str, Tensor] = {name: one for name, one in network.named_parameters() if one.requires_grad}
    weights.update(architecture or {})
    total = sum(len(labels) for _, labels in batches)
    gradient: list[Tensor] = []
    with judging(network), torch.enable_grad():
        for images, labels in batches:
            # Copies, so that the running statistics that evaluation uses see training batches only.
            buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
            with full_precision(images.device):
                output = functional_call(network, {**weights, **buffers}, (images,))
                loss = per_image_loss(output, labels).sum() / total
            part = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
            gradient = list(torch._foreach_add(gradient, part)) if gradient else list(part)
    return dict(zip(weights, gradient, strict=True))


@contextmanager
def judging(network: nn.Module) -> Iterator[None]:
    """Evaluation mode for all but batch normalization; every flag comes back afterwards."""
    flags = {module: module.training for module in network.modules()}
    try:
        for module, flag in flags.items():
            module.training = flag and isinstance(module, _BatchNorm)  # one that is frozen stays so
        yield
    finally:
        for module, flag in flags.items():
            module.training = flag
