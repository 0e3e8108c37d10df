"""Every method measures the reward -step_size v . grad_w loss_i(w) of an image, and its gradient."""

import copy
from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from jointsearch.through_step.direction import SHORTEST
from jointsearch.through_step.double_backward import double_backward
from jointsearch.through_step.finite_difference import finite_difference
from jointsearch.through_step.jvp import jvp
from jointsearch.through_step.record import StepNetwork, record_step
from jointsearch.through_step.sides import losses_on_both_sides
from tests.through_step_bench import (
    LABELS,
    REWARDS,
    STEP_SIZE,
    Direction,
    doubles,
    noise,
    one_step,
    recorded,
    singles,
    small,
)

__all__ = ["doubles", "singles"]


EXACT = [jvp, double_backward]


def worst(found: Tensor, wanted: Tensor) -> float:
    """Relative error of a vector."""
    return float((found - wanted).norm() / wanted.norm())


def as_by_definition(frozen: StepNetwork, direction: Direction, images: Tensor, labels: Tensor) -> Tensor:
    """The definition: one plain gradient for each image."""
    rewards = []
    for index in range(len(labels)):
        weights = {name: weight.clone().requires_grad_() for name, weight in frozen.weights.items()}
        loss = cross_entropy(frozen(weights, images)[index], labels[index])
        gradients = torch.autograd.grad(loss, list(weights.values()))
        products = [(direction[name] * part).sum() for name, part in zip(weights, gradients, strict=True)]
        rewards.append(-STEP_SIZE * sum(products))
    return torch.stack(rewards).detach()


def small_epsilon(*arguments: object) -> Tensor:
    return finite_difference(*arguments, epsilon=1e-4)


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("reward", [small_epsilon, *EXACT])
def test_a_reward_is_minus_the_step_size_times_the_slope_of_the_images_own_loss(
    reward: Callable[..., Tensor], norm: str, doubles: Tensor
) -> None:
    frozen, direction = recorded(small(norm, dtype=torch.float64), doubles)
    wanted = as_by_definition(frozen, direction, doubles, LABELS)
    found = reward(frozen, direction, doubles, LABELS, STEP_SIZE)
    assert found.dtype == torch.float64
    assert not found.requires_grad
    assert worst(found, wanted) < (1e-6 if reward is small_epsilon else 1e-12)


@pytest.mark.parametrize("reward", REWARDS)
def test_in_float32_with_the_default_epsilon_a_reward_is_right_to_two_percent(
    reward: Callable[..., Tensor], singles: Tensor
) -> None:
    frozen, direction = recorded(small(), singles)
    wanted = as_by_definition(frozen, direction, singles, LABELS)
    assert worst(reward(frozen, direction, singles, LABELS, STEP_SIZE), wanted) < 2e-2


def test_without_normalization_the_frozen_gradient_is_the_networks_own(doubles: Tensor) -> None:
    network = small("none", dtype=torch.float64)
    before = copy.deepcopy(network)
    frozen, direction = recorded(network, doubles)
    rewards = []
    for index in range(8):
        loss = cross_entropy(before(doubles[index : index + 1]), LABELS[index : index + 1])
        parts = torch.autograd.grad(loss, list(before.parameters()))
        rewards.append(-STEP_SIZE * sum((v * part).sum() for v, part in zip(direction.values(), parts, strict=True)))
    assert worst(jvp(frozen, direction, doubles, LABELS, STEP_SIZE), torch.stack(rewards)) < 1e-12


def test_live_rewards_are_those_of_training_and_frozen_ones_are_others(doubles: Tensor) -> None:
    network = small(dtype=torch.float64)
    before = copy.deepcopy(network)
    frozen, direction = recorded(copy.deepcopy(network), doubles)
    with record_step(network) as record:
        one_step(network, doubles, LABELS)
    losses = cross_entropy(before(doubles), LABELS, reduction="none")
    living = []
    for loss in losses:
        parts = torch.autograd.grad(loss, list(before.parameters()), retain_graph=True)
        living.append(-STEP_SIZE * sum((v * part).sum() for v, part in zip(direction.values(), parts, strict=True)))
    assert worst(jvp(record.live(), direction, doubles, LABELS, STEP_SIZE), torch.stack(living)) < 1e-12
    assert worst(jvp(frozen, direction, doubles, LABELS, STEP_SIZE), torch.stack(living)) > 0.05


