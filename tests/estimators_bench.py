"""What the tests of estimators share: logits, rewards, every estimator, and the exact gradient."""

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor

from jointsearch.estimators.draw import Draw, Estimator, Noise, PolicyLogits
from jointsearch.estimators.exact import expected_reward, outcomes
from jointsearch.estimators.reinforce import Reinforce
from jointsearch.estimators.relax import Relax

N, K = 4, 2
SCORINGS = ("hierarchical", "joint")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_logits(seed: int = 0, sub_policies: int = N, stages: int = K) -> PolicyLogits:
    """Not normalized: a constant is added to the logits of the sub-policies."""
    normal = torch.randn(sub_policies, 1 + stages, dtype=torch.float64, generator=seeded(seed))
    return PolicyLogits(normal[:, 0] + 0.7, normal[:, 1:])


def random_table(seed: int = 0, sub_policies: int = N, stages: int = K) -> Tensor:
    """(N, 2^K) a reward for every outcome, of mean 1."""
    return 1 + torch.randn(sub_policies, 2**stages, dtype=torch.float64, generator=seeded(100 + seed))


def rewards_of(draw: Draw, table: Tensor) -> Tensor:
    """(D,): every draw's entry of the table."""
    patterns = outcomes(draw.acts.shape[1]).to(draw.acts)
    return table[draw.sub_policy, (draw.acts[:, None] == patterns).all(-1).int().argmax(-1)]


def copies(logits: PolicyLogits, draws: int) -> PolicyLogits:
    """The logits repeated for each draw, so that one backward gives the gradient of each draw."""
    return PolicyLogits(*(each.detach().expand(draws, *each.shape).clone().requires_grad_() for each in logits))


def flat(gradients: Iterable[Tensor]) -> Tensor:
    return torch.cat([each.flatten(1) for each in gradients], 1)


def draw_gradients(estimator: Estimator, logits: PolicyLogits, noise: Noise, table: Tensor) -> Tensor:
    """(D, N + N * K): the estimate that each draw makes on its own."""
    own = copies(logits, len(noise.sub_policy))
    draw = estimator(own, noise)
    return flat(torch.autograd.grad(draw.correction(rewards_of(draw, table)).sum(), own))


def exact_gradient(logits: PolicyLogits, table: Tensor) -> Tensor:
    """(N + N * K,): the gradient of the expected reward."""
    own = PolicyLogits(*(each.detach().clone().requires_grad_() for each in logits))
    return torch.cat([each.flatten() for each in torch.autograd.grad(expected_reward(own, table), own)])


def some_relax(scoring: str, seed: int = 0, hidden: int = 8, sub_policies: int = N, stages: int = K) -> Relax:
    """RELAX with random surrogates, which are neither right nor zero."""
    relax = Relax(sub_policies, stages, scoring, hidden=hidden).double()
    generator = seeded(200 + seed)
    with torch.no_grad():
        for parameter in relax.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return relax


def after_some_steps(estimator: Reinforce) -> Reinforce:
    for rewards in (torch.tensor([0.3, 0.9]), torch.tensor([1.4])):
        estimator.observe(rewards)
    return estimator


UNBIASED: dict[str, Callable[[], Estimator]] = {
    f"{name} {scoring}": (lambda build=build, scoring=scoring: build(scoring))
    for scoring in SCORINGS
    for name, build in {
        "none": lambda scoring: Reinforce("none", scoring),
        "ema": lambda scoring: after_some_steps(Reinforce("ema", scoring)),
        "leave one out": lambda scoring: Reinforce("leave_one_out", scoring),
        "relax": some_relax,
    }.items()
}
every_unbiased = pytest.mark.parametrize("build", UNBIASED.values(), ids=UNBIASED.keys())
both_scorings = pytest.mark.parametrize("scoring", SCORINGS)
