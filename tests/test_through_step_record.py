"""A recorded step is an ordinary step, live and frozen networks repeat it, and measuring rewards leaves no trace."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from jointsearch.loops.recipe import Recipe
from jointsearch.loops.trainer import Trainer
from jointsearch.networks.create import create_network
from jointsearch.randomness import own_global_randomness
from jointsearch.through_step.finite_difference import finite_difference
from jointsearch.through_step.record import StepNetwork, record_step
from tests.through_step_bench import LABELS, REWARDS, STEP_SIZE, doubles, one_step, recorded, singles, small

__all__ = ["doubles", "singles"]


def batch_norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def state(network: nn.Module) -> dict[str, Any]:
    """All state that a reward could change: the network's, and the generator's."""
    modules = list(network.modules())
    return {
        "tensors": {name: tensor.clone() for name, tensor in network.state_dict().items()},
        "strides": [tensor.stride() for tensor in network.state_dict().values()],
        "places": [tensor.data_ptr() for tensor in network.state_dict().values()],
        "gradients": [None if weight.grad is None else weight.grad.clone() for weight in network.parameters()],
        "trainable": [weight.requires_grad for weight in network.parameters()],
        "modes": [module.training for module in modules],
        "momenta": [getattr(module, "momentum", None) for module in modules],
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules],
        "generator": torch.get_rng_state(),
    }


def assert_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, equal_nan=True, msg=name)


@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
@pytest.mark.parametrize("mode", ["all train", "one in eval"])
def test_a_recorded_step_leaves_what_an_ordinary_step_leaves(
    momentum: float | None, mode: str, singles: Tensor
) -> None:
    recording = small()
    for module in batch_norms(recording):
        module.momentum = momentum
    batch_norms(recording)[1].train(mode == "all train")
    ordinary = copy.deepcopy(recording)
    for count in range(3):
        images = singles + count
        one_step(ordinary, images, LABELS)
        with record_step(recording):
            one_step(recording, images, LABELS)
        found, wanted = state(recording), state(ordinary)
        torch.testing.assert_close(found["tensors"], wanted["tensors"], rtol=1e-6, atol=1e-7)
        assert all(found[name] == wanted[name] for name in ("strides", "modes", "momenta", "hooks"))
    assert batch_norms(recording)[0].num_batches_tracked == 3


def test_buffers_are_right_as_soon_as_the_forward_pass_is_over(singles: Tensor) -> None:
    # An averaged copy of the network copies the buffers before the step is over.
    network, ordinary = small(), small()
    ordinary(singles)
    with record_step(network):
        network(singles)
        torch.testing.assert_close(dict(network.named_buffers()), dict(ordinary.named_buffers()))
        assert [module.momentum for module in batch_norms(network)] == [0.1, 0.1]


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_step_of_the_trainer_is_the_same_recorded_or_not(precision: str, images: Tensor) -> None:
    recipe = Recipe(epochs=1, ema_decay=0.9, precision=precision, drop_rate=0.3)
    networks = []
    for recording in (True, False):
        with own_global_randomness(3):
            network = create_network("wide_resnet16_1", num_classes=3, drop_rate=0.3)
            trainer = Trainer(network, recipe, torch.device("cpu"), classes=3, steps=1)
            if recording:
                with record_step(network) as record:
                    trainer.step(images, LABELS, done=0)
            else:
                trainer.step(images, LABELS, done=0)
            networks.append((network.state_dict(), trainer.network().state_dict()))
    torch.testing.assert_close(networks[0], networks[1], rtol=1e-5, atol=1e-6)
    rewards = finite_difference(record.frozen(), dict(network.named_parameters()), images, LABELS, STEP_SIZE)
    assert rewards.isfinite().all()
    assert len(rewards.unique()) == 8


def test_the_frozen_network_repeats_the_forward_pass_of_the_step(doubles: Tensor) -> None:
    network = small(dropout=0.5, dtype=torch.float64)
    outputs = []
    network.register_forward_hook(lambda _module, _inputs, output: outputs.append(output.detach()))
    frozen, _ = recorded(network, doubles)
    network.eval()
    again = frozen(frozen.weights, doubles)
    torch.testing.assert_close(again, outputs[0], rtol=1e-12, atol=1e-12)
    assert torch.equal(frozen({}, doubles), again)


def test_statistics_and_noise_are_constants_whatever_the_images(doubles: Tensor) -> None:
    frozen, _ = recorded(small(dropout=0.5, dtype=torch.float64), doubles)
    changed = torch.cat([doubles[:4], 3 * doubles[4:]])
    outputs, others = frozen({}, doubles), frozen({}, changed)
    assert torch.equal(outputs[:4], others[:4])
    assert not torch.equal(outputs[4:], others[4:])


def test_draws_before_the_forward_pass_are_not_taken_for_its_noise(doubles: Tensor) -> None:
    network = small(dropout=0.5, dtype=torch.float64)
    with record_step(network) as record:
        torch.rand(5)
        outputs = network(doubles)
    torch.testing.assert_close(record.frozen()({}, doubles), outputs, rtol=1e-12, atol=1e-12)
    with record_step(plain := small("group")) as record:
        torch.rand(5)
        plain(doubles.float())
        torch.rand(5)
    assert not record.frozen().noise


def test_the_frozen_weights_are_those_before_the_step_in_their_memory_format(singles: Tensor) -> None:
    network = small()
    network[-1].bias.requires_grad_(False)
    before = copy.deepcopy(network)
    with record_step(network) as record:
        one_step(network, singles, LABELS)
    weights = record.frozen().weights
    assert list(weights) == [name for name, weight in network.named_parameters() if weight.requires_grad]
    for name, weight in weights.items():
        was = before.get_parameter(name)
        assert torch.equal(weight, was)
        assert weight.stride() == was.stride()
        assert not weight.requires_grad
    assert not torch.equal(weights["0.weight"], network[0].weight)
    assert weights["0.weight"].is_contiguous(memory_format=torch.channels_last)


class Counter(nn.Module):
    """Writes to a buffer in every forward pass, and draws."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        self.passes.add_(1)
        return images * (1 + self.passes) + 0.1 * torch.rand_like(images)


