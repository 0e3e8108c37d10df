"""Shake-Shake and ShakeDrop: independent noise forward and backward, expectations, and searches through their steps."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import jointsearch.networks  # noqa: F401  (importing the package is what registers the networks)
from jointsearch.data.standard import Standard
from jointsearch.networks.pyramid_net import pyramid_net, survival
from jointsearch.networks.shake_shake import TwoPathShortcut, shake_shake
from jointsearch.networks.shaking import ShakeDrop, ShakeShake, scaled
from jointsearch.protocols import Context
from jointsearch.searchers.differentiable import Differentiable
from jointsearch.searchers.rewards import Rewards
from jointsearch.searchers.table import Table
from jointsearch.through_step.double_backward import double_backward
from jointsearch.through_step.finite_difference import finite_difference
from jointsearch.through_step.jvp import jvp
from jointsearch.through_step.record import StepNetwork, record_step
from search_spaces.errors import InputError
from tests.through_step_bench import LABELS, STEP_SIZE, Direction, doubles, noise, one_step, recorded

__all__ = ["doubles"]

DRAWS = 40_000
SMALL: dict[str, Callable[[], nn.Module]] = {
    "shake_shake": lambda: shake_shake(8, 4, num_classes=3),
    "shakedrop": lambda: pyramid_net(11, 6, num_classes=3),
}


def factors(module: nn.Module, images: int = DRAWS) -> tuple[Tensor, Tensor]:
    """What a module multiplies the (first) branch of each image by, forward and backward: (B,) and (B,)."""
    first = torch.ones(images, 1, 1, 1, requires_grad=True)
    others = (torch.zeros(images, 1, 1, 1),) if isinstance(module, ShakeShake) else ()
    output = module(first, *others)
    (gradient,) = torch.autograd.grad(output.sum(), first)
    return output.detach().flatten(), gradient.flatten()


def factors_of_batches(module: nn.Module, batches: int = 2000) -> tuple[Tensor, Tensor]:
    """Factors (batches, 2) of batches of two images."""
    found = [factors(module, 2) for _ in range(batches)]
    return torch.stack([ahead for ahead, _ in found]), torch.stack([back for _, back in found])


def correlation(one: Tensor, other: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one, other]))[0, 1])


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(3)


def test_shake_shake_draws_forward_and_backward_weights_for_every_image_independently() -> None:
    ahead, back = factors(ShakeShake())
    for drawn in (ahead, back):
        assert 0 <= drawn.min() < 0.001
        assert 0.999 < drawn.max() <= 1
        assert drawn.mean().item() == pytest.approx(1 / 2, abs=5 * (1 / 12 / DRAWS) ** 0.5)
        assert drawn.var().item() == pytest.approx(1 / 12, rel=0.03)  # of a uniform number
        assert len(drawn.unique()) > 0.99 * DRAWS
        assert abs(correlation(drawn[1:], drawn[:-1])) < 5 / DRAWS**0.5
    assert abs(correlation(ahead, back)) < 5 / DRAWS**0.5


def test_the_weights_of_the_two_branches_add_up_to_one_forward_and_backward() -> None:
    first, second = torch.randn(2, 6, 3, 4, 4, dtype=torch.float64, requires_grad=True).unbind()
    output = ShakeShake()(first, second)
    ahead = ((output - second) / (first - second)).flatten(1)
    torch.testing.assert_close(ahead, ahead[:, :1].expand_as(ahead))  # one weight for an image
    gradient = torch.randn_like(output)
    of_first, of_second = torch.autograd.grad(output, (first, second), gradient)
    torch.testing.assert_close(of_first + of_second, gradient)
    back = (of_first / gradient).flatten(1)
    torch.testing.assert_close(back, back[:, :1].expand_as(back))
    assert ((ahead - back)[:, 0].abs() > 1e-4).all()


def test_shake_shake_in_evaluation_is_the_mean_of_both_branches() -> None:
    first, second = torch.randn(2, 6, 3, 4, 4, requires_grad=True).unbind()
    mix = ShakeShake().eval()
    output = mix(first, second)
    assert torch.equal(output, (first + second) / 2)
    assert all((part == 0.5).all() for part in torch.autograd.grad(output.sum(), (first, second)))


# Of b + a - ba, by hand: with probability p it is 1, else a. a in [-1, 1] has mean 0 and variance 1/3, c in [0, 1]
# has mean 1/2 and mean square 1/3.
@pytest.mark.parametrize("p", [0.5, 0.75, 1.0])
def test_shakedrop_has_the_moments_of_its_formula(p: float) -> None:
    ahead, back = factors_of_batches(ShakeDrop(p))
    batches = len(ahead)
    assert ahead.mean().item() == pytest.approx(p, abs=5 * batches**-0.5)
    assert ahead.square().mean().item() == pytest.approx(p + (1 - p) / 3, abs=5 * batches**-0.5)
    assert back.mean().item() == pytest.approx(p + (1 - p) / 2, abs=5 * batches**-0.5)
    assert back.square().mean().item() == pytest.approx(p + (1 - p) / 3, abs=5 * batches**-0.5)
    whole = (ahead == 1).all(1)
    assert torch.equal(whole, (ahead == 1).any(1))  # b is of the batch
    assert torch.equal(whole, (back == 1).all(1))  # and the same backward
    assert whole.double().mean().item() == pytest.approx(p, abs=5 * (p * (1 - p) / batches) ** 0.5)


def test_the_images_of_a_shaken_batch_draw_independently_forward_and_backward() -> None:
    ahead, back = factors_of_batches(ShakeDrop(0.5))
    shaken = ahead[:, 0] != 1
    (one, other), (back_one, back_other) = ahead[shaken].T, back[shaken].T
    assert -1 <= one.min() < -0.99
    assert 0.99 < one.max() <= 1
    assert 0 <= back_one.min() < 0.01
    assert 0.99 < back_one.max() <= 1
    for pair in ((one, other), (back_one, back_other), (one, back_one), (one, back_other)):
        assert abs(correlation(*pair)) < 5 / len(one) ** 0.5


def test_shakedrop_in_evaluation_is_the_expectation() -> None:
    images = torch.randn(4, 3, 5, 5, requires_grad=True)
    output = ShakeDrop(0.7).eval()(images)
    torch.testing.assert_close(output, 0.7 * images)
    (gradient,) = torch.autograd.grad(output.sum(), images)
    torch.testing.assert_close(gradient, torch.full_like(images, 0.7))


def test_the_survival_of_a_block_falls_linearly_to_a_half() -> None:
    # PyramidNet-272 has 90 blocks: 1 - 1/180, 1 - 2/180, ..., 1 - 90/180.
    assert survival(1, 90) == pytest.approx(179 / 180)
    assert survival(30, 90) == pytest.approx(5 / 6)
    assert survival(90, 90) == 0.5
    with torch.device("meta"):
        network = pyramid_net(272, 200)
    found = [module.survival for module in network.modules() if isinstance(module, ShakeDrop)]
    assert found == pytest.approx([1 - place / 180 for place in range(1, 91)])


def test_the_second_path_of_a_shortcut_reads_the_neighbor_to_the_lower_right() -> None:
    shortcut = TwoPathShortcut(2, 4, 2).double()
    shortcut.norm = nn.Identity()
    images = torch.randn(1, 2, 6, 7, dtype=torch.float64)
    found = shortcut(images)
    assert found.shape == (1, 4, 3, 4)
    for row in range(3):
        for column in range(4):
            here = shortcut.straight.weight[:, :, 0, 0] @ images[0, :, 2 * row, 2 * column]
            beside = torch.zeros(2, dtype=torch.float64)
            if column < 3:  # the last column has no neighbor
                beside = shortcut.shifted.weight[:, :, 0, 0] @ images[0, :, 2 * row + 1, 2 * column + 1]
            torch.testing.assert_close(found[0, :, row, column], torch.cat([here, beside]))


@pytest.mark.parametrize("kind", SMALL)
def test_training_is_random_from_the_global_generator_and_evaluation_is_not(kind: str, doubles: Tensor) -> None:
    network = SMALL[kind]().double()

    def step(seed: int) -> tuple[Tensor, ...]:
        torch.manual_seed(seed)
        outputs = network(doubles)
        torch.rand(seed)  # what is drawn between forward and backward does not matter
        return outputs, *torch.autograd.grad(outputs.sum(), list(network.parameters()))

    first, again, other = step(1), step(1), step(2)
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    torch.manual_seed(1)
    network(doubles)
    before = torch.get_rng_state()
    network.eval()
    assert torch.equal(network(doubles), network(doubles))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", SMALL)
def test_in_bf16_and_channels_last_a_network_is_nearly_the_same_and_keeps_both(kind: str) -> None:
    images = noise(8, 3, 16, 16)
    network = SMALL[kind]()
    torch.manual_seed(1)
    expected = network(images)
    network.to(memory_format=torch.channels_last)
    seen: list[Tensor] = []
    for module in network.modules():
        if isinstance(module, ShakeShake | ShakeDrop):
            module.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        found = network(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found.float(), expected, atol=0.1, rtol=0.1)
    assert {output.dtype for output in seen} == {torch.bfloat16}
    assert all(output.is_contiguous(memory_format=torch.channels_last) for output in seen)
    found.sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in network.parameters())


# --- gradients through a step -----------------------------------------------------------------------------------------


def test_every_derivative_of_a_scaled_map_is_that_of_the_second_factor() -> None:
    x, ahead, back = (noise(3, 1, 1, 1, seed=seed, dtype=torch.float64) for seed in range(3))
    x.requires_grad_()
    (first,) = torch.autograd.grad((scaled(x, ahead, back) ** 3).sum(), x, create_graph=True)
    torch.testing.assert_close(first, 3 * (ahead * x) ** 2 * back)
    # Backward, the map is y = ahead x with slope back: d/dx of 3 y^2 back is 6 y back^2.
    (second,) = torch.autograd.grad(first.sum(), x)
    torch.testing.assert_close(second, 6 * ahead * x * back**2)


def rewards_by_definition(frozen: StepNetwork, direction: Direction, images: Tensor) -> Tensor:
    """One plain gradient for each image, as a training step takes it."""
    rewards = []
    for index, label in enumerate(LABELS):
        weights = {name: weight.clone().requires_grad_() for name, weight in frozen.weights.items()}
        loss = cross_entropy(frozen(weights, images)[index], label)
        gradients = torch.autograd.grad(loss, list(weights.values()))
        products = [(direction[name] * part).sum() for name, part in zip(weights, gradients, strict=True)]
        rewards.append(-STEP_SIZE * torch.stack(products).sum())
    return torch.stack(rewards)


@pytest.mark.parametrize("reward", [jvp, double_backward])
@pytest.mark.parametrize("kind", SMALL)
def test_exact_rewards_follow_the_shaken_gradient_of_the_step(
    kind: str, reward: Callable[..., Tensor], doubles: Tensor
) -> None:
    frozen, direction = recorded(SMALL[kind]().double(), doubles)
    wanted = rewards_by_definition(frozen, direction, doubles)
    torch.testing.assert_close(reward(frozen, direction, doubles, LABELS, STEP_SIZE), wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", SMALL)
def test_a_recorded_step_repeats_both_noises(kind: str, doubles: Tensor) -> None:
    network = SMALL[kind]().double()
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    with record_step(network) as record:
        one_step(network, doubles, LABELS)
    weights = {name: weight.clone().requires_grad_() for name, weight in before.items()}
    torch.rand(7)
    loss = cross_entropy(record.live()(weights, doubles), LABELS)
    torch.rand(7)
    gradients = torch.autograd.grad(loss, list(weights.values()))
    for (name, weight), gradient in zip(network.named_parameters(), gradients, strict=True):
        torch.testing.assert_close(weight.detach(), before[name] - STEP_SIZE * gradient)


@pytest.mark.parametrize("kind", SMALL)
def test_both_exact_ways_agree_on_the_gradient_in_the_images(kind: str, doubles: Tensor) -> None:
    frozen, direction = recorded(SMALL[kind]().double(), doubles)
    gradients = []
    for reward in (jvp, double_backward):
        images = doubles.clone().requires_grad_()
        rewards = reward(frozen, direction, images, LABELS, STEP_SIZE)
        gradients += torch.autograd.grad(rewards.sum(), images)
    assert gradients[0].any()
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("kind", SMALL)
def test_a_difference_of_losses_is_refused_where_it_would_measure_another_gradient(kind: str, doubles: Tensor) -> None:
    network = SMALL[kind]().double()
    frozen, direction = recorded(network, doubles)
    with pytest.raises(ValueError, match=r"Shake.*use jvp or double_backward") as error:
        finite_difference(frozen, direction, doubles, LABELS, STEP_SIZE)
    assert "\n" not in str(error.value)
    # In evaluation it is a network like any other.
    for module in network.modules():
        module.train(isinstance(module, nn.BatchNorm2d))
    frozen, direction = recorded(network, doubles)
    found = finite_difference(frozen, direction, doubles, LABELS, STEP_SIZE, epsilon=1e-6)
    torch.testing.assert_close(found, rewards_by_definition(frozen, direction, doubles), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("searcher", [Differentiable(), Table()], ids=lambda one: type(one).__name__)
def test_a_search_by_differences_refuses_such_a_network_before_it_begins(searcher: Any) -> None:
    network = SMALL["shake_shake"]()
    context = Context(network, None, Standard(mean=(0.5,), std=(1.0,)), torch.Generator(), epochs=2)
    with pytest.raises(InputError, match=r"use searcher=differentiable searcher\.rewards\.epsilon=0") as error:
        searcher.start(context)
    assert "\n" not in str(error.value)
    assert Differentiable(rewards=Rewards(epsilon=0)).start(context)