@pytest.mark.parametrize("optimizer_step", [0.02, 0.01])
def test_the_summed_rewards_predict_what_the_step_does_to_the_validation_loss(
    optimizer_step: float, doubles: Tensor
) -> None:
    # v is taken after the step, and the change is measured from before it, so the difference is of second order.
    network = small("group", dtype=torch.float64)
    before = copy.deepcopy(network)
    with record_step(network) as record:
        one_step(network, doubles, LABELS, optimizer_step)
    inputs, labels = noise(8, 3, 8, 8, seed=9, dtype=torch.float64), LABELS.flip(0)
    after = cross_entropy(network(inputs), labels)
    parts = torch.autograd.grad(after, list(network.parameters()))
    direction = dict(zip(dict(network.named_parameters()), parts, strict=True))
    predicted = jvp(record.frozen(), direction, doubles, LABELS, optimizer_step).mean()
    change = (after - cross_entropy(before(inputs), labels)).item()
    assert abs(predicted.item() - change) < 30 * optimizer_step**2
    assert abs(predicted.item() - change) < 0.2 * abs(change)


def direct_reward(frozen: StepNetwork, image: Tensor, label: Tensor, validation_loss: Callable, size: float) -> Tensor:
    """The change of the validation loss after training on one image alone, from the weights before the step."""
    weights = {name: weight.clone().requires_grad_() for name, weight in frozen.weights.items()}
    loss = cross_entropy(frozen(weights, image[None]), label[None])
    parts = torch.autograd.grad(loss, list(weights.values()))
    moved = {name: weight - size * part for (name, weight), part in zip(weights.items(), parts, strict=True)}
    return (validation_loss(moved) - validation_loss(weights)).detach()


def test_a_direct_reward_differs_by_the_square_of_the_step_size(doubles: Tensor) -> None:
    frozen, _ = recorded(small(dtype=torch.float64), doubles)
    inputs, labels = noise(8, 3, 8, 8, seed=9, dtype=torch.float64), LABELS.flip(0)

    def validation_loss(weights: Direction) -> Tensor:
        return cross_entropy(frozen(weights, inputs), labels)

    weights = {name: weight.clone().requires_grad_() for name, weight in frozen.weights.items()}
    parts = torch.autograd.grad(validation_loss(weights), list(weights.values()))
    direction = dict(zip(weights, parts, strict=True))
    gaps = []
    for size in (1e-3, 1e-4):
        pairs = zip(doubles, LABELS, strict=True)
        direct = torch.stack([direct_reward(frozen, *pair, validation_loss, size) for pair in pairs])
        gaps.append((jvp(frozen, direction, doubles, LABELS, size) - direct).abs().max().item())
        assert gaps[-1] < 0.1 * direct.abs().max().item()
    assert gaps[0] / gaps[1] == pytest.approx(100, rel=0.2)