def network_with_everything() -> nn.Sequential:
    return nn.Sequential(Counter(), small(dropout=0.5))


@pytest.mark.parametrize("with_image_gradients", [False, True])
@pytest.mark.parametrize("reward", REWARDS)
def test_a_reward_changes_nothing_bit_for_bit(
    reward: Callable[..., Tensor], with_image_gradients: bool, singles: Tensor
) -> None:
    network = network_with_everything()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    with record_step(network) as record:
        cross_entropy(network(singles), LABELS).backward()
        optimizer.step()
    frozen = record.frozen()
    direction = {name: weight.grad for name, weight in network.named_parameters()}
    batch_norms(network)[0].eval()
    before, momentum = state(network), copy.deepcopy(optimizer.state_dict())
    start = {name: weight.clone() for name, weight in frozen.weights.items()}
    images = singles.clone().requires_grad_(with_image_gradients)
    rewards = [reward(frozen, direction, images, LABELS, STEP_SIZE) for _ in range(2)]
    if with_image_gradients:
        rewards[0].sum().backward()
    assert torch.equal(*rewards)
    assert_same(state(network), before)
    assert_same({"optimizer": optimizer.state_dict()}, {"optimizer": momentum})
    assert_same(frozen.weights, start)
    assert torch.equal(images, singles)


class Fails(nn.Module):
    """Draws noise, and then raises if it is asked to."""

    failing = False

    def forward(self, images: Tensor) -> Tensor:
        images = nn.functional.dropout(images, 0.5)
        if self.failing:
            raise ArithmeticError
        return images


