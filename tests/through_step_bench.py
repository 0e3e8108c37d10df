"""What the tests of gradients through a training step share: networks, a recorded step, and its images."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from jointsearch.through_step.double_backward import double_backward
from jointsearch.through_step.finite_difference import finite_difference
from jointsearch.through_step.jvp import jvp
from jointsearch.through_step.record import StepNetwork, record_step

STEP_SIZE = 0.1
REWARDS = [finite_difference, jvp, double_backward]
Direction = dict[str, Tensor]


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


LABELS = torch.arange(8) % 3


def small(norm: str = "batch", dropout: float = 0.0, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Two convolutions, normalized, and a classifier of 3; the same weights every time."""
    kinds: dict[str, Callable[[int], nn.Module]] = {
        "batch": nn.BatchNorm2d,
        "group": lambda channels: nn.GroupNorm(2, channels),
        "none": lambda _: nn.Identity(),
    }
    layers = [nn.Conv2d(3, 6, 3, padding=1), kinds[norm](6), nn.ReLU(inplace=True), nn.Dropout(dropout)]
    layers += [nn.Conv2d(6, 6, 3, stride=2), kinds[norm](6), nn.ReLU(inplace=True), nn.Dropout(dropout)]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)).to(dtype)
    for seed, parameter in enumerate(network.parameters()):
        # Around 1 for the scales of a normalization, around 0 for all else, and far from dead.
        parameter.data.round_().add_(0.3 * noise(*parameter.shape, seed=seed, dtype=dtype))
    # Forward mode knows no GroupNorm on channels_last before torch 2.15.
    return network if norm == "group" else network.to(memory_format=torch.channels_last)


def one_step(network: nn.Module, images: Tensor, labels: Tensor, step_size: float = STEP_SIZE) -> None:
    optimizer = torch.optim.SGD(network.parameters(), lr=step_size)
    cross_entropy(network(images), labels).backward()
    optimizer.step()
    optimizer.zero_grad()


def recorded(network: nn.Module, images: Tensor, labels: Tensor = LABELS) -> tuple[StepNetwork, Direction]:
    """The network of a step, and the gradient of a validation loss after it."""
    with record_step(network) as record:
        one_step(network, images.detach(), labels)
    copies = copy.deepcopy(network).eval()
    outputs = copies(noise(*images.shape, seed=9, dtype=images.dtype))
    gradients = torch.autograd.grad(cross_entropy(outputs, labels.flip(0)), list(copies.parameters()))
    return record.frozen(), dict(zip(dict(network.named_parameters()), gradients, strict=True))


@pytest.fixture
def doubles() -> Tensor:
    return noise(8, 3, 8, 8, dtype=torch.float64)


@pytest.fixture
def singles() -> Tensor:
    return noise(8, 3, 8, 8)
