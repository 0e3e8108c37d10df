"""Extreme logits and sizes give finite results, and invalid arguments are refused with a remedy."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from jointsearch.estimators.draw import EDGE, Estimator, Noise, PolicyLogits, draw_noise
from jointsearch.estimators.gumbel import Gumbel
from jointsearch.estimators.reinforce import Reinforce
from jointsearch.estimators.relax import Relax
from tests.estimators_bench import both_scorings, random_logits, seeded

EXTREME: dict[str, Callable[[str, float, tuple[int, int]], Estimator]] = {
    "reinforce": lambda scoring, temperature, size: Reinforce("leave_one_out", scoring),
    "relax": lambda scoring, temperature, size: busy(Relax(*size, scoring, temperature)),
    "gumbel": lambda scoring, temperature, size: Gumbel(temperature, hard=True, scoring=scoring),
    "soft gumbel": lambda scoring, temperature, size: Gumbel(temperature, hard=False, scoring=scoring),
}


def busy(relax: Relax) -> Relax:
    for surrogate in relax.surrogates:
        torch.nn.init.ones_(surrogate.output.weight)
    return relax


def extreme_logits(sub_policies: int, stages: int, act: float) -> PolicyLogits:
    """Float32; alternately as high and as low as they come, so that unlikely choices meet certain ones."""
    signs = 1 - 2 * (torch.arange(sub_policies * stages) % 2)
    return PolicyLogits(
        (50.0 * signs[:sub_policies]).requires_grad_(), (act * signs).view(sub_policies, stages).requires_grad_()
    )


def edge_noise(noise: Noise) -> Noise:
    """Half of the draws moved to the nearest edge."""
    half = len(noise.sub_policy) // 2
    return Noise(*(torch.cat([each[:half], each[half:].round().clamp(EDGE, 1 - EDGE)]) for each in noise))


# 13: noise at the edge still draws a bit of probability 2e-6.
@pytest.mark.parametrize("act", [20.0, 13.0])
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 1), (105, 2)], ids=str)
@pytest.mark.parametrize("temperature", [0.05, 5.0])
@both_scorings
@pytest.mark.parametrize("build", EXTREME.values(), ids=EXTREME.keys())
def test_extreme_logits_give_finite_draws_and_gradients(
    build: Callable[[str, float, tuple[int, int]], Estimator],
    scoring: str,
    temperature: float,
    size: tuple[int, int],
    act: float,
) -> None:
    logits = extreme_logits(*size, act)
    noise = edge_noise(draw_noise(logits, 200, scoring, seeded()))
    estimator = build(scoring, temperature, size)
    draw = estimator(logits, noise)
    rewards = torch.randn(200, generator=seeded(1))
    value = draw.correction(rewards).mean() + draw.acts.mean()
    if draw.weights is not None:
        value = value + draw.weights[:, 0].mean()
    if draw.variance is not None:
        value = value + draw.variance(rewards)
    value.backward()
    gradients = [logits.sub_policy.grad, logits.act.grad, *(each.grad for each in estimator.parameters())]
    assert torch.isfinite(value)
    assert all(torch.isfinite(each).all() for each in gradients if each is not None)
    assert logits.sub_policy.grad is not None
    assert logits.act.grad is not None


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Reinforce("mean"), "leave_one_out, ema"),
        (lambda: Reinforce("none", "all"), "hierarchical .* or joint"),
        (lambda: Relax(3, 2, "selected"), "hierarchical .* or joint"),
        (lambda: Gumbel(scoring="both"), "hierarchical .* or joint"),
        (lambda: draw_noise(random_logits(), 2, "both", seeded()), "hierarchical .* or joint"),
        (lambda: Gumbel(0.0), "use 0.5"),
        (lambda: Relax(3, 2, temperature=-1.0), "use 0.5"),
        (lambda: one_draw(Reinforce("leave_one_out")), "baseline=ema, or more draws"),
        (lambda: with_noise_of(Reinforce("none", "joint"), "hierarchical"), "draw_noise.*'joint'"),
        (lambda: with_noise_of(Relax(4, 2), "joint"), "draw_noise.*'hierarchical'"),
        (lambda: with_rewards_of_shape(Reinforce("none"), 4, 1), "one per draw"),
        (lambda: with_rewards_of_shape(Relax(4, 2).double(), 1), "one per draw"),
    ],
)
def test_invalid_arguments_are_refused_with_a_remedy(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words) as refusal:
        make()
    assert "\n" not in str(refusal.value)


def one_draw(estimator: Estimator) -> None:
    estimator(random_logits(), draw_noise(random_logits(), 1, "hierarchical", seeded()))


def with_noise_of(estimator: Estimator, scoring: str) -> None:
    # As many draws as sub-policies: the shapes would broadcast.
    estimator(random_logits(), draw_noise(random_logits(), 4, scoring, seeded()))


def with_rewards_of_shape(estimator: Estimator, *shape: int) -> Tensor:
    draw = estimator(random_logits(), draw_noise(random_logits(), 4, "hierarchical", seeded()))
    return draw.correction(torch.zeros(shape))
