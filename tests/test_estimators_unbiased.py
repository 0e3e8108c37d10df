"""Estimators that sample more than their draw are unbiased: their mean equals enumeration for any surrogate."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from jointsearch.estimators.draw import Estimator, PolicyLogits, draw_noise
from jointsearch.estimators.reinforce import Reinforce
from jointsearch.estimators.relax import Relax
from tests.estimators_bench import (
    K,
    N,
    both_scorings,
    copies,
    draw_gradients,
    every_unbiased,
    exact_gradient,
    flat,
    random_logits,
    random_table,
    rewards_of,
    seeded,
    some_relax,
)

BATCHES, BATCH = 30, 10_000


def z_scores(estimator: Estimator, logits: PolicyLogits, table: Tensor, seed: int) -> Tensor:
    """(N + N * K,) distance of the mean of 300,000 estimates from the truth, in standard errors."""
    generator = seeded(1000 + seed)
    sums = torch.zeros(2, N + N * K, dtype=torch.float64)
    for _ in range(BATCHES):
        noise = draw_noise(logits, BATCH, estimator.scoring, generator)
        deviation = draw_gradients(estimator, logits, noise, table) - exact_gradient(logits, table)
        sums += torch.stack([deviation.sum(0), deviation.square().sum(0)])
    mean, square = sums / (BATCHES * BATCH)
    return mean / ((square - mean.square()) / (BATCHES * BATCH)).sqrt()


@pytest.mark.parametrize("seed", range(3))
@every_unbiased
def test_the_mean_of_many_estimates_is_the_exact_gradient(build: Callable[[], Estimator], seed: int) -> None:
    assert z_scores(build(), random_logits(seed), random_table(seed), seed).abs().max() < 4.5


@both_scorings
def test_a_constant_added_to_the_reward_does_not_change_the_expectation(scoring: str) -> None:
    logits, table = random_logits(), random_table()
    for estimator in (Reinforce("none", scoring), some_relax(scoring), Reinforce("leave_one_out", scoring)):
        noise = draw_noise(logits, 50_000, scoring, seeded(8))
        change = draw_gradients(estimator, logits, noise, table + 5) - draw_gradients(estimator, logits, noise, table)
        standard_error = change.std(0) / len(change) ** 0.5
        assert (change.mean(0).abs() <= 4.5 * standard_error + 1e-12).all()


@both_scorings
def test_subtracting_estimates_at_two_weights_leaves_plain_reinforce(scoring: str) -> None:
    # The published order: the estimator sees the losses at w+ and w-, which share their draw and noise.
    logits, upper, lower = random_logits(), random_table(1), random_table(2)
    for draws, baseline in ((1, "none"), (64, "leave_one_out")):
        noise = draw_noise(logits, draws, scoring, seeded(draws))
        relax, reinforce = some_relax(scoring), Reinforce(baseline, scoring)
        published = draw_gradients(relax, logits, noise, upper) - draw_gradients(relax, logits, noise, lower)
        plain = draw_gradients(reinforce, logits, noise, upper - lower)
        torch.testing.assert_close(published, plain, rtol=0, atol=1e-12)
        ours = draw_gradients(relax, logits, noise, upper - lower)
        assert (ours - plain).abs().max() > 0.1


@both_scorings
def test_a_second_op_that_never_matters_leaves_the_gradient_of_the_first_as_it_is(scoring: str) -> None:
    logits = random_logits(3)
    alone = PolicyLogits(logits.sub_policy, logits.act[:, :1])
    table = random_table(3, stages=1)
    ignoring = table.repeat_interleave(2, dim=1)  # outcomes (b1, b2) count up with b2 fastest
    whole = exact_gradient(logits, ignoring)
    torch.testing.assert_close(whole[:N], exact_gradient(alone, table)[:N], rtol=0, atol=1e-14)
    of_acts = torch.stack([exact_gradient(alone, table)[N:], torch.zeros(N)], 1)
    torch.testing.assert_close(whole[N:].view(N, K), of_acts, rtol=0, atol=1e-14)
    for estimator in (Reinforce("none", scoring), some_relax(scoring)):
        assert z_scores(estimator, logits, ignoring, 3).abs().max() < 4.5


@pytest.mark.parametrize("draws", [1, 6])
@both_scorings
def test_relax_starts_as_reinforce(draws: int, scoring: str) -> None:
    logits, table = random_logits(), random_table()
    noise = draw_noise(logits, draws, scoring, seeded())
    reinforce = Reinforce("none" if draws == 1 else "leave_one_out", scoring)
    found = draw_gradients(Relax(N, K, scoring).double(), logits, noise, table)
    torch.testing.assert_close(found, draw_gradients(reinforce, logits, noise, table), rtol=0, atol=1e-14)


def test_the_running_baseline_is_the_bias_corrected_mean_of_the_steps_before() -> None:
    estimator, logits = Reinforce("ema"), random_logits()
    noise = draw_noise(logits, 1, "hierarchical", seeded())

    def gradient(reward: float) -> Tensor:
        own = copies(logits, 1)
        draw = estimator(own, noise)
        return flat(torch.autograd.grad(draw.correction(torch.tensor([reward], dtype=torch.float64)).sum(), own))

    score = gradient(1.0)
    estimator.observe(torch.tensor([2.0, 4.0]))
    torch.testing.assert_close(gradient(1.0), (1 - 3) * score, rtol=1e-6, atol=0)
    estimator.observe(torch.tensor([6.0]))
    torch.testing.assert_close(gradient(1.0), (1 - (0.9 * 3 + 6) / 1.9) * score, rtol=1e-6, atol=0)
    resumed = Reinforce("ema")
    resumed.load_state_dict(estimator.state_dict())
    draw = resumed(logits, noise)
    assert torch.equal(draw.correction(torch.ones(1)), estimator(logits, noise).correction(torch.ones(1)))
    assert rewards_of(draw, random_table()).shape == (1,)
