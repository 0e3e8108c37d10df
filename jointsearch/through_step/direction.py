"""The direction v in weight space along which rewards are measured, with the checks that all methods share."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from jointsearch.through_step.record import StepNetwork

# A direction this short is rounding error; dividing by its norm gives noise.
SHORTEST = 1e-12


@dataclass(frozen=True, eq=False)
class Direction:
    """v, by the names of the weights, and its total norm, a tensor on the device."""

    parts: dict[str, Tensor]
    norm: Tensor  # ()

    def settle(self, rewards: Tensor) -> Tensor:
        """Rewards (B,) unchanged; exactly 0 if v is 0, NaN if v is not finite."""
        # A dead unit can mask a NaN of v, so that the rewards alone would not show it.
        return torch.where(self.norm < SHORTEST, 0.0, rewards) + 0.0 * self.norm


def checked_direction(network: StepNetwork, direction: Mapping[str, Tensor]) -> Direction:
    """The direction in the dtype of the weights. Refuses wrong names and shapes, and weights in low precision."""
    for name, weight in network.weights.items():
        if weight.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"weight {name!r} is {weight.dtype}, in which rewards are noise; keep the weights in float32 "
                "(network.float()) and leave lower precision to autocast"
            )
    if not direction or direction.keys() - network.weights.keys():
        given = ", ".join(sorted(direction.keys() - network.weights.keys())) or "nothing"
        raise ValueError(
            f"the direction names {given}, which is no trainable weight of the network; give the gradient of the "
            "validation loss by the names of network.named_parameters()"
        )
    for name, part in direction.items():
        if part.shape != network.weights[name].shape:
            raise ValueError(
                f"the direction of weight {name!r} has shape {tuple(part.shape)}, the weight "
                f"{tuple(network.weights[name].shape)}; give its gradient, of its shape"
            )
    parts = {name: part.detach().to(network.weights[name].dtype) for name, part in direction.items()}
    return Direction(parts, get_total_norm(parts.values()))


def in_precision_of_weights(images: Tensor, network: StepNetwork) -> Tensor:
    """Images in the dtype of the weights, float32 or float64, even if autocast lowered their precision."""
    return images.to(next(iter(network.weights.values())).dtype)


def with_gradient(values: Tensor, gradient: Tensor, inputs: Tensor) -> Tensor:
    """Values (B,) unchanged, whose sum has this gradient in the inputs (B, ...); keeps no activations."""
    slope = (gradient * inputs).flatten(1).sum(1)  # (B,)
    return values + (slope - slope.detach())


def with_shared_gradient(values: Tensor, gradient: Tensor, shared: Tensor) -> Tensor:
    """Values (B,) unchanged. Their sum has this gradient in the shared tensor; each value carries 1/B of it."""
    slope = (gradient * shared).sum() / len(values)
    return values + (slope - slope.detach())
