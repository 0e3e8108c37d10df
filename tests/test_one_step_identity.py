"""The identity behind policy search by gradients: rewards of single images give the derivative through a step.

A network takes one step on the expected loss under a policy, and autograd differentiates the validation loss after it
in the policy, through that step. Rewards measured image by image, times the policy's scores, give the same gradient.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from jointsearch.estimators.draw import PolicyLogits
from jointsearch.estimators.exact import expected_reward, log_probabilities
from jointsearch.through_step.double_backward import double_backward
from jointsearch.through_step.jvp import jvp
from jointsearch.through_step.loss import per_image_loss
from jointsearch.through_step.record import record_step
from jointsearch.through_step.validation import validation_gradient

STEP_SIZE = 0.3
SUB_POLICIES, IMAGES, PIXELS, CLASSES = 3, 4, 6, 3
OUTCOMES = SUB_POLICIES * 2  # one op each, which acts or not
LABELS = torch.arange(IMAGES) % CLASSES


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def smooth_network() -> nn.Sequential:
    network = nn.Sequential(nn.Linear(PIXELS, 5), nn.Tanh(), nn.Linear(5, CLASSES)).double()
    for seed, parameter in enumerate(network.parameters()):
        parameter.data = normal(*parameter.shape, seed=seed)
    return network


def some_logits() -> PolicyLogits:
    return PolicyLogits(normal(SUB_POLICIES, seed=10), normal(SUB_POLICIES, 1, seed=11))


def images_under(strengths: Tensor) -> Tensor:
    """(6 x 4, 6) under each outcome, in the order of `log_probabilities`: an op that acts adds so much of a pattern."""
    acting = torch.stack([torch.zeros_like(strengths), strengths], 1).flatten()  # (6,)
    patterns = normal(SUB_POLICIES, PIXELS, seed=12).repeat_interleave(2, 0)  # (6, 6)
    return (normal(IMAGES, PIXELS, seed=13) + (acting[:, None] * patterns)[:, None]).flatten(0, 1)


@pytest.mark.parametrize("reward", [double_backward, jvp])
def test_score_times_reward_is_the_gradient_of_the_validation_loss_through_the_training_step(
    reward: Callable[..., Tensor],
) -> None:
    network, strengths = smooth_network(), torch.tensor([0.4, 0.8, 0.6], dtype=torch.float64, requires_grad=True)
    logits = PolicyLogits(*(each.requires_grad_() for each in some_logits()))
    learned, labels = (*logits, strengths), LABELS.repeat(OUTCOMES)
    judges = (normal(5, PIXELS, seed=14), torch.arange(5) % CLASSES)

    def expected_loss(weights: dict[str, Tensor], policy: PolicyLogits) -> Tensor:
        losses = per_image_loss(functional_call(network, weights, (images_under(strengths),)), labels)
        return (log_probabilities(policy).exp().flatten() * losses.view(OUTCOMES, IMAGES).mean(1)).sum()

    weights = {name: one.detach().clone().requires_grad_() for name, one in network.named_parameters()}
    steps = torch.autograd.grad(expected_loss(weights, logits), list(weights.values()), create_graph=True)
    after = {name: one - STEP_SIZE * step for (name, one), step in zip(weights.items(), steps, strict=True)}
    judged = cross_entropy(functional_call(network, after, (judges[0],)), judges[1])
    wanted = torch.autograd.grad(judged, learned)

    images = images_under(strengths)
    with record_step(network) as record:
        losses = per_image_loss(network(images.detach()), labels).view(OUTCOMES, IMAGES).mean(1)
        (log_probabilities(logits).exp().detach().flatten() * losses).sum().backward()
        torch.optim.SGD(network.parameters(), lr=STEP_SIZE).step()
    v = validation_gradient(network, [judges])
    rewards = reward(record.frozen(), v, images, labels, STEP_SIZE)  # (24,)
    table = rewards.view(SUB_POLICIES, 2, IMAGES).mean(-1)
    found = torch.autograd.grad(expected_reward(logits, table), learned)
    for one, truth in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, truth, rtol=0, atol=1e-12)
        assert truth.abs().min() > 1e-4
