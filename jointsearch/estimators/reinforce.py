"""REINFORCE: (reward - baseline) times the gradient of the draw's log probability. Each baseline is unbiased."""

from dataclasses import dataclass

from torch import Tensor, nn

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
)
from jointsearch.estimators.running_mean import RunningMean
from jointsearch.estimators.sample import draw_sample
from jointsearch.settings import check_fields, choice
from search_spaces.errors import InputError

BASELINES = ("leave_one_out", "ema", "none")


@dataclass(frozen=True)
class ReinforceSettings:
    """REINFORCE: every reward is compared with a baseline."""

    scoring: str = choice("hierarchical", *SCORINGS, help=SCORING_HELP)
    baseline: str = choice("leave_one_out", *BASELINES, help="the other draws of the step, a running mean, or none")
    draws: str = choice("image", *DRAWS, help=DRAWS_HELP)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.baseline == "leave_one_out" and self.draws == "batch":
            raise InputError(
                "estimator.baseline=leave_one_out compares a draw with the others of its batch, and "
                "estimator.draws=batch makes only one; use estimator.baseline=ema or estimator.draws=image"
            )

    def build(self, sub_policies: int, stages: int) -> "Reinforce":
        """The estimator."""
        return Reinforce(self.baseline, self.scoring)


class Reinforce(nn.Module):
    """Baseline "leave_one_out": mean reward of the other draws; "ema": running mean of earlier steps; or "none"."""

    def __init__(self, baseline: str = "leave_one_out", scoring: str = "hierarchical") -> None:
        super().__init__()
        check_scoring(scoring)
        if baseline not in BASELINES:
            raise ValueError(f"baseline={baseline!r} is unknown; use leave_one_out, ema (one draw a step) or none.")
        self.baseline = baseline
        self.scoring = scoring
        self.running = RunningMean()

    def forward(self, logits: PolicyLogits, noise: Noise) -> Draw:
        """Draw. The correction multiplies the draw's log probability by reward - baseline."""
        draws = len(noise.sub_policy)
        if self.baseline == "leave_one_out" and draws < 2:
            raise ValueError(
                "baseline=leave_one_out compares a draw with the other draws of its step, but the step has only 1; "
                "use baseline=ema, or more draws a step."
            )
        sample = draw_sample(logits, noise, self.scoring)
        log_probability = sample.log_probability_of_sub_policy() + sample.log_probability_of_bits()  # (D,)

        def correction(rewards: Tensor) -> Tensor:
            check_rewards(rewards, draws)
            return self._advantage(rewards.detach()) * log_probability

        return Draw(sample.sub_policy, sample.acts, correction)

    def observe(self, rewards: Tensor) -> None:
        """Update the running baseline with the rewards of a finished step."""
        if self.baseline == "ema":
            self.running.observe(rewards.mean())

    def _advantage(self, rewards: Tensor) -> Tensor:
        if self.baseline == "leave_one_out":
            return leave_one_out(rewards)
        if self.baseline == "ema":
            return rewards - self.running.value()
        return rewards


def leave_one_out(rewards: Tensor) -> Tensor:
    """(D,) rewards, D > 1, each minus the mean of the others."""
    return (rewards - rewards.mean()) * (len(rewards) / (len(rewards) - 1))