@pytest.mark.parametrize("reward", REWARDS)
def test_a_reward_that_fails_changes_nothing_either(reward: Callable[..., Tensor], singles: Tensor) -> None:
    network = nn.Sequential(*small()[:6], fails := Fails(), *small()[6:])
    frozen, direction = recorded(network, singles)
    fails.failing = True
    precision = torch.backends.cuda.matmul.fp32_precision
    before = state(network)
    with pytest.raises(ArithmeticError):
        reward(frozen, direction, singles, LABELS, STEP_SIZE)
    assert_same(state(network), before)
    assert torch.backends.cuda.matmul.fp32_precision == precision
    assert not torch.is_autocast_enabled("cpu")


def test_a_step_that_fails_leaves_the_layers_as_an_ordinary_one_would(singles: Tensor) -> None:
    network = nn.Sequential(*small()[:4], fails := Fails(), *small()[4:])
    fails.failing = True
    ordinary = copy.deepcopy(network)
    with pytest.raises(ArithmeticError):
        ordinary(singles)
    with pytest.raises(ArithmeticError), record_step(network) as record:
        network(singles)
    found, wanted = state(network), state(ordinary)
    torch.testing.assert_close(found["tensors"], wanted["tensors"])
    assert all(found[name] == wanted[name] for name in ("modes", "momenta", "hooks"))
    with pytest.raises(ValueError, match="is not over or has failed, so there is nothing to repeat"):
        record.frozen()


def test_a_batch_normalization_without_running_statistics_has_live_ones_only(singles: Tensor) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
    with record_step(network) as record:
        outputs = network(singles)
    torch.testing.assert_close(record.live()({}, singles), outputs)
    with pytest.raises(
        ValueError, match=r"'1' keeps no running statistics.*use live statistics, or.*track_running_stats=True"
    ):
        record.frozen()
    assert not network[1]._forward_hooks


def test_a_batch_normalization_that_runs_twice_has_live_statistics_only(singles: Tensor) -> None:
    shared = nn.BatchNorm2d(3)
    network = nn.Sequential(shared, nn.Conv2d(3, 3, 3), shared)
    ordinary = copy.deepcopy(network)
    wanted = ordinary(singles)
    with record_step(network) as record:
        network(singles)
    torch.testing.assert_close(state(network)["tensors"], state(ordinary)["tensors"])
    assert state(network)["hooks"] == state(ordinary)["hooks"]
    torch.testing.assert_close(record.live()({}, singles), wanted)
    with pytest.raises(ValueError, match=r"'0' ran twice in the recorded step.*give every use its own layer"):
        record.frozen()


def test_live_statistics_are_those_of_the_images_and_of_the_moved_weights(doubles: Tensor) -> None:
    network = small(dropout=0.5, dtype=torch.float64)
    batch_norms(network)[1].eval()
    with record_step(network) as record:
        torch.manual_seed(4)
        network(doubles)
    before = state(network)
    moved = {name: 1.1 * weight for name, weight in record.live().weights.items()}
    found = record.live()(moved, 3 * doubles)
    assert_same(state(network), {**before, "generator": torch.get_rng_state()})
    for name, weight in moved.items():
        network.get_parameter(name).data.copy_(weight)
    torch.manual_seed(4)
    torch.testing.assert_close(found, network(3 * doubles), rtol=1e-12, atol=1e-12)


def test_a_step_is_one_forward_pass_no_less_and_no_more(singles: Tensor) -> None:
    network = small("group")
    with record_step(network) as record:
        pass
    with pytest.raises(ValueError, match=r"called no forward pass.*inside record_step\(network\)"):
        record.frozen()
    with record_step(network) as record:
        network(singles)
        with pytest.raises(ValueError, match="is not over or has failed"):
            record.frozen()
    assert isinstance(record.frozen(), StepNetwork)
    with record_step(network):
        network(singles)
        with pytest.raises(ValueError, match=r"called the network twice.*make one forward pass"):
            network(singles)
    assert state(network)["hooks"] == state(small("group"))["hooks"]
