"""The contract of every estimator: draws follow the policy, and the mean gradient of the correction is exact.

Here all draws are enumerated, so expectations are exact. Tests with sampled draws are in test_estimators_unbiased.py.
"""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from jointsearch.estimators.draw import EDGE, Estimator, Noise, PolicyLogits, draw_noise
from jointsearch.estimators.exact import log_probabilities, outcomes
from jointsearch.estimators.gumbel import Gumbel
from jointsearch.estimators.reinforce import Reinforce
from jointsearch.estimators.relax import Relax
from tests.estimators_bench import (
    SCORINGS,
    UNBIASED,
    K,
    N,
    after_some_steps,
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
)

GUMBEL: dict[str, Callable[[], Estimator]] = {
    f"gumbel {scoring} {name}": (lambda hard=hard, scoring=scoring: Gumbel(0.5, hard, scoring))
    for scoring in SCORINGS
    for name, hard in {"hard": True, "soft": False}.items()
}
FAMILY = UNBIASED | GUMBEL
every_estimator = pytest.mark.parametrize("build", FAMILY.values(), ids=FAMILY.keys())


def noise_of_every_outcome(sub_policies: int, stages: int, scoring: str) -> tuple[Noise, Tensor]:
    """Noise that forces each outcome once, and which bits it forces: (D, K) or (D, N, K)."""
    bits = stages if scoring == "hierarchical" else sub_policies * stages
    choices = torch.arange(sub_policies).repeat_interleave(2**bits)
    patterns = outcomes(bits).double().repeat(sub_policies, 1)  # (D, bits)
    if scoring == "joint":
        patterns = patterns.view(-1, sub_policies, stages)
    chosen = one_hot(choices, sub_policies).double()
    low_or_high = [EDGE + (1 - 2 * EDGE) * each for each in (chosen, patterns)]
    return Noise(*low_or_high, torch.full_like(chosen, 0.3), torch.full_like(patterns, 0.6)), patterns


def probabilities_of_every_outcome(logits: PolicyLogits, noise: Noise, patterns: Tensor) -> Tensor:
    """(D,): the probabilities by plain multiplication."""
    choices = noise.sub_policy.argmax(-1)
    act = torch.sigmoid(logits.act if patterns.dim() == 3 else logits.act[choices])
    of_bits = torch.where(patterns > 0, act, 1 - act).flatten(1).prod(1)
    return torch.softmax(logits.sub_policy, 0)[choices] * of_bits


def test_the_probabilities_of_all_outcomes_are_the_products_of_their_parts() -> None:
    logits = random_logits()
    noise, patterns = noise_of_every_outcome(N, K, "hierarchical")
    expected = probabilities_of_every_outcome(logits, noise, patterns)
    torch.testing.assert_close(log_probabilities(logits).exp().flatten(), expected, rtol=0, atol=1e-15)
    assert expected.sum().item() == pytest.approx(1, abs=1e-14)


@both_scorings
@pytest.mark.parametrize("shape", [(4, 2), (3, 1), (1, 2), (2, 2)])
def test_reward_times_score_summed_over_every_outcome_is_the_exact_gradient(
    shape: tuple[int, int], scoring: str
) -> None:
    logits, table = random_logits(0, *shape), random_table(0, *shape)
    noise, patterns = noise_of_every_outcome(*shape, scoring)
    weights = probabilities_of_every_outcome(logits, noise, patterns)
    for estimator in (Reinforce("none", scoring), after_some_steps(Reinforce("ema", scoring))):
        found = weights @ draw_gradients(estimator, logits, noise, table)
        torch.testing.assert_close(found, exact_gradient(logits, table), rtol=0, atol=1e-12)


@both_scorings
@pytest.mark.parametrize("draws", [2, 3])
def test_leave_one_out_is_unbiased_with_as_few_as_two_draws(draws: int, scoring: str) -> None:
    logits, table = random_logits(1, 2, 1), random_table(1, 2, 1)
    noise, patterns = noise_of_every_outcome(2, 1, scoring)
    weights = probabilities_of_every_outcome(logits, noise, patterns)
    found = torch.zeros(4, dtype=torch.float64)
    for together in itertools.product(range(len(weights)), repeat=draws):
        chosen = Noise(*(each[list(together)] for each in noise))
        gradient = draw_gradients(Reinforce("leave_one_out", scoring), logits, chosen, table).mean(0)
        found += weights[list(together)].prod() * gradient
    torch.testing.assert_close(found, exact_gradient(logits, table), rtol=0, atol=1e-12)


@every_estimator
def test_draws_occur_as_often_as_the_policy_says(build: Callable[[], Estimator]) -> None:
    logits, draws = random_logits(2), 40_000
    estimator = build()
    draw = estimator(logits, draw_noise(logits, draws, estimator.scoring, seeded()))
    counted = torch.zeros(N, 2**K, dtype=torch.float64)
    code = (draw.acts > 0.5).double() @ torch.tensor([2.0, 1.0], dtype=torch.float64)
    counted.index_put_((draw.sub_policy, code.long()), torch.ones(draws, dtype=torch.float64), accumulate=True)
    expected = draws * log_probabilities(logits).exp()
    chi_square = ((counted - expected).square() / expected).sum()
    assert chi_square < 37.7  # 15 degrees of freedom, p = 0.001