def image_gradient(reward: Callable[..., Tensor], case: tuple, labels: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    frozen, direction, images = case
    leaves = images.clone().requires_grad_()
    rewards = reward(frozen, direction, leaves, labels, STEP_SIZE)
    (gradient,) = torch.autograd.grad((shares * rewards).sum(), leaves)
    return rewards, gradient


@pytest.mark.parametrize("reward", [small_epsilon, *EXACT])
def test_the_gradient_of_a_reward_to_its_image_is_its_numerical_slope(
    reward: Callable[..., Tensor], doubles: Tensor
) -> None:
    frozen, direction = recorded(small(dtype=torch.float64), doubles)
    shares = noise(8, seed=3, dtype=torch.float64)
    rewards, gradient = image_gradient(reward, (frozen, direction, doubles), LABELS, shares)
    assert worst(rewards.detach(), jvp(frozen, direction, doubles, LABELS, STEP_SIZE)) < 1e-6
    push = 1e-6 * noise(*doubles.shape, seed=4, dtype=torch.float64)
    sides = [jvp(frozen, direction, doubles + sign * push, LABELS, STEP_SIZE) for sign in (1, -1)]
    numerical = (shares * (sides[0] - sides[1])).sum() / 2
    assert (gradient * push).sum().item() == pytest.approx(numerical.item(), rel=1e-4)


def test_the_three_gradients_to_the_images_agree(doubles: Tensor) -> None:
    frozen, direction = recorded(small(dtype=torch.float64), doubles)
    shares = noise(8, seed=3, dtype=torch.float64)
    case = frozen, direction, doubles
    oracle = image_gradient(double_backward, case, LABELS, shares)[1]
    assert worst(image_gradient(jvp, case, LABELS, shares)[1], oracle) < 1e-12
    assert worst(image_gradient(small_epsilon, case, LABELS, shares)[1], oracle) < 1e-6


def test_an_image_gets_no_gradient_from_another_images_reward(singles: Tensor) -> None:
    frozen, direction = recorded(small(), singles)
    shares = torch.eye(8)[2]
    for reward in REWARDS:
        _, gradient = image_gradient(reward, (frozen, direction, singles), LABELS, shares)
        assert (gradient.flatten(1).norm(dim=1) > 0).tolist() == [index == 2 for index in range(8)]


class Watched(nn.Linear):
    """Keeps the weights that it ran with."""

    def forward(self, images: Tensor) -> Tensor:
        self.ran_with = [
            *getattr(self, "ran_with", []),
            torch.cat([self.weight.detach().flatten(), self.bias.detach()]),
        ]
        return super().forward(images)


@pytest.mark.parametrize("epsilon", [0.01, 0.003])
@pytest.mark.parametrize("size", [1e-3, 50.0])
def test_both_sides_of_a_finite_difference_are_epsilon_away_from_the_weights(epsilon: float, size: float) -> None:
    network, images = Watched(4, 3).double(), noise(8, 4, dtype=torch.float64)
    frozen, direction = recorded(network, images)
    direction = {name: size * part for name, part in direction.items()}
    start = network.ran_with.pop(0)
    sides = losses_on_both_sides(frozen, direction, images, LABELS, epsilon)
    plus, minus = network.ran_with
    along = torch.cat([direction["weight"].flatten(), direction["bias"]])
    torch.testing.assert_close(plus - start, epsilon * along / along.norm())
    torch.testing.assert_close(minus - start, -epsilon * along / along.norm())
    assert sides.reach.item() == pytest.approx(epsilon / along.norm().item())


def counted(network: nn.Module) -> list[bool]:
    """One entry for each forward pass: whether it built a graph."""
    passes: list[bool] = []
    network.register_forward_hook(lambda _module, _inputs, output: passes.append(output.requires_grad))
    return passes


def test_a_finite_difference_is_two_forward_passes_without_a_graph(singles: Tensor) -> None:
    network = small()
    frozen, direction = recorded(network, singles)
    passes = counted(network)
    finite_difference(frozen, direction, singles, LABELS, STEP_SIZE)
    assert passes == [False, False]
    with torch.no_grad():
        assert not finite_difference(frozen, direction, singles.requires_grad_(), LABELS, STEP_SIZE).requires_grad
    assert passes == [False] * 4


@pytest.mark.parametrize("reward", REWARDS)
@pytest.mark.parametrize("size", [0.0, 0.1 * SHORTEST])
def test_a_direction_of_zero_gives_rewards_of_zero(reward: Callable[..., Tensor], size: float, singles: Tensor) -> None:
    frozen, direction = recorded(small(), singles)
    norm = torch.nn.utils.get_total_norm(direction.values())
    nothing = {name: part * (size / norm) for name, part in direction.items()}
    rewards, gradient = image_gradient(reward, (frozen, nothing, singles), LABELS, torch.ones(8))
    assert torch.equal(rewards, torch.zeros(8))
    assert torch.equal(gradient, torch.zeros_like(singles))


@pytest.mark.parametrize("reward", REWARDS)
@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
def test_a_direction_that_is_not_finite_gives_no_number(
    reward: Callable[..., Tensor], poison: float, singles: Tensor
) -> None:
    frozen, direction = recorded(small(), singles)
    direction["10.bias"][0] = poison
    assert reward(frozen, direction, singles, LABELS, STEP_SIZE).isnan().all()


@pytest.mark.parametrize("reward", REWARDS)
def test_a_weight_that_the_direction_does_not_name_counts_as_zero(
    reward: Callable[..., Tensor], singles: Tensor
) -> None:
    frozen, direction = recorded(small(), singles)
    some = {name: part for name, part in direction.items() if name.startswith("10.")}
    rest = {name: torch.zeros_like(part) for name, part in direction.items() if name not in some}
    found = reward(frozen, some, singles, LABELS, STEP_SIZE)
    torch.testing.assert_close(found, reward(frozen, rest | some, singles, LABELS, STEP_SIZE))


@pytest.mark.parametrize("reward", REWARDS)
def test_a_direction_that_does_not_fit_the_weights_is_refused(reward: Callable[..., Tensor], singles: Tensor) -> None:
    frozen, direction = recorded(small(), singles)
    arguments = singles, LABELS, STEP_SIZE
    for wrong, message in [
        ({}, "names nothing, .*validation loss"),
        (direction | {"nowhere": torch.ones(1)}, "names nowhere, which is no trainable weight"),
        (direction | {"10.bias": torch.ones(1)}, r"'10.bias' has shape \(1,\), the weight \(3,\); give its gradient"),
    ]:
        with pytest.raises(ValueError, match=message):
            reward(frozen, wrong, *arguments)


@pytest.mark.parametrize("reward", REWARDS)
def test_soft_labels_weigh_the_rewards_of_the_classes(reward: Callable[..., Tensor], singles: Tensor) -> None:
    # Cross entropy is linear in the probabilities of the labels, and so is its slope.
    frozen, direction = recorded(small(), singles)
    classes = [reward(frozen, direction, singles, torch.full((8,), label), STEP_SIZE) for label in range(3)]
    shares = noise(8, 3, seed=5, dtype=torch.float64).softmax(1)
    found = reward(frozen, direction, singles, shares, STEP_SIZE)
    torch.testing.assert_close(found, (torch.stack(classes, 1) * shares.float()).sum(1), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("reward", [small_epsilon, double_backward])
def test_dropout_drops_the_same_in_every_pass_of_a_reward(reward: Callable[..., Tensor], doubles: Tensor) -> None:
    frozen, direction = recorded(small(dropout=0.5, dtype=torch.float64), doubles)
    wanted = as_by_definition(frozen, direction, doubles, LABELS)
    assert worst(jvp(frozen, direction, doubles, LABELS, STEP_SIZE), wanted) < 1e-12
    assert worst(reward(frozen, direction, doubles, LABELS, STEP_SIZE), wanted) < 1e-6


def test_a_timm_network_with_drop_path_and_fused_activations_gets_its_rewards() -> None:
    torch.manual_seed(0)
    # timm starts the last scales of the blocks at 0, which would put many activations on the kink of the ReLU.
    network = timm.create_model("resnet18", num_classes=3, drop_path_rate=0.5, zero_init_last=False).double()
    images = noise(8, 3, 32, 32, dtype=torch.float64)
    frozen, direction = recorded(network, images)
    wanted = jvp(frozen, direction, images, LABELS, STEP_SIZE)
    assert worst(finite_difference(frozen, direction, images, LABELS, STEP_SIZE, epsilon=1e-7), wanted) < 1e-4
