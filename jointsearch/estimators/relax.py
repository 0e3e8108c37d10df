"""RELAX: REINFORCE minus a learned function of relaxed samples, whose own gradient is added back exactly.

With f the reward, c the surrogate, z the relaxed sample and z~ the one conditioned on the draw, an estimate is
[f - c(z~)] grad log p + grad c(z) - grad c(z~). The reward must already be a difference of losses, measured through the
training step: subtracting the RELAX estimates of two losses that share their noise cancels all but REINFORCE.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import one_hot

from jointsearch.estimators.draw import (
    DRAWS,
    DRAWS_HELP,
    SCORING_HELP,
    SCORINGS,
    Draw,
    Noise,
    PolicyLogits,
    check_rewards,
    check_scoring,
    check_temperature,
    per_draw,
)
from jointsearch.estimators.reinforce import leave_one_out
from jointsearch.estimators.running_mean import RunningMean
from jointsearch.estimators.sample import Sample, draw_sample, relaxed_acts_given, relaxed_sub_policy_given
from jointsearch.settings import bounded, check_fields, choice

Surrogates = list[Callable[[Tensor], Tensor]]


@dataclass(frozen=True)
class RelaxSettings:
    """RELAX: a learned control variate."""

    scoring: str = choice("hierarchical", *SCORINGS, help=SCORING_HELP)
    temperature: float = bounded(0.5, 1e-3, 100.0, help="of the relaxed draws")
    draws: str = choice("image", *DRAWS, help=DRAWS_HELP)

    def __post_init__(self) -> None:
        check_fields(self)

    def build(self, sub_policies: int, stages: int) -> "Relax":
        """The estimator for a space of this size; draws its first weights from the global generator."""
        return Relax(sub_policies, stages, self.scoring, self.temperature)


class Surrogate(nn.Module):
    """Predicts a reward from relaxed choices in [0, 1]: one hidden tanh layer. It starts at 0, which is REINFORCE."""

    def __init__(self, choices: int, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(choices, hidden)
        self.output = nn.Linear(hidden, 1)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, choices: Tensor) -> Tensor:
        """(D, choices) -> (D,)."""
        return self.output(torch.tanh(self.hidden(2 * choices - 1))).squeeze(-1)


class Relax(nn.Module):
    """Joint scoring: one surrogate of all N + N * K choices. Hierarchical: one of the sub-policy, one of its bits.

    The rewards of several draws are first centred (leave-one-out), because the mean reward drifts during a search
    faster than a surrogate follows. RELAX thus starts at the best baseline of REINFORCE. A single draw has no baseline.

    Surrogates predict rewards in units of their root mean square so far. Rewards of a search are a few thousandths;
    without the unit, Adam's steps of a fixed size made a surrogate up to a hundred times too large for 50 steps.
    """

    def __init__(
        self,
        sub_policies: int,
        stages: int,
        scoring: str = "hierarchical",
        temperature: float = 0.5,
        hidden: int = 100,
    ) -> None:
        super().__init__()
        check_scoring(scoring)
        check_temperature(temperature)
        self.scoring = scoring
        self.temperature = temperature
        joint = [sub_policies + sub_policies * stages]
        hierarchical = [sub_policies, sub_policies + stages]
        choices = joint if scoring == "joint" else hierarchical
        self.surrogates = nn.ModuleList(Surrogate(count, hidden) for count in choices)
        self.mean_square = RunningMean()

    def forward(self, logits: PolicyLogits, noise: Noise) -> Draw:
        """Draw. The correction is differentiable in the logits only, the variance in the surrogates only."""
        sample = draw_sample(logits, noise, self.scoring)
        score, control = self._score_and_control(sample, noise, [constant(each) for each in self.surrogates])
        # Each draw gets its own copy of the logits, so that one backward gives the gradient of each draw, not the sum.
        own = PolicyLogits(*(each.detach().clone().requires_grad_() for each in per_draw(logits, noise, self.scoring)))

        unit = self.unit()

        def correction(rewards: Tensor) -> Tensor:
            return advantage(rewards, len(score)) * score + unit * control

        def variance(rewards: Tensor) -> Tensor:
            terms = self._terms(own, noise, advantage(rewards, len(score)) / self.unit())
            gradients = torch.autograd.grad(terms.sum(), own, create_graph=True)
            # The expected estimate is the same for all surrogates, so the mean square is the variance up to a constant.
            return torch.stack([gradient.square().sum() for gradient in gradients]).sum()

        return Draw(sample.sub_policy, sample.acts, correction, variance)

    def observe(self, rewards: Tensor) -> None:
        """Update the unit with the rewards of a finished step. Surrogates are trained on the variance instead."""
        self.mean_square.observe(advantage(rewards, len(rewards)).square().mean())

    def unit(self) -> Tensor:
        """The root mean square of the rewards of earlier steps, or 1. It is independent of the draws that it scales."""
        mean_square = self.mean_square.value()
        return torch.where(mean_square > 0, mean_square, 1.0).sqrt()

    def _terms(self, logits: PolicyLogits, noise: Noise, advantages: Tensor) -> Tensor:
        sample = draw_sample(logits, noise, self.scoring)
        score, control = self._score_and_control(sample, noise, list(self.surrogates))
        return advantages * score + control

    def _score_and_control(self, sample: Sample, noise: Noise, surrogates: Surrogates) -> tuple[Tensor, Tensor]:
        """The log probability of each draw, and the part of its term without the reward; both (D,)."""
        given = relaxed_sub_policy_given(sample.sub_policy_logits, sample.sub_policy, noise.sub_policy_given)
        acts_given = relaxed_acts_given(sample.act_logits, sample.bits, noise.act_given)
        weights, weights_given = (torch.softmax(z / self.temperature, -1) for z in (sample.relaxed_sub_policy, given))
        acts, acts_given = (torch.sigmoid(z / self.temperature).flatten(1) for z in (sample.relaxed_acts, acts_given))
        log_sub_policy, log_bits = sample.log_probability_of_sub_policy(), sample.log_probability_of_bits()
        score = log_sub_policy + log_bits
        if self.scoring == "joint":
            relaxed, relaxed_given = torch.cat([weights, acts], 1), torch.cat([weights_given, acts_given], 1)
            return score, control_variate(surrogates[0], score, relaxed, relaxed_given)
        # The surrogate of the bits may read the rounded sub-policy, which does not depend on their logits. That of the
        # sub-policy must not: its gradient through the relaxed sample would miss the rounding.
        drawn = one_hot(sample.sub_policy, weights.shape[1]).to(weights)  # (D, N)
        control = control_variate(surrogates[0], log_sub_policy, weights, weights_given)
        relaxed, relaxed_given = torch.cat([drawn, acts], 1), torch.cat([drawn, acts_given], 1)
        return score, control + control_variate(surrogates[1], log_bits, relaxed, relaxed_given)


def control_variate(
    surrogate: Callable[[Tensor], Tensor], score: Tensor, relaxed: Tensor, relaxed_given: Tensor
) -> Tensor:
    """(D,) terms whose gradient is 0 in expectation; the surrogate that multiplies the score is held constant."""
    return surrogate(relaxed) - surrogate(relaxed_given) - surrogate(relaxed_given.detach()) * score


def advantage(rewards: Tensor, draws: int) -> Tensor:
    """(D,) rewards without a gradient, each minus the mean of the others if there are several."""
    check_rewards(rewards, draws)
    return leave_one_out(rewards.detach()) if draws > 1 else rewards.detach()


def constant(surrogate: nn.Module) -> Callable[[Tensor], Tensor]:
    """The surrogate with fixed parameters: gradients pass through it to its input only."""
    fixed = {name: parameter.detach() for name, parameter in surrogate.named_parameters()}
    return lambda choices: functional_call(surrogate, fixed, (choices,))
