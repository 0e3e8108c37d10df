"""Search by gradients, of a policy, of cells, or of both together: all of them learn from one validation loss."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from jointsearch.data.sets import Batch
from jointsearch.data.standard import normalize
from jointsearch.distributed import as_in_first
from jointsearch.estimators.draw import EstimatorSettings
from jointsearch.estimators.reinforce import ReinforceSettings
from jointsearch.estimators.relax import RelaxSettings
from jointsearch.protocols import PLAIN_STEP, About, Context, Found, Moment, Needs, State, StepReport
from jointsearch.searchers.cell_learner import CellLearner
from jointsearch.searchers.drawn_policy import Augmented, DrawnPolicy
from jointsearch.searchers.gradients import all_finite
from jointsearch.searchers.policy_learner import PolicyLearner, policy_facts
from jointsearch.searchers.rewards import Rewards, Stabilize, check_differences
from jointsearch.searchers.spaces import Pairs, Start
from jointsearch.settings import bounded, check_fields, choice, group, setting
from jointsearch.soft.policy import SoftPolicy
from jointsearch.through_step.hessian import largest_eigenvalue
from jointsearch.through_step.jvp import jvp
from jointsearch.through_step.record import StepRecord, record_step
from jointsearch.through_step.sides import Sides, losses_on_both_sides
from jointsearch.through_step.validation import validation_gradient
from search_spaces.errors import InputError
from search_spaces.levels import with_levels, with_ranges
from search_spaces.policy import Policy

Gradient = Mapping[str, Tensor]


@dataclass(frozen=True)
class Differentiable:
    """Gradient-based search: the reward of an image is what training on it does to the validation loss."""

    BETAS: ClassVar[tuple[float, float]] = (0.5, 0.999)  # of Adam
    about: ClassVar[About] = About(searches_cells=True, rewards_are_steps=True)

    learning_rate: float = bounded(0.02, 1e-8, 10.0, help="of the policy, with Adam")
    policy_space: Pairs | Start = group(Pairs, help="which policies may be chosen: pairs, trivialaugment")
    estimator: EstimatorSettings = group(RelaxSettings, help="gradient of a draw: relax, reinforce or gumbel")
    rewards: Rewards | None = setting(None, help="how rewards are computed, as in searcher.rewards.epsilon=0.03")
    magnitude_gradient: str = choice(
        "pathwise", "pathwise", "none", help="pathwise: magnitudes learn through the op; none: they stay"
    )
    published: str = choice(
        "no", "no", "paper", "code", help="paper: as in DADA's paper; code: also one fixed validation batch"
    )
    shuffled: bool = setting(False, help="the control: rewards are permuted among the images of a batch")
    from_epoch: int = bounded(0, 0, 100_000, help="epochs under the starting policy before the policy learns")
    stabilize: Stabilize | None = setting(
        None, help="options against noisy rewards, as in searcher.stabilize.reward_scale=rank"
    )

    def __post_init__(self) -> None:
        check_fields(self)
        changes_rewards = self.shuffled or self.stabilizers.reward_scale != "none"
        uses_rewards = getattr(self.estimator, "uses_rewards", True) and self.estimator.draws == "image"
        if changes_rewards and (self.as_published or not uses_rewards):
            raise InputError(
                "searcher.shuffled and searcher.stabilize.reward_scale change the reward of each image; "
                "searcher.published, estimator=gumbel and estimator.draws=batch have no such reward; leave one of the "
                "two out (their control is searcher=random)"
            )
        if isinstance(self.policy_space, Start) and self.policy_space.learn_magnitude and not self.learns_magnitude:
            raise InputError(
                "policy_space.learn_magnitude=true lets magnitudes move, and searcher.magnitude_gradient=none keeps "
                "them; leave one of the two out"
            )
        needs_sides = self.as_published or self.stabilizers.reward_scale == "loss"
        if self.measures.exact and needs_sides:
            raise InputError(
                "searcher.rewards.epsilon=0 computes no losses, which searcher.published and reward_scale=loss need; "
                "use searcher.rewards.epsilon=0.01"
            )
        if self.as_published and getattr(self.estimator, "baseline", None) == "ema":
            raise InputError(
                "searcher.published estimates both sides of a difference, where estimator.baseline=ema cancels; use "
                "estimator.baseline=none or searcher.published=no"
            )

    @property
    def as_published(self) -> bool:
        """Whether DADA's choices are taken: estimates on both sides of the difference, magnitudes that pixels copy."""
        return self.published != "no"

    @property
    def measures(self) -> Rewards:
        """How rewards are computed."""
        return self.rewards or Rewards()

    @property
    def stabilizers(self) -> Stabilize:
        """Those that are chosen, else all switched off."""
        return self.stabilize or Stabilize()

    @property
    def learns_magnitude(self) -> bool:
        """Whether magnitudes move: the space lets them and the searcher has a gradient for them."""
        return self.policy_space.learn_magnitude and self.magnitude_gradient != "none"

    def check(self, epochs: int, steps: int, epochs_from: str) -> None:
        """Refuse a policy in which nothing can learn, at the full cost of learning."""
        likely = [sub_policy for sub_policy in self.policy_space.policy().sub_policies if sub_policy.weight]
        choices = [choice for sub_policy in likely for choice in sub_policy.ops]
        probability = any(0 < choice.probability < 1 for choice in choices)
        magnitude = self.learns_magnitude and any(choice.magnitude is not None for choice in choices)
        if len(likely) < 2 and not probability and not magnitude:
            raise InputError(
                "policy_space has one sub-policy, and nothing in it that learns: the policy would stay as it is; use "
                "policy_space=trivialaugment or pairs, or search=architecture"
            )

    def start(self, context: Context) -> "DifferentiableSearcher":
        """Begin a search of a policy, and of cells where the network has them to choose."""
        if not self.measures.exact:
            check_differences(context.network)
        policy = PolicyLearner(self, context.standard, context.noise)
        return DifferentiableSearcher(context, policy.drawn, policy, self)


