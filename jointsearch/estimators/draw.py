"""A draw from a policy: one of N sub-policies, then for each of its K ops a bit that says whether it acts."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

# Noise keeps this distance from 0 and 1, so that its logarithms stay finite in float32 (its last step below 1 is 6e-8).
EDGE = 1e-6
SCORINGS = ("hierarchical", "joint")
SCORING_HELP = "hierarchical: bits of the drawn sub-policy are drawn and scored; joint: those of all, as published"
DRAWS = ("image", "batch")
DRAWS_HELP = "image: every image draws for itself; batch: one draw for all images of a step"


class PolicyLogits(NamedTuple):
    """The logits of a policy. With a leading dimension D each draw has its own logits, and thus its own gradient."""

    sub_policy: Tensor  # (N,)
    act: Tensor  # (N, K) of the probability that an op acts


class Noise(NamedTuple):
    """Uniform noise of D draws, in [EDGE, 1 - EDGE]. The same logits and noise give the same draw."""

    sub_policy: Tensor  # (D, N)
    act: Tensor  # (D, K) hierarchical, (D, N, K) joint
    sub_policy_given: Tensor  # (D, N) for the sample that is conditioned on the draw
    act_given: Tensor  # same shape as act


@dataclass(frozen=True)
class Draw:
    """D draws, and the function that turns their rewards into a gradient of the logits."""

    sub_policy: Tensor  # (D,) int64
    acts: Tensor  # (D, K) of the drawn sub-policy: 0 or 1, soft Gumbel between
    # Rewards (D,) -> terms (D,): backward of their mean estimates the gradient of the expected reward.
    correction: Callable[[Tensor], Tensor]
    # Rewards (D,) -> scalar, differentiable in the estimator's own parameters only; their optimizer minimizes it.
    variance: Callable[[Tensor], Tensor] | None = None
    weights: Tensor | None = None  # (D, N) differentiable one-hot or relaxed, Gumbel only
    all_acts: Tensor | None = None  # (D, N, K) differentiable, of every sub-policy, Gumbel with joint noise only


class EstimatorSettings(Protocol):
    """Settings of an estimator: a frozen dataclass."""

    @property
    def draws(self) -> str:
        """One draw for every "image", or one for the "batch"."""

    def build(self, sub_policies: int, stages: int) -> "Estimator":
        """The estimator for a space of this size."""


class Estimator(Protocol):
    """Interface of an estimator: a small module that keeps all its state in its state_dict."""

    scoring: str

    def __call__(self, logits: PolicyLogits, noise: Noise) -> Draw:
        """Draw. The same logits and noise give the same draw."""

    def observe(self, rewards: Tensor) -> None:
        """Update running statistics with the rewards (D,) of a finished step."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that are trained to minimize `Draw.variance`."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to hold."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Continue from a state."""


def draw_noise(logits: PolicyLogits, draws: int, scoring: str, generator: torch.Generator) -> Noise:
    """Noise for D draws: "joint" scoring draws the bits of all sub-policies, "hierarchical" those of the drawn one."""
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
        # Broadcasting would accept the shape and give a wrong draw.
        raise ValueError(
            f"noise.act has shape {tuple(noise.act.shape)}, scoring={scoring} wants {wanted}; "
            f"make it with draw_noise(logits, {draws}, {scoring!r}, generator)."
        )
    return PolicyLogits(logits.sub_policy.expand(draws, -1), logits.act.expand(draws, -1, -1))


def check_scoring(scoring: str) -> None:
    """Refuse any scoring but hierarchical and joint, the two consistent sets of scored bits."""
    if scoring not in SCORINGS:
        raise ValueError(
            f"scoring={scoring!r} is unknown; use hierarchical (score the K bits of the drawn sub-policy) or "
            "joint (score all N * K bits, as published)."
        )


def check_temperature(temperature: float) -> None:
    """Refuse a temperature of 0 or less."""
    if not temperature > 0:
        raise ValueError(f"temperature={temperature} is not above 0; use 0.5, or less for a sharper relaxation.")


def check_rewards(rewards: Tensor, draws: int) -> None:
    """Refuse rewards that are not one per draw: broadcasting would mix the rewards of different draws."""
    if rewards.shape != (draws,):
        raise ValueError(
            f"rewards have shape {tuple(rewards.shape)}, wanted ({draws},), one per draw; "
            "if a batch shares one draw, average its rewards first."
        )
