"""Policy search by gradients: what training on an augmented image does to the validation loss is its reward."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from jointsearch.data.sets import Batch
from jointsearch.data.standard import Standard, normalize
from jointsearch.estimators.draw import Draw, draw_noise
from jointsearch.front_end import augment_with
from jointsearch.searchers.credit import dealt, scaled
from jointsearch.searchers.settings import PolicySearch
from jointsearch.soft.mixture import apply_blended, candidate_scores, pushed
from jointsearch.soft.policy import SoftPolicy
from jointsearch.through_step.jvp import jvp
from jointsearch.through_step.record import FrozenNetwork, record_step
from jointsearch.through_step.sides import Sides, losses_on_both_sides
from jointsearch.through_step.validation import validation_gradient
from search_spaces.augment.apply import PolicyDraw, apply_draw
from search_spaces.augment.table import OPS
from search_spaces.policy import Policy

TrainStep = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Augmented:
    """A batch on its way through the policy: one draw for each image, or one for all."""

    draw: Draw
    ops: PolicyDraw
    pixels: Tensor  # (B, C, H, W) before the policy
    changed: Tensor  # after it, with a graph to what is learned through pixels
    images: Tensor  # as the network sees them
    labels: Tensor


class DifferentiableSearcher:
    """A soft policy, its estimator and its optimizer, beside a network that is trained with them.

    One step: draw and augment; train the weights w on it, which gives w'; take the validation gradient v at w'; the
    reward of image i is f_i = -step_size * v . grad_w loss_i(w). Its estimate moves the policy.
    """

    def __init__(
        self,
        settings: PolicySearch,
        network: nn.Module,
        train_step: TrainStep,
        standard: Standard,
        noise: torch.Generator,
    ) -> None:
        self.settings, self.standard, self.noise, self.train_step = settings, standard, noise, train_step
        self.network = network
        space = settings.policy_space
        learns_magnitude = settings.searcher.magnitude_gradient != "none"
        self.soft = SoftPolicy(space.policy(), space.learn_probability, learns_magnitude, space.share, space.keep)
        self.estimator = settings.estimator.build(len(self.soft.visits), self.soft.stages)
        first, second = settings.searcher.betas
        self.optimizer = torch.optim.Adam(
            self.soft.parameters(), settings.searcher.learning_rate, betas=(first, second)
        )
        controls = list(self.estimator.parameters())
        self.control_optimizer = torch.optim.Adam(controls, settings.searcher.learning_rate) if controls else None
        self.validation_batches = settings.searcher.validation_batches
        self.first_batch_only = settings.searcher.first_validation_batch_only

    def step(self, train: Batch, validation: Sequence[Batch], step_size: float, epoch: int) -> dict[str, Tensor]:
        """Train the weights on augmented images, and move the policy by what that did to the validation loss."""
        first = self.augmented(train)
        if epoch < self.settings.searcher.from_epoch:
            return {"train_loss": self.train_step(first.images.detach(), train.labels), "skipped": torch.tensor(False)}
        with record_step(self.network) as record:
            train_loss = self.train_step(first.images.detach(), train.labels)
        judges = [(normalize(batch.images, self.standard), batch.labels) for batch in validation]
        direction = validation_gradient(self.network, judges)
        frozen = record.frozen()
        more = [self.augmented(train) for _ in range(self.settings.searcher.draws_per_validation - 1)]
        outcomes = [self.outcome(frozen, direction, batch, step_size) for batch in (first, *more)]
        if not self.settings.searcher.entropy_bonus and not any(bool(credits.any()) for _, credits in outcomes):
            # No reward anywhere, as when v is 0: Adam would still move on its momentum.
            return {"train_loss": train_loss, "skipped": torch.tensor(False)}
        learned = self.descend(torch.stack([objective for objective, _ in outcomes]).mean())
        if learned:
            for batch, (_, credits) in zip((first, *more), outcomes, strict=True):
                self.estimator.observe(credits)
                self.tune(batch.draw, credits)
        return {"train_loss": train_loss, "skipped": torch.tensor(not learned)}

    def augmented(self, train: Batch) -> Augmented:
        """Draw from the soft policy, and augment."""
        batch, learned = len(train.labels), self.settings.estimator
        logits = self.soft.logits()
        draws = batch if learned.draws == "image" else 1
        draw = self.estimator(logits, draw_noise(logits, draws, self.estimator.scoring, self.noise))
        self.soft.visits += draw.sub_policy.bincount(minlength=len(self.soft.visits))
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

    def outcome(
        self, frozen: FrozenNetwork, direction: dict[str, Tensor], batch: Augmented, step_size: float
    ) -> tuple[Tensor, Tensor]:
        """What one backward pass turns into the gradient of everything that is learned, and the reward of each draw."""
        sides = None
        if self.settings.searcher.through_step == "jvp":
            rewards = jvp(frozen, direction, batch.images, batch.labels, step_size)  # (B,)
        else:
            sides = losses_on_both_sides(frozen, direction, batch.images, batch.labels)
            rewards = sides.rewards(step_size)
        owner = dealt(len(rewards), self.noise) if self.settings.searcher.rewards == "shuffled" else None
        credits = self.credits(rewards.detach(), sides, owner)
        if sides is not None and self.settings.searcher.estimate_on == "sides":
            above, below = (batch.draw.correction(self.of_draws(side)) for side in (sides.above, sides.below))
            terms = (above - below) * sides.scale(step_size).cpu()
        else:
            terms = batch.draw.correction(credits)
        objective = terms.mean()
        if batch.images.requires_grad:
            objective = objective + self.pixels_term(batch, rewards.mean(), owner).cpu()
        if batch.draw.weights is not None and batch.draw.all_acts is not None:
            weights, acts = batch.draw.weights, batch.draw.all_acts.detach()
            objective = objective + self.weights_term(batch, weights, acts, rewards.mean())
        return objective - self.settings.searcher.entropy_bonus * self.soft.entropy(), credits

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

    def tune(self, draw: Draw, credits: Tensor) -> None:
        """One step of the estimator's surrogates, where it has any, towards a smaller variance."""
        if self.control_optimizer is None or draw.variance is None:
            return
        self.control_optimizer.zero_grad()
        draw.variance(credits).backward()
        self.control_optimizer.step()

    def descend(self, objective: Tensor) -> bool:
        """One step of the policy. A reward that is no number leaves it where it is and gives False."""
        self.optimizer.zero_grad()
        objective.backward()
        gradients = [parameter.grad for parameter in self.soft.parameters() if parameter.grad is not None]
        if not all(bool(gradient.isfinite().all()) for gradient in gradients):
            return False
        self.optimizer.step()
        return True

    def forward_equivalents(self, epoch: int) -> int:
        """What a step costs: training 3, each validation batch 3, each draw 2, or 4 where pixels carry a gradient."""
        settings = self.settings.searcher
        if epoch < settings.from_epoch:
            return 3
        through_pixels = settings.magnitude_gradient != "none" or self.settings.estimator.name == "gumbel"
        return 3 + 3 * settings.validation_batches + (4 if through_pixels else 2) * settings.draws_per_validation

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
        """The share of every sub-policy, in the order of the space."""
        return {"sub_policy_shares": [round(share, 8) for share in self.soft.log_shares().exp().tolist()]}

    def policy(self) -> Policy:
        """The finished policy as things stand."""
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
