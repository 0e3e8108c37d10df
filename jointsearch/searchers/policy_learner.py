"""What a search learns about augmentation: a soft policy, the estimator of its gradient, and their optimizers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jointsearch.data.sets import Batch
from jointsearch.data.standard import Standard
from jointsearch.estimators.draw import Draw, draw_noise
from jointsearch.front_end import augment_with
from jointsearch.searchers.credit import dealt, scaled
from jointsearch.searchers.settings import DifferentiableSearch
from jointsearch.soft.mixture import apply_blended, candidate_scores, pushed
from jointsearch.soft.policy import SoftPolicy
from jointsearch.through_step.sides import Sides
from search_spaces.augment.apply import PolicyDraw, apply_draw
from search_spaces.augment.table import OPS
from search_spaces.policy import Policy


@dataclass(frozen=True)
class Augmented:
    """A batch on its way through the policy: one draw for each image, or one for all."""

    draw: Draw
    ops: PolicyDraw
    pixels: Tensor  # (B, C, H, W) before the policy
    changed: Tensor  # after it, with a graph to what is learned through pixels
    images: Tensor  # as the network sees them
    labels: Tensor


class PolicyLearner:
    """Draws from a soft policy, and turns the rewards of draws into its gradient."""

    def __init__(
        self, settings: DifferentiableSearch, standard: Standard, noise: torch.Generator, start: Policy | None = None
    ) -> None:
        self.settings, self.standard, self.noise = settings, standard, noise
        space = settings.policy_space
        learns = (settings.learns_probability, settings.learns_magnitude)
        self.soft = SoftPolicy(start or space.policy(), *learns, space.share, space.keep, space.steepness)
        self.estimator = settings.estimator.build(len(self.soft.visits), self.soft.stages)
        first, second = settings.searcher.betas
        self.optimizer = torch.optim.Adam(
            self.soft.parameters(), settings.searcher.learning_rate, betas=(first, second)
        )
        controls = list(self.estimator.parameters())
        self.control_optimizer = torch.optim.Adam(controls, settings.searcher.learning_rate) if controls else None

    def augmented(self, train: Batch) -> Augmented:
        """Draw from the soft policy, and augment."""
        batch, learned = len(train.labels), self.settings.estimator
        logits = self.soft.logits()
        draws = batch if learned.draws == "image" else 1
        draw = self.estimator(logits, draw_noise(logits, draws, self.estimator.scoring, self.noise))
        acts = draw.acts.expand(batch, -1)
        ops = self.soft.draw(draw.sub_policy.expand(batch), acts, self.noise)
        before: list[Tensor] = []
        after: list[Tensor] = []

        def transform(pixels: Tensor) -> Tensor:
            before.append(pixels)
            after.append(self.changed(pixels, ops, acts))
            return after[0]

        images = augment_with(transform, train.images, self.standard, self.noise)
        return Augmented(draw, ops, before[0], after[0], images, train.labels)

    def changed(self, pixels: Tensor, ops: PolicyDraw, acts: Tensor) -> Tensor:
        """The images after the policy, with the graph that the settings ask for."""
        apply = pushed if self.settings.searcher.magnitude_gradient == "ones" else apply_draw
        if self.settings.estimator.name == "gumbel":
            blended = apply_blended(pixels, ops, self.soft.op[ops.sub_policy], acts, apply)
            # The weights of sub-policies learn from the gradient of the pixels, also where nothing else does.
            return blended if blended.requires_grad else blended.requires_grad_()
        return apply(pixels, ops)

    def objective(
        self, rewards: Tensor, sides: Sides | None, batch: Augmented, step_size: float
    ) -> tuple[Tensor, Tensor]:
        """What one backward pass turns into the gradient of everything that is learned, and the reward of each draw.

        `rewards` (B,) carry a graph to whatever learns through them, and `sides` are the losses they come from.
        """
        owner = dealt(len(rewards), self.noise) if self.settings.searcher.rewards == "shuffled" else None
        credits = self.credits(rewards.detach(), sides, owner)
        if sides is not None and self.settings.searcher.estimate_on == "sides":
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
        # Entropy itself would leave TrivialAugment, too: it prefers ops of many levels to those of none.
        return objective + self.settings.searcher.entropy_bonus * self.soft.divergence(), credits

    def pixels_term(self, batch: Augmented, reward: Tensor, owner: Tensor | None) -> Tensor:
        """What reaches magnitudes and bits through the pixels; in the control, by the gradients of other images."""
        if owner is None:
            return reward
        (gradient,) = torch.autograd.grad(reward, batch.changed, retain_graph=True)
        return (gradient[owner.to(gradient.device)] * batch.changed).sum()

    def credits(self, rewards: Tensor, sides: Sides | None, owner: Tensor | None) -> Tensor:
        """The reward of each draw, (D,), on the CPU."""
        losses = None if sides is None else sides.losses()
        rewards = scaled(rewards, losses, self.settings.searcher.reward_scale)
        return self.of_draws(rewards if owner is None else rewards[owner.to(rewards.device)])

    def of_draws(self, values: Tensor) -> Tensor:
        """Values of images (B,) as values of draws (D,): their mean where one draw serves the batch."""
        values = values.detach().cpu()
        return values if self.settings.estimator.draws == "image" else values.mean().reshape(1)

    def weights_term(self, batch: Augmented, weights: Tensor, acts: Tensor, reward: Tensor) -> Tensor:
        """The straight-through gradient of the sub-policies' weights: it needs the image of every one of them."""
        (gradient,) = torch.autograd.grad(reward, batch.changed, retain_graph=True)
        acts = acts.expand(len(batch.labels), -1, -1)
        scores = candidate_scores(self.soft, batch.pixels, batch.ops, acts, gradient)  # (B, N)
        return (weights.expand_as(scores) * scores.cpu()).sum()

    def count(self, draw: Draw) -> None:
        """Remember which sub-policies were tried, that is drawn and rewarded."""
        self.soft.visits += draw.sub_policy.bincount(minlength=len(self.soft.visits))

    def descend(self, measured: Sequence[tuple[Augmented, Tensor]]) -> None:
        """One step of the policy along its gradient, and of the estimator by the draws and their rewards."""
        self.optimizer.step()
        for batch, credits in measured:
            self.estimator.observe(credits)
            self.tune(batch.draw, credits)

    def tune(self, draw: Draw, credits: Tensor) -> None:
        """One step of the estimator's surrogates, where it has any, towards a smaller variance."""
        if self.control_optimizer is None or draw.variance is None:
            return
        self.control_optimizer.zero_grad()
        draw.variance(credits).backward()
        self.control_optimizer.step()

    @torch.no_grad()
    def metrics(self) -> dict[str, float]:
        """How wide the policy is, how often images go unchanged, how often each sub-policy was tried, what acts."""
        logits = self.soft.logits()
        acting = logits.sub_policy.exp().unsqueeze(1) * logits.act.sigmoid()  # (N, K)
        shares = torch.zeros(len(OPS) + 1).index_add(0, self.soft.op.flatten() % (len(OPS) + 1), acting.flatten())
        visits = self.soft.visits
        return {
            "effective_sub_policies": float(self.soft.entropy().exp()),
            "idle_share": float(self.soft.idle_share()),
            "visits_least": float(visits.min()),
            "visits_mean": float(visits.double().mean()),
            **{f"share/{name}": float(shares[place]) for place, name in enumerate(OPS) if shares[place] > 0},
        }

    @torch.no_grad()
    def found(self) -> dict[str, Any]:
        """For every sub-policy, in the order of the space: its share, the logarithm of what it gained, its draws."""
        shares = self.soft.log_shares()
        gained = shares - self.soft.start_logits
        return {
            "sub_policy_shares": [round(share, 8) for share in shares.exp().tolist()],
            "sub_policy_preferences": [round(one, 6) for one in gained.tolist()],
            "sub_policy_visits": self.soft.visits.tolist(),
        }

    def policy(self) -> Policy:
        """The finished policy as things stand, or the start where cells alone are searched."""
        if self.settings.search == "architecture":
            return self.soft.start
        space = self.settings.policy_space
        return self.soft.harden(space.top, space.weighted)

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
        """Go on from there."""
        self.soft.load_state_dict(state["soft"])
        self.estimator.load_state_dict(state["estimator"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.control_optimizer is not None:
            self.control_optimizer.load_state_dict(state["control_optimizer"])
