"""The gradients of cells, direct and through the training step, are those of autograd."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from jointsearch.through_step.double_backward import double_backward
from jointsearch.through_step.hessian import largest_eigenvalue
from jointsearch.through_step.record import StepNetwork, record_step
from jointsearch.through_step.sides import losses_on_both_sides
from jointsearch.through_step.validation import validation_gradient

STEP_SIZE = 0.1
LABELS = torch.arange(12) % 3
JUDGES = torch.arange(9) % 3
NAME = "logits"


class Mixed(nn.Module):
    """A classifier of 3 with a mixture of three layers inside; training does not change the mixture's logits."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh())
        self.candidates = nn.ModuleList([nn.Linear(8, 8), nn.Identity(), nn.Sequential(nn.Linear(8, 8), nn.Tanh())])
        self.head = nn.Linear(8, 3)
        self.logits = nn.Parameter(torch.tensor([0.3, -0.2, 0.1]), requires_grad=False)
        self.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        shares = self.logits.softmax(0)
        return self.head(sum(share * one(x) for share, one in zip(shares, self.candidates, strict=True)))


def inputs(count: int, seed: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def recorded(dtype: torch.dtype) -> tuple[Mixed, StepNetwork, dict[str, Tensor], dict[str, Tensor]]:
    """A network after a step, the same as a function, its leaves, and the gradient of weights and architecture."""
    network, images = Mixed(dtype), inputs(12, 1, dtype)
    weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=STEP_SIZE)
    with record_step(network) as record:
        cross_entropy(network(images), LABELS).backward()
        optimizer.step()
        optimizer.zero_grad()
    leaves = {NAME: network.logits.detach().requires_grad_()}
    return network, record.frozen(), leaves, validation_gradient(network, [(inputs(9, 2, dtype), JUDGES)], leaves)


def test_one_backward_of_the_validation_loss_gives_weights_and_architecture_what_autograd_gives_them() -> None:
    network, _, leaves, gradient = recorded(torch.float64)
    weights = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
    output = functional_call(network, {**weights, **leaves}, (inputs(9, 2, torch.float64),))
    expected = torch.autograd.grad(cross_entropy(output, JUDGES), [*weights.values(), *leaves.values()])
    assert list(gradient) == [*weights, NAME]
    for found, wanted in zip(gradient.values(), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)
    assert float(gradient[NAME].abs().max()) > 1e-4


def test_a_search_of_policies_gets_the_same_direction_as_one_of_cells() -> None:
    network, _, _, gradient = recorded(torch.float64)
    alone = validation_gradient(network, [(inputs(9, 2, torch.float64), JUDGES)])
    assert NAME not in alone
    assert all(torch.equal(alone[name], gradient[name]) for name in alone)


def test_where_only_cells_learn_their_gradient_is_the_same_and_that_of_the_weights_is_not_computed() -> None:
    network, _, leaves, gradient = recorded(torch.float64)
    seen: list[bool] = []
    network.stem[0].register_forward_hook(lambda layer, _, output: seen.append(layer.weight.requires_grad))
    alone = validation_gradient(network, [(inputs(9, 2, torch.float64), JUDGES)], leaves, of_weights=False)
    assert seen == [False]
    assert list(alone) == [NAME]
    torch.testing.assert_close(alone[NAME], gradient[NAME], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("dtype", "epsilon", "error"), [(torch.float64, 1e-4, 1e-6), (torch.float32, 0.01, 1e-2)])
def test_the_second_order_gradient_is_that_of_double_backward(dtype: torch.dtype, epsilon: float, error: float) -> None:
    _, frozen, leaves, gradient = recorded(dtype)
    v = {name: part for name, part in gradient.items() if name != NAME}
    images = inputs(12, 1, dtype)
    sides = losses_on_both_sides(frozen, v, images, LABELS, epsilon, leaves)
    (found,) = torch.autograd.grad(sides.rewards(STEP_SIZE).mean(), leaves[NAME])
    exact = double_backward(frozen, v, images, LABELS, STEP_SIZE, leaves)
    (expected,) = torch.autograd.grad(exact.mean(), leaves[NAME])
    assert float((found - expected).norm() / expected.norm()) < error
    assert float(expected.norm()) > 1e-5


def test_pixels_and_architecture_share_one_backward_of_the_rewards() -> None:
    _, frozen, leaves, gradient = recorded(torch.float64)
    v = {name: part for name, part in gradient.items() if name != NAME}
    images = inputs(12, 1, torch.float64).requires_grad_()
    together = losses_on_both_sides(frozen, v, images, LABELS, 1e-4, leaves).rewards(STEP_SIZE).mean()
    found = torch.autograd.grad(together, [leaves[NAME], images])
    alone = losses_on_both_sides(frozen, v, images.detach(), LABELS, 1e-4, leaves).rewards(STEP_SIZE).mean()
    fixed = {NAME: leaves[NAME].detach()}
    pixels = losses_on_both_sides(frozen, v, images, LABELS, 1e-4, fixed).rewards(STEP_SIZE).mean()
    torch.testing.assert_close(found[0], torch.autograd.grad(alone, leaves[NAME])[0], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found[1], torch.autograd.grad(pixels, images)[0], rtol=1e-9, atol=1e-12)


def test_measuring_leaves_the_network_s_own_architecture_alone() -> None:
    network, frozen, leaves, gradient = recorded(torch.float64)
    before = network.logits.clone()
    moved = {NAME: (leaves[NAME].detach() + 1).requires_grad_()}
    v = {name: part for name, part in gradient.items() if name != NAME}
    losses_on_both_sides(frozen, v, inputs(12, 1, torch.float64), LABELS, architecture=moved)
    assert torch.equal(network.logits, before)
    assert network.logits.grad is None


def test_the_largest_eigenvalue_is_that_of_the_whole_hessian() -> None:
    network, _, leaves, _ = recorded(torch.float64)
    images = inputs(9, 2, torch.float64)
    before = {name: value.clone() for name, value in network.state_dict().items()}

    def loss(logits: Tensor) -> Tensor:
        held = {name: weight.detach() for name, weight in network.named_parameters() if name != NAME}
        buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
        return cross_entropy(functional_call(network, {**held, **buffers, NAME: logits}, (images,)), JUDGES)

    hessian = torch.autograd.functional.hessian(loss, leaves[NAME].detach())
    eigenvalues = torch.linalg.eigvalsh(hessian)
    expected = float(eigenvalues[eigenvalues.abs().argmax()])
    noise = torch.Generator().manual_seed(0)
    found = largest_eigenvalue(network, (images, JUDGES), {NAME: network.logits}, noise)
    assert float(found) == pytest.approx(expected, rel=0.01)
    assert abs(expected) > 1e-4
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
