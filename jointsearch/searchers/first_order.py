"""Joint search as published by Kashima et al. (2021), Algorithm 1: one loss of augmented validation images moves all.

Faster AutoAugment's soft stages stand in front of a supernet. At the weights as they are (first order) one backward
pass of that loss gives the gradients of policy and architecture; then the weights train under the new policy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from jointsearch.data.sets import Batch
from jointsearch.distributed import add_up, part_of, processes
from jointsearch.front_end import augment_with
from jointsearch.protocols import PLAIN_STEP, About, Context, Found, Moment, Needs, State, StepReport
from jointsearch.searchers.gradients import all_finite
from jointsearch.searchers.spaces import Stages
from jointsearch.settings import bounded, check_fields, group
from jointsearch.soft.stages import SoftStages
from jointsearch.through_step.validation import functional_form, validating
from search_spaces.errors import InputError


@dataclass(frozen=True)
class FirstOrder:
    """First-order search under augmented validation images. The defaults are Faster AutoAugment's, as in the paper."""

    BETAS: ClassVar[tuple[float, float]] = (0.0, 0.999)  # of Adam
    about: ClassVar[About] = About(
        searches_cells=True,
        warning="searcher=first_order augments the validation images: it rewards whatever makes images easier, whether "
        "or not training on them helps (watch idle_share and the shares of ops); for results use "
        "searcher=differentiable, the default, with search=joint",
    )

    learning_rate: float = bounded(1e-3, 1e-8, 10.0, help="of the policy, with Adam")
    policy_space: Stages = group(Stages, help="the only space that it searches: stages")
    temperature: float = bounded(0.05, 1e-3, 100.0, help="of the softmax that weighs the ops of a stage")
    act_temperature: float = bounded(0.1, 1e-3, 100.0, help="of the relaxed probabilities")
    chunk: int = bounded(8, 1, 65_536, help="neighbouring images that share a sub-policy")

    def __post_init__(self) -> None:
        check_fields(self)

    def start(self, context: Context) -> "FirstOrderSearcher":
        """Begin a search of a policy, and of cells where the network has them to choose."""
        if context.cells is not None and context.cells.remedies.hessian_monitor:
            raise InputError(
                "architecture.against_collapse.hessian_monitor watches the loss of plain validation images, and "
                "searcher=first_order has none; set it to false, or use searcher=differentiable"
            )
        return FirstOrderSearcher(self, context)


class FirstOrderSearcher:
    """Soft stages, and the cells of a supernet where they are searched, that descend one validation loss.

    Validation images are augmented as training images are: crop and flip, policy, cutout. DARTS's released search
    crops and flips both as well.
    """

    def __init__(self, settings: FirstOrder, context: Context) -> None:
        self.settings, self.context, self.cells, self.network = settings, context, context.cells, context.network
        self.needs = Needs(everything_from=0 if self.cells is None else self.cells.settings.from_epoch)
        space = settings.policy_space
        self.stages = SoftStages(
            space.names(),
            space.sub_policies,
            space.stages,
            context.noise,
            settings.temperature,
            settings.act_temperature,
        )
        self.optimizer = torch.optim.Adam(self.stages.parameters(), settings.learning_rate, betas=settings.BETAS)

    def step(self, train: Batch, validation: Sequence[Batch], at: Moment) -> StepReport:
        """Move policy and cells at the weights as they are, and then the weights on images augmented anew.

        2 passes for validation images, from which weights get no gradient, 3 for training images.
        """
        if self.cells is not None:
            self.cells.prepare(at.progress, self.context.noise)
        learned = self.learn(validation[0], at)
        with torch.no_grad():
            images = self.augmented(train)
        return StepReport(
            self.context.train_step(images, train.labels), skipped=not learned, forward_equivalents=2 + PLAIN_STEP
        )

    def learn(self, validation: Batch, at: Moment) -> bool:
        """One step of policy and cells. Where a gradient is not a number neither moves: False."""
        leaves: dict[str, Tensor] = {}
        if self.cells is not None and self.cells.learns(at):
            leaves = self.cells.leaves()
        objective = self.loss(validation, leaves)
        if self.cells is not None and leaves:
            objective = objective + self.cells.penalty(leaves, at.progress) / processes()
        learned = [*leaves.values(), *self.stages.parameters()]
        self.optimizer.zero_grad()
        objective.backward(inputs=learned)
        add_up([one.grad for one in learned if one.grad is not None])
        if not all_finite(learned):
            return False
        self.optimizer.step()
        if self.cells is not None and leaves:
            self.cells.descend(leaves)
        return True

    def loss(self, batch: Batch, leaves: Mapping[str, Tensor]) -> Tensor:
        """The mean loss of a batch augmented by the policy, with a graph to all that learns; a process has its part."""
        images, mine = self.augmented(batch), part_of(len(batch.labels))
        # Nothing is computed for the weights, which learn from training images only.
        held = {name: weight.detach() for name, weight in self.network.named_parameters()}
        with validating(self.network):
            forward = functional_form(self.network, {**held, **leaves})
            return self.context.image_losses(forward, mine.of(images), mine.of(batch.labels)).mean() * mine.weight

    def augmented(self, batch: Batch) -> Tensor:
        """Images (B, C, H, W) as the network sees them, with a graph to everything that the policy learns."""

        def transform(pixels: Tensor) -> Tensor:
            draw = self.stages.draw(len(pixels), self.settings.chunk, self.context.noise)
            return self.stages.mixed(pixels, draw)

        return augment_with(transform, batch.images, self.context.standard, self.context.noise)

    def found(self) -> Found:
        """Policy and cells as things stand."""
        cells = self.cells
        facts = {**self.stages.metrics(), **({} if cells is None else cells.facts())}
        return Found(self.stages.harden(), None if cells is None else cells.genotype(), facts)

    def state(self) -> State:
        """Everything that a checkpoint has to hold; the loop keeps the network, and in it the architecture."""
        return {
            "stages": self.stages.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "cells": None if self.cells is None else self.cells.state(),
        }

    def restore(self, state: State) -> None:
        """Continue from a state."""
        self.stages.load_state_dict(state["stages"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.cells is not None:
            self.cells.restore(state["cells"])
