"""Measures how much each op helps: by the reward of one training step, or by continuing training for many steps.

Either way the weights are trained as if nothing were measured, and all ops are measured with the same noise.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import cycle, islice
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from jointsearch.data.sets import Batch
from jointsearch.data.standard import Standard
from jointsearch.distributed import part_of
from jointsearch.front_end import augment_with
from jointsearch.protocols import TrainStep
from jointsearch.searchers.credit import scaled
from jointsearch.searchers.rewards import check_differences
from jointsearch.through_step.loss import ImageLosses
from jointsearch.through_step.record import StepNetwork, record_step
from jointsearch.through_step.sides import losses_on_both_sides
from jointsearch.through_step.validation import validation_gradient
from search_spaces.augment.apply import apply_draw, apply_policy, draw_of
from search_spaces.policy import Policy

TRIED = 0.5  # share of the images of a short training that are under its op
Validation = Sequence[tuple[Tensor, Tensor]]  # validation images as the network sees them, and their labels


@dataclass(frozen=True)
class Rows:
    """What is measured: rows of a policy's entries, the first of them the plain image, and how they are applied."""

    start: Policy  # under which the weights are trained
    entries: Policy
    members: tuple[Tensor, ...]  # of each row the entries, drawn by their weights
    standard: Standard

    def images(self, row: int, share: float, train: Batch, noise: torch.Generator) -> Tensor:
        """A batch as the network sees it, this share of it under a row and the others under the starting policy.

        Given noise in the same state, every row gets the same crops and directions, and draws as much of it.
        """
        batch, tables = len(train.labels), self.entries.tables
        cumulative = self.cumulative[row]
        place = torch.searchsorted(cumulative, cumulative[-1] * torch.rand(batch, generator=noise), right=True)
        rows = self.members[row][place.clamp_(max=len(cumulative) - 1)]
        tried = torch.rand(batch, generator=noise) < share
        acts = (torch.rand(batch, generator=noise) < tables.probability[rows, 0]).unsqueeze(1)
        op = torch.where(acts, tables.op[rows], -1)

        def transform(pixels: Tensor) -> Tensor:
            uniform = torch.rand(4, batch, generator=noise)
            under_row = apply_draw(pixels, draw_of(rows, op, tables.magnitude[rows], uniform))
            if bool(tried.all()):
                return under_row
            others = apply_policy(self.start, pixels, noise)
            return torch.where(tried.to(pixels.device, non_blocking=True).view(-1, 1, 1, 1), under_row, others)

        return augment_with(transform, train.images, self.standard, noise)

    @cached_property
    def cumulative(self) -> tuple[Tensor, ...]:
        """The running weights of the entries of each row."""
        weights = torch.tensor([entry.weight for entry in self.entries.sub_policies], dtype=torch.float64)
        return tuple(weights[members].cumsum(0) for members in self.members)


