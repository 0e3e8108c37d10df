"""Steps of a training on several augmented copies of every image."""

from collections.abc import Sequence

import torch
from torch import nn

from jointsearch.augmenters.copies import ALL, Copies, keep
from jointsearch.augmenters.teachers import Teachers, guarded
from jointsearch.data.sets import Batch
from jointsearch.protocols import Augmenter, Found, Moment, Needs, State, StepReport, TrainStep, passes_of


class CopiesSteps:
    """Steps of a training on several copies of every image."""

    needs = Needs(batches=0)

    def __init__(
        self,
        copies: Copies,
        augmenters: tuple[Augmenter, Augmenter],  # with the policy, and without
        network: nn.Module,
        train_step: TrainStep,
        noise: torch.Generator,
    ) -> None:
        self.copies, self.network, self.train_step, self.noise = copies, network, train_step, noise
        self.augmenter, self.plain = augmenters
        self.teachers = Teachers(train_step) if copies.safe else None

    def step(self, train: Batch, validation: Sequence[Batch], at: Moment) -> StepReport:
        """Train on the copies that are kept."""
        copies = [self.augmenter(train, self.network, at, self.noise) for _ in range(self.copies.drawn)]
        images = torch.stack([one.images for one in copies])
        known = torch.ones(images.shape[:2], dtype=torch.bool, device=images.device)
        if self.teachers is not None:
            plain = self.plain(train, self.network, at, self.noise)
            known = self.teachers.guard(images, plain, at)
        if self.copies.by != ALL:
            losses = torch.stack([self.train_step.losses(one, train.labels) for one in images])
            chosen, known = keep(losses, known, self.copies.kept, self.copies.by, self.noise)
            images = images[chosen, torch.arange(images.shape[1], device=images.device)]
        if self.teachers is not None:
            images = guarded(images, known, plain)
        losses = self.train_step.of_copies(list(images), train.targets)
        cost = self.copies.cost(passes_of(self.train_step.objective))
        return StepReport(losses.mean(), forward_equivalents=cost)

    def found(self) -> Found:
        """Nothing is searched."""
        return Found(facts={} if self.teachers is None else self.teachers.facts())

    def state(self) -> State:
        """Of the teachers."""
        return {} if self.teachers is None else self.teachers.state()

    def restore(self, state: State) -> None:
        """Continue from a state."""
        if self.teachers is not None:
            self.teachers.restore(state)
