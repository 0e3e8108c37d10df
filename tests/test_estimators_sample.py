"""The conditional samples of RELAX: they round to the draw, have the unconditional law, and are differentiable."""

from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.autograd import gradcheck

from jointsearch.estimators.draw import EDGE, PolicyLogits, draw_noise
from jointsearch.estimators.sample import (
    Sample,
    draw_sample,
    relaxed_acts,
    relaxed_acts_given,
    relaxed_sub_policy,
    relaxed_sub_policy_given,
)
from tests.estimators_bench import K, N, both_scorings, random_logits, seeded

DRAWS = 100_000


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=seeded(seed)).clamp(EDGE, 1 - EDGE)


def sample_and_conditional(scoring: str, dtype: torch.dtype = torch.float64) -> tuple[Sample, Tensor, Tensor]:
    logits = PolicyLogits(*(each.to(dtype) for each in random_logits(3)))
    noise = draw_noise(logits, DRAWS, scoring, seeded(4))
    sample = draw_sample(logits, noise, scoring)
    given = relaxed_sub_policy_given(sample.sub_policy_logits, sample.sub_policy, noise.sub_policy_given)
    return sample, given, relaxed_acts_given(sample.act_logits, sample.bits, noise.act_given)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@both_scorings
def test_the_conditional_sample_always_rounds_to_the_draw(scoring: str, dtype: torch.dtype) -> None:
    sample, given, acts_given = sample_and_conditional(scoring, dtype)
    assert torch.equal(given.argmax(-1), sample.sub_policy)
    assert torch.equal((acts_given > 0).to(dtype), sample.bits)


@both_scorings
def test_over_all_draws_the_conditional_sample_has_the_law_of_the_unconditional_one(scoring: str) -> None:
    logits = random_logits(3)
    sample, given, acts_given = sample_and_conditional(scoring)
    location = logits.sub_policy.log_softmax(0)
    for relaxed, relaxed_acts_ in ((sample.relaxed_sub_policy, sample.relaxed_acts), (given, acts_given)):
        for n in range(N):
            assert stats.kstest(relaxed[:, n], stats.gumbel_r(location[n].item()).cdf).pvalue > 1e-3
            for k in range(K):
                of_n = relaxed_acts_[:, n, k] if scoring == "joint" else relaxed_acts_[sample.sub_policy == n, k]
                assert stats.kstest(of_n, stats.logistic(logits.act[n, k].item()).cdf).pvalue > 1e-3


def test_over_all_draws_the_entries_of_the_conditional_sample_are_uncorrelated() -> None:
    # Over all draws the entries are independent Gumbels again, although for one draw each is truncated at the largest.
    _, given, acts_given = sample_and_conditional("joint")
    correlation = torch.corrcoef(torch.cat([given, acts_given.flatten(1)], 1).T)
    assert (correlation - torch.eye(len(correlation))).abs().max() < 4.5 / DRAWS**0.5


def test_the_conditional_sub_policy_is_the_formula_written_out() -> None:
    logits, v = random_logits(5).sub_policy.expand(50, -1), uniform(50, N)
    chosen = torch.arange(50) % N
    probability = logits.exp() / logits.exp().sum(-1, keepdim=True)
    found = relaxed_sub_policy_given(logits, chosen, v)
    for d in range(50):
        c = chosen[d]
        for i in range(N):
            other = -torch.log(-torch.log(v[d, i]) / probability[d, i] - torch.log(v[d, c]))
            expected = -torch.log(-torch.log(v[d, c])) if i == c else other
            torch.testing.assert_close(found[d, i], expected, rtol=0, atol=1e-12)


def test_the_conditional_bit_is_the_formula_written_out() -> None:
    logits, v = torch.linspace(-5, 5, 50, dtype=torch.float64), uniform(50)
    beta = torch.sigmoid(logits)
    for bit, squeezed in ((1.0, v * beta + 1 - beta), (0.0, v * (1 - beta))):
        expected = logits + torch.log(squeezed) - torch.log(1 - squeezed)
        found = relaxed_acts_given(logits, torch.full_like(v, bit), v)
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_an_op_acts_as_often_as_its_probability_says() -> None:
    logits = torch.tensor([-2.0, 0.0, 1.5], dtype=torch.float64)
    share = (relaxed_acts(logits, uniform(DRAWS, 3)) > 0).double().mean(0)
    torch.testing.assert_close(share, torch.sigmoid(logits), rtol=0, atol=4.5 * 0.5 / DRAWS**0.5)


DIFFERENTIABLE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sub-policy": relaxed_sub_policy,
    "sub-policy given": lambda logits, v: relaxed_sub_policy_given(logits, torch.arange(6) % N, v),
    "acts": relaxed_acts,
    "acts given": lambda logits, v: relaxed_acts_given(logits, (v.flip(0) > 0.5).double(), v),
}


@pytest.mark.parametrize("sample", DIFFERENTIABLE.values(), ids=DIFFERENTIABLE.keys())
def test_with_frozen_noise_a_sample_follows_its_logits_as_finite_differences_do(
    sample: Callable[[Tensor, Tensor], Tensor],
) -> None:
    logits = torch.randn(6, N, dtype=torch.float64, generator=seeded(6)).requires_grad_()
    assert gradcheck(lambda each: sample(each, uniform(6, N, seed=7)), [logits], eps=1e-6, atol=1e-5, rtol=0)