class Gauge(Protocol):
    """A way to measure."""

    cost: int  # forward-equivalents of a measurement beside its training step

    def remember(self, train: Batch) -> None:
        """Take note of a batch that is trained on."""

    def measure(
        self, images: Tensor, train: Batch, validation: Validation, step_size: float, noise: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Train on `images`, and measure: the training loss, and what each row takes off loss or error, (R,)."""

    def state(self) -> Any:
        """What a checkpoint has to hold."""

    def restore(self, state: Any) -> None:
        """Continue from a state."""


class OneStep:
    """The gain of an image is what the training step on it takes off the validation loss: the reward f_i, negated."""

    def __init__(
        self, table: Rows, network: nn.Module, train_step: TrainStep, scale: str, validation_batches: int
    ) -> None:
        check_differences(network)
        self.table, self.network, self.train_step, self.scale = table, network, train_step, scale
        self.cost = 3 * validation_batches + 2 * len(table.members)

    def remember(self, train: Batch) -> None:
        """Nothing is needed."""

    def measure(
        self, images: Tensor, train: Batch, validation: Validation, step_size: float, noise: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The training loss, and the mean gain of each row over the images of the step."""
        image_losses = self.train_step.objective.losses
        with record_step(self.network, image_losses) as record:
            train_loss = self.train_step(images, train.labels)
        direction = validation_gradient(self.network, validation, image_losses=image_losses)
        # Frozen: with all images under one row, live statistics would be those of a batch that training never sees.
        return train_loss, self.of_images(record.frozen(), direction, train, step_size, noise).mean(1)

    def of_images(
        self,
        network: StepNetwork,
        direction: dict[str, Tensor],
        train: Batch,
        step_size: float,
        noise: torch.Generator,
    ) -> Tensor:
        """The gain of every row on every image, (R, B), on the CPU."""
        # Row by row and not in one large batch, so that all of them meet the same dropout noise.
        sides = []
        for row in range(len(self.table.members)):
            self.train_step.begin_part(row + 1, len(self.table.members))
            sides.append(losses_on_both_sides(network, direction, self.images(row, train, noise), train.labels))
        rewards = torch.stack([side.rewards(step_size) for side in sides])  # (R, B)
        losses = torch.stack([side.losses() for side in sides])
        return -scaled(rewards.flatten(), losses.flatten(), self.scale).view_as(rewards).cpu().double()

    def images(self, row: int, train: Batch, noise: torch.Generator) -> Tensor:
        """The images of the step under one row; the noise of the training itself is left as it was."""
        return self.table.images(row, 1.0, train, noise.clone_state())

    def state(self) -> None:
        """Nothing is kept."""

    def restore(self, state: None) -> None:
        """Nothing is kept."""


class ManySteps:
    """Continues training with each row, over the last batches, a share of each under the row.

    The gain of a row is the validation error after continuing with plain images, minus that after continuing with the
    row. The reward of one step shows only which images help the next step most.
    """

    def __init__(
        self, table: Rows, network: nn.Module, train_step: TrainStep, steps: int, batches: int, share: float = TRIED
    ) -> None:
        self.table, self.network, self.train_step = table, network, train_step
        self.steps, self.share = steps, share
        self.recent: deque[Batch] = deque(maxlen=steps)
        self.cost = len(table.members) * (3 * steps + batches)

    def remember(self, train: Batch) -> None:
        """Keep the last batches."""
        self.recent.append(replace(train, groups=None))

    def measure(
        self, images: Tensor, train: Batch, validation: Validation, step_size: float, noise: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The training loss, and the gain of each row; that of the first, the plain image, is 0."""
        train_loss = self.train_step(images, train.labels)
        self.recent = deque((batch.to(images.device) for batch in self.recent), maxlen=self.steps)
        errors = torch.stack([self.error_after(row, validation, noise) for row in range(len(self.table.members))]).cpu()
        errors[1:] = errors[1:].nan_to_num(nan=1.0)  # an op that makes training diverge has lost all there is
        return train_loss, errors[0] - errors

    def error_after(self, row: int, validation: Validation, noise: torch.Generator) -> Tensor:
        """The validation error after continuing with a row; everything is put back afterwards."""
        noise = noise.clone_state()
        with self.train_step.undone():
            for batch in islice(cycle(self.recent), self.steps):
                self.train_step.begin_part(row + 1, len(self.table.members))
                self.train_step(self.table.images(row, self.share, batch, noise), batch.labels)
            return validation_error(self.network, validation, self.train_step.objective.losses)

    def state(self) -> list[dict[str, Tensor]]:
        """The batches."""
        return [{name: part for name, part in vars(batch).items() if part is not None} for batch in self.recent]

    def restore(self, state: Sequence[dict[str, Any]]) -> None:
        """Take them back."""
        self.recent = deque((Batch(**batch) for batch in state), maxlen=self.steps)


@torch.no_grad()
def validation_error(network: nn.Module, validation: Validation, image_losses: ImageLosses) -> Tensor:
    """The mean of 1 - exp(-loss), in double precision; for a cross entropy that is 1 - p(true class).

    The network is evaluated, and left in training mode.
    """
    # A cross entropy is ruled by the few images that are wrong for sure. On shapes, five trials of 30 steps put
    # TranslateY at +0.6 and HorizontalFlip at -4.7 standard errors by it, and at +7.0 and -15.1 by this.
    network.eval()
    losses: list[Tensor] = []
    for images, labels in validation:
        mine = part_of(len(labels))
        of_mine = image_losses(lambda inputs: network(inputs).double(), mine.of(images), mine.of(labels))
        losses += mine.whole(of_mine)
    network.train()
    return -torch.expm1(-torch.cat(losses)).mean()
