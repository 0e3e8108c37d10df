"""Learns a soft policy from the rewards of its draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from jointsearch.data.standard import Standard
from jointsearch.estimators.draw import Draw
from jointsearch.protocols import Moment
from jointsearch.searchers.credit import dealt, scaled
from jointsearch.searchers.drawn_policy import Augmented, DrawnPolicy
from jointsearch.soft.mixture import candidate_scores, pushed
from jointsearch.soft.policy import SoftPolicy
from jointsearch.through_step.sides import Sides
from search_spaces.augment.apply import apply_draw
from search_spaces.augment.table import OPS
from search_spaces.policy import Policy

if TYPE_CHECKING:
    from jointsearch.searchers.differentiable import Differentiable

DIRECT_STEEPNESS = 4.0  # a sigmoid of 4 x moves as fast at one half as x itself, as in DADA, which has no sigmoids


class PolicyLearner:
    """Turns the rewards of draws into the gradient of the policy they were drawn from, and follows it."""

    def __init__(self, settings: Differentiable, standard: Standard, noise: torch.Generator) -> None:
        self.settings, self.noise, space = settings, noise, settings.policy_space
        self.stabilize = settings.stabilizers
        self.soft = SoftPolicy(
            space.policy(),
            learn_magnitude=settings.learns_magnitude,
            share=space.share,
            start_share=self.stabilize.start_share,
            steepness=DIRECT_STEEPNESS if settings.as_published else 1.0,
        )
        apply = pushed if settings.as_published else apply_draw
        self.drawn = DrawnPolicy(self.soft, settings.estimator, standard, noise, apply)
        self.estimator = self.drawn.estimator
        self.optimizer = torch.optim.Adam(self.soft.parameters(), settings.learning_rate, betas=settings.BETAS)
        controls = list(self.estimator.parameters())
        betas = settings.BETAS if settings.as_published else (0.9, 0.999)
        self.control_optimizer = torch.optim.Adam(controls, settings.learning_rate, betas=betas) if controls else None

    def learns(self, at: Moment) -> bool:
        """Whether the policy moves in this step."""
        return at.epoch >= self.settings.from_epoch

    def objective(
        self, rewards: Tensor, sides: Sides | None, batch: Augmented, step_size: float
    ) -> tuple[Tensor, Tensor]:
        """What one backward pass turns into the gradient of everything that is learned, and the reward of each draw.

        `rewards` (B,) are differentiable in what learns through the pixels; `sides` are the losses they come from.
        """
        owner = dealt(len(rewards), self.noise) if self.settings.shuffled else None
        credits = self.credits(rewards.detach(), sides, owner)
        if sides is not None and self.settings.as_published:
            above, below = (batch.draw.correction(self.of_draws(side)) for side in (sides.above, sides.below))
            terms = (above - below) * sides.scale(step_size).cpu()
        else:
            terms = batch.draw.correction(credits)
        objective = terms.mean()
        if rewards.requires_grad:
            objective = objective + self.pixels_term(batch, rewards.mean(), owner).cpu()
        if batch.draw.weights is not None and batch.draw.all_acts is not None:
            weights, acts = batch.draw.weights, batch.draw.all_acts.detach()
            objective = objective + self.weights_term(batch, weights, acts, rewards.mean())
        # A bonus on the entropy itself would leave TrivialAugment: it prefers ops of many levels to those of none.
        return objective + self.stabilize.entropy_bonus * self.soft.divergence(), credits

    def pixels_term(self, batch: Augmented, reward: Tensor, owner: Tensor | None) -> Tensor:
        """What reaches magnitudes and bits through the pixels; in the control, by the gradients of other images."""
        if owner is None:
            return reward
        (gradient,) = torch.autograd.grad(reward, batch.changed, retain_graph=True)
        return (gradient[owner.to(gradient.device)] * batch.changed).sum()

    def credits(self, rewards: Tensor, sides: Sides | None, owner: Tensor | None) -> Tensor:
        """The reward of each draw, (D,), on the CPU."""
        losses = None if sides is None else sides.losses()
        rewards = scaled(rewards, losses, self.stabilize.reward_scale)
        return self.of_draws(rewards if owner is None else rewards[owner.to(rewards.device)])

    def of_draws(self, values: Tensor) -> Tensor:
        """Values of images (B,) as values of draws (D,): their mean where one draw serves the batch."""
        values = values.detach().cpu()
        return values.mean().reshape(1) if self.drawn.one_for_batch else values

    def weights_term(self, batch: Augmented, weights: Tensor, acts: Tensor, reward: Tensor) -> Tensor:
        """The straight-through gradient of the sub-policies' weights: it needs the image of every one of them."""
        (gradient,) = torch.autograd.grad(reward, batch.changed, retain_graph=True)
        acts = acts.expand(len(batch.labels), -1, -1)
        scores = candidate_scores(self.soft, batch.pixels, batch.ops, acts, gradient)  # (B, N)
        return (weights.expand_as(scores) * scores.cpu()).sum()

    def count(self, draw: Draw) -> None:
        """Count which sub-policies were drawn and rewarded."""
        self.soft.visits += draw.sub_policy.bincount(minlength=len(self.soft.visits))

    def descend(self, measured: Sequence[tuple[Augmented, Tensor]]) -> None:
        """Take one step of the policy along its gradient, and of the estimator by the draws and their rewards."""
        # No reward anywhere, as where the validation gradient is 0: Adam would still move the policy on its momentum.
        if not self.stabilize.entropy_bonus and not any(bool(credits.any()) for _, credits in measured):
            return
        self.optimizer.step()
        for batch, credits in measured:
            self.estimator.observe(credits)
            self.tune(batch.draw, credits)

    def tune(self, draw: Draw, credits: Tensor) -> None:
        """Take one step of the estimator's surrogates, where it has any, towards a smaller variance."""
        if self.control_optimizer is None or draw.variance is None:
            return
        self.control_optimizer.zero_grad()
        draw.variance(credits).backward()
        self.control_optimizer.step()

    def policy(self) -> Policy:
        """The finished policy as things stand."""
        top = self.settings.policy_space.top
        return self.soft.harden(top, weighted=top is None)

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint has to hold."""
        control = self.control_optimizer
        return {
            "soft": self.soft.state_dict(),
            "estimator": self.estimator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "control_optimizer": None if control is None else control.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        self.soft.load_state_dict(state["soft"])
        self.estimator.load_state_dict(state["estimator"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.control_optimizer is not None:
            self.control_optimizer.load_state_dict(state["control_optimizer"])


@torch.no_grad()
def policy_facts(soft: SoftPolicy) -> dict[str, Any]:
    """How wide a soft policy is, how often images go unchanged, how often each op acts, and each sub-policy's share.

    Preferences are the logarithm of what a sub-policy gained over its share at the start; visits count its draws.
    """
    logits, visits, log_shares = soft.logits(), soft.visits, soft.log_shares()
    acting = logits.sub_policy.exp().unsqueeze(1) * logits.act.sigmoid()  # (N, K)
    shares = torch.zeros(len(OPS) + 1).index_add(0, soft.op.flatten() % (len(OPS) + 1), acting.flatten())
    return {
        "effective_sub_policies": float(soft.entropy().exp()),
        "idle_share": float(soft.idle_share()),
        "visits_least": float(visits.min()),
        "visits_mean": float(visits.double().mean()),
        **{f"share/{name}": float(shares[place]) for place, name in enumerate(OPS) if shares[place] > 0},
        "sub_policy_shares": [round(share, 8) for share in log_shares.exp().tolist()],
        "sub_policy_preferences": [round(one, 6) for one in (log_shares - soft.start_logits).tolist()],
        "sub_policy_visits": visits.tolist(),
    }
