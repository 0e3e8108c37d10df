"""A draw from a policy: one of N sub-policies by categorical logits, then for each of its K ops whether it acts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

# The smallest noise, and its distance from 1. Logarithms of it stay finite in float32, whose last step below 1 is 6e-8.
EDGE = 1e-6


class PolicyLogits(NamedTuple):
    """Any real numbers. A leading dimension of size D gives every draw logits, and so a gradient, of its own."""

    sub_policy: Tensor  # (N,)
    act: Tensor  # (N, K) that an op acts


class Noise(NamedTuple):
    """Uniform noise of D draws, in [EDGE, 1 - EDGE]: same logits and noise, same draw."""

    sub_policy: Tensor  # (D, N)
    act: Tensor  # (D, K) hierarchical, (D, N, K) joint
    sub_policy_given: Tensor  # (D, N) for the sample that is conditioned on the draw
    act_given: Tensor  # same shape as act


@dataclass(frozen=True)
class Draw:
    """D draws and the term that carries their rewards' gradient to the logits."""

    sub_policy: Tensor  # (D,) int64
    acts: Tensor  # (D, K) of the drawn sub-policy: 0 or 1, soft Gumbel between
    # Rewards (D,) -> terms (D,): backward of their mean estimates the gradient of the expected reward.
    correction: Callable[[Tensor], Tensor]
    # Rewards (D,) -> scalar with a graph to the estimator's own parameters only: what their optimizer minimizes.
    variance: Callable[[Tensor], Tensor] | None = None
    weights: Tensor | None = None  # (D, N) differentiable one-hot or relaxed, Gumbel only
    all_acts: Tensor | None = None  # (D, N, K) differentiable, of every sub-policy, Gumbel with joint noise only


class Estimator(Protocol):
    """A small module; what it learns or remembers is in its state_dict."""

    scoring: str

    def __call__(self, logits: PolicyLogits, noise: Noise) -> Draw:
        """Draw, deterministically."""

    def observe(self, rewards: Tensor) -> None:
        """Take note of the rewards (D,) of a finished step."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """What minimizing `Draw.variance` trains."""


def draw_noise(logits: PolicyLogits, draws: int, scoring: str, generator: torch.Generator) -> Noise:
    """Noise for D draws: "joint" scoring draws the bits of all sub-policies, "hierarchical" of the drawn one."""
    check_scoring(scoring)
    sub_policies, stages = logits.act.shape
    act_shape = (draws, sub_policies, stages) if scoring == "joint" else (draws, stages)

    def uniform(*shape: int) -> Tensor:
        drawn = torch.rand(shape, dtype=logits.act.dtype, device=generator.device, generator=generator)
        return drawn.clamp(EDGE, 1 - EDGE).to(logits.act.device)

    return Noise(uniform(draws, sub_policies), uniform(*act_shape), uniform(draws, sub_policies), uniform(*act_shape))


def per_draw(logits: PolicyLogits, noise: Noise, scoring: str) -> PolicyLogits:
    """The logits that each draw sees, (D, N) and (D, N, K)."""
    draws, (sub_policies, stages) = len(noise.sub_policy), logits.act.shape[-2:]
    wanted = (draws, sub_policies, stages) if scoring == "joint" else (draws, stages)
    if noise.act.shape != wanted:
        # Broadcasting would make something of it, but not a draw.
        raise ValueError(
            f"noise.act has shape {tuple(noise.act.shape)}, scoring={scoring} wants {wanted}; "
            f"make it with draw_noise(logits, {draws}, {scoring!r}, generator)."
        )
    return PolicyLogits(logits.sub_policy.expand(draws, -1), logits.act.expand(draws, -1, -1))


def check_scoring(scoring: str) -> None:
    """Refuse what is neither of the two consistent sets of scored bits."""
    if scoring not in ("hierarchical", "joint"):
        raise ValueError(
            f"scoring={scoring!r} is unknown; use hierarchical (score the K bits of the drawn sub-policy) or "
            "joint (score all N * K bits, as published)."
        )


def check_temperature(temperature: float) -> None:
    """Refuse a temperature that relaxes nothing."""
    if not temperature > 0:
        raise ValueError(f"temperature={temperature} is not above 0; use 0.5, or less for a sharper relaxation.")


def check_rewards(rewards: Tensor, draws: int) -> None:
    """Refuse rewards that are not one per draw: broadcasting would credit draws with each other's."""
    if rewards.shape != (draws,):
        raise ValueError(
            f"rewards have shape {tuple(rewards.shape)}, wanted ({draws},), one per draw; "
            "average a batch that shares one draw first."
        )