@every_estimator
def test_same_logits_and_noise_make_the_same_draw_and_the_global_generator_is_left_alone(
    build: Callable[[], Estimator],
) -> None:
    estimator, logits = build(), random_logits()
    before = torch.random.get_rng_state()
    noises = [draw_noise(logits, 5, estimator.scoring, seeded(3)) for _ in range(2)]
    draws = [estimator(logits, noise) for noise in noises]
    for name in ("sub_policy", "acts", "weights", "all_acts"):
        first, second = (getattr(draw, name) for draw in draws)
        assert (first is None and second is None) or torch.equal(first, second)
    rewards = torch.arange(5.0, dtype=torch.float64)
    assert torch.equal(draws[0].correction(rewards), draws[1].correction(rewards))
    assert torch.equal(before, torch.random.get_rng_state())


@both_scorings
def test_noise_follows_the_logits_and_stays_away_from_zero_and_one(scoring: str) -> None:
    logits = PolicyLogits(torch.zeros(3), torch.zeros(3, 2))
    noise = draw_noise(logits, 200_000, scoring, seeded())
    shape = (200_000, 2) if scoring == "hierarchical" else (200_000, 3, 2)
    assert [each.shape for each in noise] == [(200_000, 3), shape, (200_000, 3), shape]
    for each in noise:
        assert each.dtype == torch.float32
        assert torch.isfinite(torch.log(-torch.log(each))).all()
        assert torch.isfinite(torch.log1p(-each)).all()
        assert ((each >= EDGE) & (each <= 1 - EDGE)).all()
        assert each.mean().item() == pytest.approx(0.5, abs=0.005)
    assert not torch.equal(noise.sub_policy, noise.sub_policy_given)
    assert not torch.equal(noise.act, noise.act_given)


@every_unbiased
def test_backward_of_the_mean_correction_is_the_mean_of_the_draws_estimates(build: Callable[[], Estimator]) -> None:
    estimator, table = build(), random_table()
    logits = PolicyLogits(*(each.requires_grad_() for each in random_logits()))
    noise = draw_noise(logits, 6, estimator.scoring, seeded())
    draw = estimator(logits, noise)
    rewards = rewards_of(draw, table).requires_grad_()
    draw.correction(rewards).mean().backward()
    expected = draw_gradients(estimator, logits, noise, table).mean(0)
    found = torch.cat([logits.sub_policy.grad.flatten(), logits.act.grad.flatten()])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    assert rewards.grad is None
    assert all(parameter.grad is None for parameter in estimator.parameters())


@every_unbiased
def test_the_bits_of_other_sub_policies_get_no_gradient_from_hierarchical_scoring(
    build: Callable[[], Estimator],
) -> None:
    estimator, logits = build(), random_logits()
    noise = draw_noise(logits, 50, estimator.scoring, seeded())
    of_bits = draw_gradients(estimator, logits, noise, random_table())[:, N:].view(50, N, K)
    chosen = estimator(logits, noise).sub_policy
    others = of_bits[one_hot(chosen, N) == 0]
    assert (others == 0).all() == (estimator.scoring == "hierarchical")


@every_estimator
def test_a_constant_added_to_the_logits_of_the_sub_policies_changes_nothing(build: Callable[[], Estimator]) -> None:
    estimator, logits, table = build(), random_logits(), random_table()
    moved = PolicyLogits(logits.sub_policy + 3.7, logits.act)
    noise = draw_noise(logits, 30, estimator.scoring, seeded())
    torch.testing.assert_close(
        observed_gradients(estimator, moved, noise, table),
        observed_gradients(estimator, logits, noise, table),
        rtol=0,
        atol=1e-12,
    )


def observed_gradients(estimator: Estimator, logits: PolicyLogits, noise: Noise, table: Tensor) -> Tensor:
    """(D, N + N * K) of the correction, or for Gumbel of what its weights and bits are multiplied with."""
    own = copies(logits, len(noise.sub_policy))
    draw = estimator(own, noise)
    if draw.weights is None:
        return draw_gradients(estimator, logits, noise, table)
    value = (draw.weights @ table[:, 1]).sum() + (draw.acts @ torch.tensor([1.0, -2.0], dtype=torch.float64)).sum()
    return flat(torch.autograd.grad(value, own))


@every_estimator
def test_renaming_the_sub_policies_renames_their_gradients(build: Callable[[], Estimator]) -> None:
    estimator, logits, table = build(), random_logits(), random_table()
    noise = draw_noise(logits, 30, estimator.scoring, seeded())
    before = observed_gradients(estimator, logits, noise, table)
    order = torch.tensor([2, 0, 3, 1])
    if isinstance(estimator, Relax):
        rename_inputs(estimator, order)
    reordered = PolicyLogits(logits.sub_policy[order], logits.act[order])
    renamed = Noise(*(each[:, order] if each.shape[1] == N else each for each in noise))
    after = observed_gradients(estimator, reordered, renamed, table[order])
    expected = torch.cat([before[:, :N][:, order], before[:, N:].view(30, N, K)[:, order].flatten(1)], 1)
    torch.testing.assert_close(after, expected, rtol=0, atol=1e-12)


def rename_inputs(relax: Relax, order: Tensor) -> None:
    bits = (N + K * order[:, None] + torch.arange(K)).flatten()
    for surrogate in relax.surrogates:
        rest = bits if relax.scoring == "joint" else torch.arange(N, surrogate.hidden.in_features)
        surrogate.hidden.weight.data = surrogate.hidden.weight.data[:, torch.cat([order, rest])]
