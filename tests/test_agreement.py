"""The benchmark that compares rewards and gradients with what the real training step does."""

import math

import pytest
import torch
from torch import Tensor, nn

from jointsearch.benchmarks import agreement as bench
from jointsearch.benchmarks.agreement import Steps, agreement, magnitudes_agreement, rewards_agreement, trained_steps


def test_two_vectors_are_compared_by_hand() -> None:
    found = agreement(torch.tensor([3.0, -4.0]), torch.tensor([1.0, 0.5]))
    assert found.cosine == pytest.approx(1 / (5 * math.sqrt(1.25)))
    assert found.size == pytest.approx(5 / math.sqrt(1.25))
    assert found.signs == 0.5


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    monkeypatch.setattr(bench, "EPOCHS", 1)
    monkeypatch.setattr(bench, "BATCH", 16)
    return trained_steps()


def test_without_batch_statistics_the_reward_of_an_image_is_its_effect_on_the_step(steps: Steps) -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3 * 32 * 32, len(steps.data.train.classes)).double()

        def forward(self, images: Tensor) -> Tensor:
            return self.head(images.flatten(1)).tanh()

    steps.network = Plain()
    for one in rewards_agreement(steps, 2, 3).values():
        assert one.cosine == pytest.approx(1)
        assert one.size == pytest.approx(1)
    found = magnitudes_agreement(steps, 1)
    assert found["jvp"].cosine > 0.9
    assert found["finite difference, epsilon 0.01, frozen"] == found["finite difference, epsilon 0.01"]


def test_a_measured_step_leaves_the_network_as_it_was(steps: Steps) -> None:
    before = {name: value.clone() for name, value in steps.network.state_dict().items()}
    rewards_agreement(steps, 1, 2)
    assert all(torch.equal(value, before[name]) for name, value in steps.network.state_dict().items())
