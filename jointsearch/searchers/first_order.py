"""Joint search as published by Kashima et al. (2021), Algorithm 1: one loss of augmented validation images moves all.

Faster AutoAugment's soft stages stand in front of a supernet. At the weights as they are (first order) one backward
pass of that loss gives the gradients of policy and architecture; then the weights train under the new policy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from jointsearch.data.sets import Batch
from jointsearch.data.standard import Standard
from jointsearch.front_end import augment_with
from jointsearch.searchers.architecture_learner import ArchitectureLearner
from jointsearch.searchers.faster_aa import StageSpace
from jointsearch.searchers.gradients import all_finite
from jointsearch.searchers.settings import ArchitectureSettings, EstimatorSettings, check_betas
from jointsearch.settings import bounded, check_fields, choice
from jointsearch.soft.network import SuperNet
from jointsearch.soft.stages import SoftStages
from jointsearch.through_step.validation import judging
from jointsearch.train_step import TrainStep
from search_spaces.errors import InputError
from search_spaces.genotype import Genotype
from search_spaces.policy import Policy


@dataclass(frozen=True)
class FirstOrderSettings:
    """How the stages learn. The defaults are Faster AutoAugment's, which the paper takes over."""

    name: str = choice("first_order", "first_order")
    learning_rate: float = bounded(1e-3, 1e-8, 10.0)
    betas: tuple[float, ...] = bounded((0.0, 0.999), 0.0, 0.999999)  # of Adam
    temperature: float = bounded(0.05, 1e-3, 100.0)  # of the weights of a stage
    act_temperature: float = bounded(0.1, 1e-3, 100.0)  # of the relaxed probabilities
    chunk: int = bounded(8, 1, 65_536)  # neighbouring images that share a sub-policy

    def __post_init__(self) -> None:
        check_fields(self)
        check_betas("searcher", self.betas, "[0.0,0.999]")


@dataclass(frozen=True)
class FirstOrderSearch:
    """First-order search under augmented validation images, of a policy alone or of policy and cells."""

    warning: ClassVar[str] = (
        "searcher=first_order augments the images that judge: it rewards whatever makes images easier, whether or not "
        "training on them helps (watch idle_share and the shares of ops); for results use searcher=differentiable, "
        "the default, with search=joint"
    )

    searcher: FirstOrderSettings = field(default_factory=FirstOrderSettings)
    policy_space: StageSpace = field(default_factory=StageSpace)
    estimator: EstimatorSettings = field(default_factory=EstimatorSettings)  # not read: nothing is estimated
    architecture: ArchitectureSettings = field(default_factory=ArchitectureSettings)
    search: str = choice("policy", "policy", "joint")

    def __post_init__(self) -> None:
        check_fields(self)
        if self.architecture.order == "second":
            raise InputError(
                "architecture.order=second differentiates through the training step, and searcher=first_order never "
                "does; use architecture.order=first, or searcher=differentiable"
            )
        if self.architecture.hessian_monitor:
            raise InputError(
                "architecture.hessian_monitor watches the loss of plain validation images, and searcher=first_order "
                "has none; set it to false, or use searcher=differentiable"
            )


