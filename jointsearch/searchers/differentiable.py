"""Search by gradients, of a policy, of cells, or of both together: all of them learn from one validation loss."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from jointsearch.data.sets import Batch
from jointsearch.data.standard import Standard, normalize
from jointsearch.searchers.architecture_learner import ArchitectureLearner
from jointsearch.searchers.gradients import all_finite
from jointsearch.searchers.policy_learner import Augmented, PolicyLearner
from jointsearch.searchers.settings import DifferentiableSearch
from jointsearch.soft.network import SuperNet
from jointsearch.through_step.hessian import largest_eigenvalue
from jointsearch.through_step.jvp import jvp
from jointsearch.through_step.record import FrozenNetwork, record_step
from jointsearch.through_step.sides import Sides, losses_on_both_sides
from jointsearch.through_step.validation import validation_gradient
from jointsearch.train_step import TrainStep
from search_spaces.errors import InputError
from search_spaces.genotype import Genotype
from search_spaces.policy import Policy

Gradient = Mapping[str, Tensor]


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
        settings: DifferentiableSearch,
        network: nn.Module,
        train_step: TrainStep,
        standard: Standard,
        noise: torch.Generator,
        epochs: int = 1,
        start: Policy | None = None,
    ) -> None:
        self.settings, self.standard, self.train_step, self.epochs = settings, standard, train_step, epochs
        self.network = network
        self.policies = PolicyLearner(settings, standard, noise, start)
        self.cells = ArchitectureLearner(settings.architecture, network) if isinstance(network, SuperNet) else None
        if self.cells is None and settings.search != "policy":
            raise InputError(
                f"search={settings.search} needs the cells of a supernet, and {type(network).__name__} has none; use "
                "search=policy for this network"
            )
        self.validation_batches = settings.searcher.validation_batches
        self.first_batch_only = settings.searcher.first_validation_batch_only
        self.learns_from = settings.learns_from
        self.judge: tuple[Tensor, Tensor] | None = None  # the last one, for the monitor

    def wants_validation(self, epoch: int, steps: int) -> list[bool]:
        """Every step once something learns, none before."""
        return [self.learns(epoch)] * steps

    def step(self, train: Batch, validation: Sequence[Batch], step_size: float, epoch: int) -> dict[str, Tensor]:
        """Train the weights on augmented images, and move policy and cells by what that did to the validation loss."""
        first = self.policies.augmented(train)
        if self.cells is not None:
            self.cells.prepare(epoch / self.epochs, self.policies.noise)
        policy_learns, cells_learn, measures = self.learns_policy(epoch), self.learns_cells(epoch), self.measures(epoch)
        with record_step(self.network) if measures else nullcontext() as record:
            train_loss = self.train_step(first.images.detach(), train.labels)
        if not self.learns(epoch):
            return {"train_loss": train_loss, "skipped": torch.tensor(False)}
        leaves = self.cells.leaves() if self.cells and cells_learn else {}
        judges = [(normalize(batch.images, self.standard), batch.labels) for batch in validation]
        gradient = validation_gradient(self.network, judges, leaves, of_weights=measures)
        self.judge = judges[0] if leaves and self.settings.architecture.hessian_monitor else None
        objective = self.direct(gradient, leaves, epoch)
        measured: list[tuple[Augmented, Tensor]] = []
        if record is not None:
            frozen, v = record.frozen(), {name: part for name, part in gradient.items() if name not in leaves}
            more = [self.policies.augmented(train) for _ in range(self.settings.searcher.draws_per_validation - 1)]
            outcomes = [self.outcome(frozen, v, batch, step_size, leaves) for batch in (first, *more)]
            objective = objective + torch.stack([one for one, _ in outcomes]).mean()
            measured = [(batch, credits) for batch, (_, credits) in zip((first, *more), outcomes, strict=True)]
        learned = self.descend(objective, leaves, measured if policy_learns else [])
        return {"train_loss": train_loss, "skipped": torch.tensor(not learned)}

    def learns_policy(self, epoch: int) -> bool:
        """Whether the policy moves in this epoch."""
        return self.settings.search != "architecture" and epoch >= self.settings.searcher.from_epoch

    def learns_cells(self, epoch: int) -> bool:
        """Whether the cells do."""
        searched = self.cells is not None and self.settings.search != "policy"
        return searched and epoch >= self.settings.architecture.from_epoch

    def learns(self, epoch: int) -> bool:
        """Whether anything but the weights does."""
        return self.learns_policy(epoch) or self.learns_cells(epoch)

    def measures(self, epoch: int) -> bool:
        """Whether the step needs rewards: for the policy, and for cells through the step."""
        second = self.settings.architecture.order == "second"
        return self.learns_policy(epoch) or (self.learns_cells(epoch) and second)

    def direct(self, gradient: Gradient, leaves: Mapping[str, Tensor], epoch: int) -> Tensor:
        """The part of the objective that cells reach without the training step, by its gradient."""
        if self.cells is None or not leaves:
            return torch.zeros(())
        validation = sum((gradient[name] * leaf).sum() for name, leaf in leaves.items())
        return (validation + self.cells.penalty(leaves, epoch / self.epochs)).cpu()

    def outcome(
        self, frozen: FrozenNetwork, v: Gradient, batch: Augmented, step_size: float, leaves: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The part of the objective that goes through the step, and the reward of each draw."""
        sides: Sides | None = None
        if self.settings.searcher.through_step == "jvp":
            rewards = jvp(frozen, v, batch.images, batch.labels, step_size)  # (B,)
        else:
            through = leaves if self.settings.architecture.order == "second" else {}
            sides = losses_on_both_sides(frozen, v, batch.images, batch.labels, architecture=through)
            rewards = sides.rewards(step_size)
        if self.settings.search == "architecture":
            return rewards.mean().cpu(), rewards.detach()
        return self.policies.objective(rewards, sides, batch, step_size)

    def descend(
        self, objective: Tensor, leaves: Mapping[str, Tensor], measured: Sequence[tuple[Augmented, Tensor]]
    ) -> bool:
        """One backward pass, and a step of all that learns. Where a gradient is no number nothing moves: False."""
        for batch, _ in measured:
            self.policies.count(batch.draw)
        self.policies.optimizer.zero_grad()
        objective.backward()
        learned = [*leaves.values(), *self.policies.soft.parameters()]
        if not all_finite(learned):
            return False
        # No reward anywhere, as when v is 0: Adam would still move the policy on its momentum.
        if measured and (self.settings.searcher.entropy_bonus or any(bool(one.any()) for _, one in measured)):
            self.policies.descend(measured)
        if self.cells is not None and leaves:
            self.cells.descend(leaves)
        return True

    def forward_equivalents(self, epoch: int) -> int:
        """What a step costs: training 3, each validation batch 3, or 2 where cells alone want a gradient.

        Each draw costs 2, or 4 where rewards carry a gradient; by jvp, whose products have two tangents, 3 and 6.
        """
        settings = self.settings.searcher
        if not self.learns(epoch):
            return 3
        if not self.measures(epoch):
            return 3 + 2 * settings.validation_batches
        through_pixels = self.settings.learns_magnitude or self.settings.estimator.name == "gumbel"
        through_cells = self.learns_cells(epoch) and self.settings.architecture.order == "second"
        carries = through_cells or (through_pixels and self.settings.search != "architecture")
        passes = 3 if settings.through_step == "jvp" else 2
        return 3 + 3 * settings.validation_batches + passes * (2 if carries else 1) * settings.draws_per_validation

    def metrics(self) -> dict[str, float | str]:
        """Where policy and cells stand."""
        metrics = self.policies.metrics() | ({} if self.cells is None else self.cells.metrics())
        if self.cells is not None and self.judge is not None:
            noise = torch.Generator().manual_seed(0)  # its own, and the same: the search goes on as if unwatched
            was_training = self.network.training
            self.network.train()  # batch statistics, as the search has them, and not those of the evaluation before
            metrics["hessian_largest"] = float(largest_eigenvalue(self.network, self.judge, self.cells.logits, noise))
            self.network.train(was_training)
        return metrics

    def found(self) -> dict[str, Any]:
        """The share of every sub-policy, and the weights of every candidate, in the order of their spaces."""
        return self.policies.found() | ({} if self.cells is None else self.cells.found())

    def policy(self) -> Policy:
        """The finished policy as things stand."""
        return self.policies.policy()

    def genotype(self) -> Genotype | None:
        """The finished cells as things stand; None for a network without any to choose."""
        return None if self.cells is None else self.cells.genotype()

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint has to hold beside the network."""
        cells = None if self.cells is None else self.cells.state()
        return {"policies": self.policies.state(), "cells": cells, "judge": self.judge}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.policies.restore(state["policies"])
        if self.cells is not None:
            self.cells.restore(state["cells"])
        device = next(self.network.parameters()).device
        self.judge = state["judge"] and tuple(part.to(device) for part in state["judge"])
