"""The interfaces between the training loop and what is handed to it. Read this file before writing a searcher.

The loop (loops/training.py) owns the order of the images, the weights, checkpoints and evaluation. A StepSearcher does
one step of a training and learns from it. An Objective is the loss, an Augmenter changes the training images, a Metric
scores the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from jointsearch.data.sets import Batch
from jointsearch.data.standard import Standard
from search_spaces.genotype import Genotype
from search_spaces.policy import Policy
from search_spaces.schedule import PolicySchedule

if TYPE_CHECKING:
    from jointsearch.searchers.cell_learner import CellLearner

State = dict[str, Any]  # what a checkpoint holds: dicts, lists, tensors, numbers and words

PLAIN_STEP = 3  # forward-equivalents of a training step: one forward pass, and a backward pass that counts as two


@dataclass(frozen=True)
class Moment:
    """Where a training stands when a step begins; everything counts from 0."""

    epoch: int
    step: int  # in this epoch
    steps: int  # of an epoch
    epochs: int  # of the whole training
    step_size: float  # the learning rate of this step

    @property
    def progress(self) -> float:
        """From 0 in the first epoch to 1 in the last; 1 where there is only one."""
        return self.epoch / (self.epochs - 1) if self.epochs > 1 else 1.0


@dataclass(frozen=True)
class Needs:
    """Which steps get validation batches, and how many. `Needs(0)` never gets any."""

    batches: int = 1  # for one step
    from_epoch: int = 0  # the first epoch whose steps get any
    everything_from: int = 0  # the first epoch in which everything learns that is searched
    every: int = 1  # steps from one that gets them to the next, counted from the first step of from_epoch
    epochs: tuple[int, ...] | None = None  # if given: only the first step of each of these epochs
    fixed: bool = False  # whether every step gets the same ones
    cost: int = 0  # with `epochs`: forward-equivalents of such a step beyond a plain one, to tell how long a run takes

    def wanted(self, at: Moment) -> bool:
        """Whether the step at this moment gets validation batches."""
        if not self.batches or at.epoch < self.from_epoch:
            return False
        if self.epochs is not None:
            return at.step == 0 and at.epoch in self.epochs
        return ((at.epoch - self.from_epoch) * at.steps + at.step) % self.every == 0


@dataclass(frozen=True)
class StepReport:
    """The result of one step."""

    loss: Tensor  # of the training batch, on the device
    # Whether a reward was not a finite number, so that nothing was learned; None for a step that measures nothing.
    skipped: bool | None = None
    # What the step cost, in forward passes of the batch. A backward pass counts as two, or one where weights need none.
    forward_equivalents: int = PLAIN_STEP


@dataclass(frozen=True)
class Found:
    """What a search would return now. `facts` describe it: numbers and words for every epoch, lists for the result."""

    policy: Policy | PolicySchedule | None = None
    genotype: Genotype | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


class StepSearcher(Protocol):
    """A search that happens inside one training: it does every step of it."""

    needs: Needs

    def step(self, train: Batch, validation: Sequence[Batch], at: Moment) -> StepReport:
        """Train the weights by one step and, where there are validation batches, learn from it."""

    def found(self) -> Found:
        """What the search would return now."""

    def state(self) -> State:
        """Everything that a checkpoint has to hold beside the network and its optimizer."""

    def restore(self, state: State) -> None:
        """Continue from a state."""


class Beside(Protocol):
    """A second network that learns beside the one that is trained, by the same recipe."""

    def step(self, images: Any, labels: Any, done: int) -> Tensor:
        """Train on a batch, after so many other steps; the loss."""

    def network(self) -> nn.Module:
        """The network as it is evaluated."""

    def outputs(self, images: Any) -> Any:
        """What it says of images, in the precision of the recipe."""

    def state(self) -> State:
        """Everything that training changes."""

    def load(self, state: State) -> None:
        """Put it back."""


class TrainStep(Protocol):
    """One step of a network's training."""

    @property
    def objective(self) -> Objective:
        """What the step descends."""

    def __call__(self, images: Any, labels: Any) -> Tensor:
        """Train on augmented images, and return the loss."""

    def of_copies(self, copies: Sequence[Any], labels: Any) -> Tensor:
        """Train on several augmented copies of a batch in one step; the loss of each."""

    def losses(self, images: Any, labels: Any) -> Tensor:
        """The loss of each image (B,) in evaluation mode; nothing is changed."""

    def beside(self) -> Beside:
        """A second training of the same network, which begins with the weights that it has now."""

    def undone(self) -> AbstractContextManager[None]:
        """Train inside for a while: on leaving, weights, optimizer and generators are as they were on entering."""

    def begin_part(self, part: int, parts: int) -> None:
        """Say which part of a long step begins, counted from 1. A run that was asked to stop may end here, by an error.

        It continues from its state before the step.
        """