class FirstOrderSearcher:
    """Soft stages, and the cells of a supernet where they are searched, that descend one validation loss.

    Images that judge go the same way as those that train: crop and flip, policy, cutout. DARTS's released search
    crops and flips both as well.
    """

    validation_batches = 1
    first_batch_only = False

    def __init__(
        self,
        settings: FirstOrderSearch,
        network: nn.Module,
        train_step: TrainStep,
        standard: Standard,
        noise: torch.Generator,
        epochs: int = 1,
    ) -> None:
        self.settings, self.standard, self.noise, self.epochs = settings, standard, noise, epochs
        self.network, self.train_step = network, train_step
        self.learns_from = settings.architecture.from_epoch if settings.search == "joint" else 0
        self.cells: ArchitectureLearner | None = None
        if settings.search == "joint":
            if not isinstance(network, SuperNet):
                raise InputError(
                    f"search=joint needs the cells of a supernet, and {type(network).__name__} has none; use "
                    "search=policy for this network"
                )
            self.cells = ArchitectureLearner(settings.architecture, network)
        space, learned = settings.policy_space, settings.searcher
        self.stages = SoftStages(
            space.names(), space.sub_policies, space.stages, noise, learned.temperature, learned.act_temperature
        )
        first, second = learned.betas
        self.optimizer = torch.optim.Adam(self.stages.parameters(), learned.learning_rate, betas=(first, second))

    def wants_validation(self, epoch: int, steps: int) -> list[bool]:
        """Every step."""
        return [True] * steps

    def step(self, train: Batch, validation: Sequence[Batch], step_size: float, epoch: int) -> dict[str, Tensor]:
        """Move policy and cells at the weights as they are, and then the weights on images augmented anew."""
        if self.cells is not None:
            self.cells.prepare(epoch / self.epochs, self.noise)
        learned = self.learn(validation[0], epoch)
        with torch.no_grad():
            images = self.augmented(train)
        return {"train_loss": self.train_step(images, train.labels), "skipped": torch.tensor(not learned)}

    def learn(self, judges: Batch, epoch: int) -> bool:
        """One step of policy and cells. Where a gradient is no number neither moves: False."""
        leaves: dict[str, Tensor] = {}
        if self.cells is not None and epoch >= self.settings.architecture.from_epoch:
            leaves = self.cells.leaves()
        objective = self.loss(judges, leaves)
        if self.cells is not None and leaves:
            objective = objective + self.cells.penalty(leaves, epoch / self.epochs)
        learned = [*leaves.values(), *self.stages.parameters()]
        self.optimizer.zero_grad()
        objective.backward(inputs=learned)
        if not all_finite(learned):
            return False
        self.optimizer.step()
        if self.cells is not None and leaves:
            self.cells.descend(leaves)
        return True

    def loss(self, batch: Batch, leaves: Mapping[str, Tensor]) -> Tensor:
        """The cross entropy of a batch augmented by the policy, with a graph to all that learns."""
        images = self.augmented(batch)
        # Copies, so that the running statistics that evaluation uses see training batches only. Nothing is computed for
        # the weights, which learn from training images only.
        buffers = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        held = {name: weight.detach() for name, weight in self.network.named_parameters()}
        with judging(self.network):
            outputs = functional_call(self.network, {**held, **leaves, **buffers}, (images,))
        return cross_entropy(outputs, batch.labels)

    def augmented(self, batch: Batch) -> Tensor:
        """Images (B, C, H, W) as the network sees them, with a graph to everything that the policy learns."""

        def transform(pixels: Tensor) -> Tensor:
            draw = self.stages.draw(len(pixels), self.settings.searcher.chunk, self.noise)
            return self.stages.mixed(pixels, draw)

        return augment_with(transform, batch.images, self.standard, self.noise)

    def forward_equivalents(self, epoch: int) -> int:
        """What a step costs: 2 for validation images, from which weights get no gradient, 3 for training images."""
        return 5

    def metrics(self) -> dict[str, float | str]:
        """Where policy and cells stand."""
        return {**self.stages.metrics(), **({} if self.cells is None else self.cells.metrics())}

    def found(self) -> dict[str, Any]:
        """The weights of every candidate; sub-policies of different seeds are no counterparts to be compared."""
        return {} if self.cells is None else self.cells.found()

    def policy(self) -> Policy:
        """The finished policy as things stand."""
        return self.stages.harden()

    def genotype(self) -> Genotype | None:
        """The finished cells as things stand; None where none are searched."""
        return None if self.cells is None else self.cells.genotype()

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint has to hold; the loop keeps the network, and in it the architecture."""
        return {
            "stages": self.stages.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "cells": None if self.cells is None else self.cells.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.stages.load_state_dict(state["stages"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.cells is not None:
            self.cells.restore(state["cells"])