class DifferentiableSearcher:
    """A policy that learns, cells that learn, or both, beside the weights of a network that are trained with them.

    One step: draw and augment; train the weights w on it, which gives w'; take the gradient of the validation loss at
    w', which is the architecture's and, for the weights, v; the reward of image i is f_i = -step_size * v . grad_w
    loss_i(w). Validation loss and mean reward make one objective, and one backward pass of it moves everything.

    That is what a step of SGD does to first order; with Nesterov's momentum the step is 1 + momentum times as long, for
    all images alike, and clipping shortens it, which f_i does not know.
    """

    def __init__(
        self,
        context: Context,
        drawn: DrawnPolicy,
        policy: PolicyLearner | None = None,
        settings: Differentiable | None = None,
    ) -> None:
        self.context, self.network, self.drawn = context, context.network, drawn
        self.policy, self.cells = policy, context.cells
        self.settings = settings or Differentiable()
        begins = [] if policy is None else [self.settings.from_epoch]
        begins += [] if self.cells is None else [self.cells.settings.from_epoch]
        batches = self.settings.stabilizers.validation_batches
        self.needs = Needs(batches, min(begins), max(begins), fixed=self.settings.published == "code")
        self.last_validation: tuple[Tensor, Tensor] | None = None  # for the monitor

    def step(self, train: Batch, validation: Sequence[Batch], at: Moment) -> StepReport:
        """Train the weights on augmented images, and move policy and cells by what that did to the validation loss."""
        first = self.drawn.augmented(train)
        if self.cells is not None:
            self.cells.prepare(at.progress, self.context.noise)
        policy = self.policy if self.policy is not None and self.policy.learns(at) else None
        cells = self.cells if self.cells is not None and self.cells.learns(at) else None
        measures = policy is not None or (cells is not None and cells.through_step)
        with record_step(self.network, self.context.image_losses) if measures else nullcontext() as record:
            train_loss = self.context.train_step(first.images.detach(), train.labels)
        if policy is None and cells is None:
            return StepReport(train_loss, skipped=False)
        leaves = {} if cells is None else cells.leaves()
        images = [(normalize(batch.images, self.context.standard), batch.labels) for batch in validation]
        gradient = validation_gradient(self.network, images, leaves, measures, self.context.image_losses)
        self.last_validation = images[0] if cells is not None and cells.remedies.hessian_monitor else None
        objective = self.direct(gradient, leaves, at)
        measured: list[tuple[Augmented, Tensor]] = []
        cost = PLAIN_STEP + (3 if measures else 2) * len(validation)
        if record is not None:
            v = {name: part for name, part in gradient.items() if name not in leaves}
            more = [self.drawn.augmented(train) for _ in range(self.settings.stabilizers.draws_per_validation - 1)]
            outcomes = [self.outcome(record, v, batch, at, leaves) for batch in (first, *more)]
            objective = objective + torch.stack([one for one, _, _ in outcomes]).mean()
            measured = [(batch, credits) for batch, (_, credits, _) in zip((first, *more), outcomes, strict=True)]
            cost += sum(passes for _, _, passes in outcomes)
        learned = self.descend(objective, leaves, measured, policy)
        return StepReport(train_loss, skipped=not learned, forward_equivalents=cost)

    def direct(self, gradient: Gradient, leaves: Mapping[str, Tensor], at: Moment) -> Tensor:
        """The part of the objective that cells reach without the training step, by its gradient."""
        if self.cells is None or not leaves:
            return torch.zeros(())
        validation = sum((gradient[name] * leaf).sum() for name, leaf in leaves.items())
        return (validation + self.cells.penalty(leaves, at.progress)).cpu()

    def outcome(
        self, record: StepRecord, v: Gradient, batch: Augmented, at: Moment, leaves: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, int]:
        """The part of the objective that goes through the step, the reward of each draw, and the cost of both.

        Two losses cost 2 forward passes, and 2 more where they carry a gradient. A jvp has two tangents: 3, and 3 more.
        """
        images, labels, ways = batch.images, batch.labels, self.settings.measures
        through = leaves if self.cells is not None and self.cells.through_step else {}
        live = self.policy is None or ways.statistics == "live"
        network = record.live() if live else record.frozen()
        sides: Sides | None = None
        if ways.exact:
            rewards = jvp(network, v, images, labels, at.step_size)  # (B,)
        else:
            sides = losses_on_both_sides(network, v, images, labels, ways.epsilon, through if live else None)
            rewards = sides.rewards(at.step_size)
        cost = (2 if sides is not None else 3) * (2 if rewards.requires_grad else 1)
        if self.policy is None:
            return rewards.mean().cpu(), rewards.detach(), cost
        objective, credits = self.policy.objective(rewards, sides, batch, at.step_size)
        if through and not live:  # the gradient of cells is that of the batch, whose statistics follow the weights
            sides = losses_on_both_sides(record.live(), v, images.detach(), labels, ways.epsilon, through)
            objective, cost = objective + sides.rewards(at.step_size).mean().cpu(), cost + 4
        return objective, credits, cost

    def descend(
        self,
        objective: Tensor,
        leaves: Mapping[str, Tensor],
        measured: Sequence[tuple[Augmented, Tensor]],
        policy: PolicyLearner | None,
    ) -> bool:
        """One backward pass, and a step of all that learns. Where a gradient is not a number nothing moves: False."""
        if policy is not None:
            for batch, _ in measured:
                policy.count(batch.draw)
        self.drawn.soft.zero_grad()
        objective.backward()
        # On a GPU the gradient through a warped image differs from run to run, and from process to process.
        as_in_first([one.grad for one in self.drawn.soft.parameters() if one.grad is not None])
        if not all_finite([*leaves.values(), *self.drawn.soft.parameters()]):
            return False
        if policy is not None:
            policy.descend(measured)
        if self.cells is not None and leaves:
            self.cells.descend(leaves)
        return True

    def found(self) -> Found:
        """Policy and cells as things stand, and what describes them."""
        soft = self.drawn.soft
        facts = policy_facts(soft)
        genotype = None
        if self.cells is not None:
            facts |= self.cells.facts()
            genotype = self.cells.genotype()
        if self.cells is not None and self.last_validation is not None:
            facts["hessian_largest"] = self.sharpness(self.cells, self.last_validation)
        policy = soft.start if self.policy is None else self.policy.policy()
        return Found(with_ranges(policy), genotype, facts)

    def sharpness(self, cells: CellLearner, validation: tuple[Tensor, Tensor]) -> float:
        """The sharpness of the validation loss in the architecture; the search continues as if unwatched."""
        noise = torch.Generator().manual_seed(0)
        was_training = self.network.training
        self.network.train()  # batch statistics, as the search has them, and not those of the evaluation before
        found = largest_eigenvalue(
            self.network, validation, cells.logits, noise, image_losses=self.context.image_losses
        )
        self.network.train(was_training)
        return float(found)

    def state(self) -> State:
        """Everything that a checkpoint has to hold beside the network."""
        learners = {"policy": self.policy, "cells": self.cells}
        states = {name: None if learner is None else learner.state() for name, learner in learners.items()}
        return {**states, "last_validation": self.last_validation}

    def restore(self, state: State) -> None:
        """Continue from a state."""
        if self.policy is not None:
            self.policy.restore(state["policy"])
        if self.cells is not None:
            self.cells.restore(state["cells"])
        device = next(self.network.parameters()).device
        self.last_validation = state["last_validation"] and tuple(part.to(device) for part in state["last_validation"])


@dataclass(frozen=True)
class CellsOnly:
    """DARTS: cells learn, under a policy that stays as it is."""

    policy: Policy

    def start(self, context: Context) -> DifferentiableSearcher:
        """Begin a search of cells."""
        if context.cells is None:
            raise InputError("CellsOnly searches cells, and this network has none to choose; use search=architecture")
        soft = SoftPolicy(with_levels(self.policy), learn_probability=False, learn_magnitude=False)
        return DifferentiableSearcher(context, DrawnPolicy(soft, ReinforceSettings(), context.standard, context.noise))
