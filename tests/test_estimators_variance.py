"""The surrogates of RELAX minimize the variance of the estimate that is used, and they do lower it."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from jointsearch.estimators.draw import Estimator, Noise, PolicyLogits, draw_noise
from jointsearch.estimators.reinforce import Reinforce
from jointsearch.estimators.relax import Relax
from tests.estimators_bench import (
    both_scorings,
    copies,
    flat,
    random_logits,
    random_table,
    rewards_of,
    seeded,
    some_relax,
)

LARGE, STAGES = 20, 2


@pytest.fixture(params=[1, 5], ids=["one draw", "five draws"])
def draws(request: pytest.FixtureRequest) -> int:
    return request.param


def sum_of_squares_one_by_one(relax: Relax, logits: PolicyLogits, noise: Noise, rewards: Tensor) -> Tensor:
    """The squared norms of the draws' estimates, from the public correction and one backward for each draw."""
    own = PolicyLogits(*(each.clone().requires_grad_() for each in logits))
    terms = relax(own, noise).correction(rewards)
    gradients = [torch.autograd.grad(term, own, retain_graph=True) for term in terms]
    return torch.stack([part.square().sum() for gradient in gradients for part in gradient]).sum()


@both_scorings
def test_the_variance_is_the_sum_of_the_squared_estimates_and_so_is_its_gradient(scoring: str, draws: int) -> None:
    logits, rewards = random_logits(0, 3, 2), torch.randn(draws, dtype=torch.float64, generator=seeded(1))
    noise = draw_noise(logits, draws, scoring, seeded(2))
    relax = some_relax(scoring, hidden=3, sub_policies=3)
    variance = relax(logits, noise).variance(rewards)
    torch.testing.assert_close(variance, sum_of_squares_one_by_one(relax, logits, noise, rewards), rtol=1e-12, atol=0)
    found = parameters_to_vector(torch.autograd.grad(variance, list(relax.parameters())))
    differences = central_differences(relax, logits, noise, rewards)
    torch.testing.assert_close(found, differences, rtol=0, atol=1e-6 * differences.abs().max().item())


def central_differences(relax: Relax, logits: PolicyLogits, noise: Noise, rewards: Tensor) -> Tensor:
    start, step = parameters_to_vector(relax.parameters()).detach(), 1e-5
    differences = []
    for direction in step * torch.eye(len(start), dtype=torch.float64):
        sides = []
        for moved in (start + direction, start - direction):
            vector_to_parameters(moved, relax.parameters())
            sides.append(sum_of_squares_one_by_one(relax, logits, noise, rewards))
        differences.append((sides[0] - sides[1]) / (2 * step))
    vector_to_parameters(start, relax.parameters())
    return torch.stack(differences)


@both_scorings
def test_the_variance_reaches_the_surrogates_only(scoring: str) -> None:
    logits = PolicyLogits(*(each.requires_grad_() for each in random_logits()))
    relax = some_relax(scoring)
    draw = relax(logits, draw_noise(logits, 3, scoring, seeded()))
    draw.variance(torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64, requires_grad=True)).backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in relax.parameters() if parameter.dim() > 1)
    assert logits.sub_policy.grad is None
    assert logits.act.grad is None


def spread(estimator: Estimator, logits: PolicyLogits, table: Tensor, noise_of_rewards: float) -> float:
    """Total variance of a draw's estimate, over the same 20,000 draws for every estimator."""
    generator, estimates = seeded(9), []
    for _ in range(20):
        own = copies(logits, 1000)
        draw = estimator(own, draw_noise(logits, 1000, estimator.scoring, generator))
        rewards = noisy(rewards_of(draw, table), noise_of_rewards, generator)
        estimates.append(flat(torch.autograd.grad(draw.correction(rewards).sum(), own)))
    return torch.cat(estimates).var(0).sum().item()


def noisy(rewards: Tensor, size: float, generator: torch.Generator) -> Tensor:
    return rewards + size * torch.randn(len(rewards), dtype=torch.float64, generator=generator)


def relative_spread_while_learning(
    scoring: str, noise_of_rewards: float, reports: list[int], size: float = 1.0, rate: float = 0.005
) -> Iterator[float]:
    """Variance of RELAX over that of REINFORCE with leave-one-out, after these numbers of steps of 128 draws."""
    # The reward is a finite difference of losses. RELAX of the two losses would equal this REINFORCE for any surrogate.
    logits = random_logits(0, LARGE, STAGES)
    table = size * (random_table(0, LARGE, STAGES) - random_table(1, LARGE, STAGES))
    reference = spread(Reinforce("leave_one_out", scoring), logits, table, noise_of_rewards)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        relax = Relax(LARGE, STAGES, scoring, hidden=32).double()
    optimizer = torch.optim.Adam(relax.parameters(), lr=rate)
    generator = seeded(5)
    for step in range(max(reports) + 1):
        if step in reports:
            yield spread(relax, logits, table, noise_of_rewards) / reference
        draw = relax(logits, draw_noise(logits, 128, scoring, generator))
        optimizer.zero_grad()
        rewards = noisy(rewards_of(draw, table), noise_of_rewards, generator)
        relax.observe(rewards)
        draw.variance(rewards).backward()
        optimizer.step()


@pytest.mark.slow
def test_learned_surrogates_lower_the_variance_below_leave_one_out() -> None:
    ratios = list(relative_spread_while_learning("hierarchical", 0.0, [0, 100, 500]))
    assert ratios[0] == pytest.approx(1)
    assert max(ratios) < 1.1
    assert ratios[-1] < 0.85


@both_scorings
def test_surrogates_of_rewards_as_small_as_those_of_a_search_do_no_harm(scoring: str) -> None:
    assert max(relative_spread_while_learning(scoring, 0.0, [10, 50], size=0.004, rate=0.02)) < 1.1


@pytest.mark.slow
@both_scorings
def test_surrogates_that_can_only_learn_noise_do_little_harm(scoring: str) -> None:
    assert max(relative_spread_while_learning(scoring, 5.0, [50, 200])) < 1.1