@dataclass(frozen=True)
class Context:
    """What the loop gives a searcher to work with."""

    network: nn.Module
    train_step: TrainStep
    standard: Standard  # the augmentation that is always on
    noise: torch.Generator  # of every draw that changes the training
    epochs: int
    seed: int = 0
    cells: CellLearner | None = None  # moves the architecture of the network, where cells are searched

    @property
    def image_losses(self) -> Callable[[Callable[..., Any], Tensor, Tensor], Tensor]:
        """The losses (B,) of a network, or a function in its place, on images with labels."""
        return self.train_step.objective.losses


@dataclass(frozen=True)
class About:
    """What a study has to know of a search algorithm before it starts."""

    searches_cells: bool = False  # whether it moves the cells of a supernet too
    rewards_are_steps: bool = False  # whether its rewards assume an optimizer whose steps follow the gradient
    own_optimizer: bool = False  # whether of a search recipe it reads only epochs and batch_size
    own_network: bool = False  # whether it trains by the recipe of the study, and its network is a result, too
    judges: bool = False  # whether it judges what other searches found
    complete_at_end: bool = False  # whether only what its last epoch found is to be used
    warning: str | None = None  # what it is known to do wrong


class SearcherSettings(Protocol):
    """Settings of a search algorithm: a frozen dataclass that can start a search.

    It may also have `about: About`, a `policy_space` whose `policy()` is what it starts from, and a method
    `check(epochs, steps, epochs_from)` that refuses what it cannot learn in so many epochs of so many steps.
    """

    def start(self, context: Context) -> StepSearcher:
        """Begin a search on a network."""


class Objective(Protocol):
    """The loss of a network on a batch. One that learns, as group DRO does, keeps a state.

    Images and labels are those of a Batch: tensors, or for detectors `Padded` images and `Objects`. Where `by_group` is
    true and the data have groups, labels of a training are `Grouped`. It may have `begin(train, standard)`, which is
    given the training images, and how they are normalized, before the first step. `passes` says how often a batch goes
    through the network where that is not once.
    """

    def loss(self, network: nn.Module, images: Any, labels: Any) -> Tensor:
        """The number that a training step descends."""

    def losses(self, network: Callable[..., Any], images: Any, labels: Any) -> Tensor:
        """The loss of each image (B,), in float32 at least: a search measures rewards and validation losses by it.

        Instead of the network it may be given a function that returns the same outputs at other weights.
        """

    def state(self) -> State:
        """What a checkpoint has to hold."""

    def restore(self, state: State) -> None:
        """Continue from a state."""


def passes_of(objective: Objective) -> int:
    """How often a batch goes through the network for this loss."""
    passes: int = getattr(objective, "passes", 1)
    return passes


class Augmenter(Protocol):
    """Changes a training batch before the network sees it. It may ask the network."""

    def __call__(self, batch: Batch, network: nn.Module, at: Moment, noise: torch.Generator) -> Batch:
        """The batch as it is trained on; its images are normalized."""


class Metric(Protocol):
    """A score of a network, summed up batch by batch.

    It may also have `further(classes)` and `details(classes)`, which only test images are asked for: more scores, and
    plain data about each image for a report. `classes` are the names of the classes. Where `by_group` is true and the
    data have groups, labels are `Grouped`.
    """

    name: str  # as in "accuracy"
    unit: str  # as in "%"
    higher_is_better: bool

    def update(self, outputs: Any, labels: Any) -> None:
        """Take in the outputs for a batch."""

    def compute(self) -> Mapping[str, float]:
        """The score of all batches so far under its name, and what else was counted on the way, as the loss."""


@dataclass(frozen=True)
class Scores:
    """What an evaluation measured. `main` names the score that decides between two networks."""

    values: Mapping[str, float]
    main: str
    higher_is_better: bool = True
    further: Mapping[str, float] = field(default_factory=dict)  # more scores, of test images only
    details: Mapping[str, Any] = field(default_factory=dict)  # what a report draws of test images, as plain data

    @property
    def decisive(self) -> float:
        """The main score."""
        return self.values[self.main]

    def better_than(self, other: float | None) -> bool:
        """Whether the main score is better than another one; anything is better than None."""
        if other is None:
            return True
        return self.decisive > other if self.higher_is_better else self.decisive < other

    def worse_than(self, other: float | None) -> bool:
        """Whether another main score is better than this one."""
        return other is not None and self.decisive != other and not self.better_than(other)
