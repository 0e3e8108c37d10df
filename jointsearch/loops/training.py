"""The one training loop. Searching, retraining and populations of trainings all use it.

    training = Training(plan, splits, new_searcher, keeper, journal)
    scores = training.advance(until_epoch=10)   # scores on validation images; resumed, it ends on the same bits

The loop owns the order of the images, the steps, checkpoints, resuming and evaluation. What one step does is up to the
StepSearcher it is given; what is kept of the epochs, to the Keeper.
"""

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor

from jointsearch.data.sets import Batch, DataSplits
from jointsearch.data.splits import epoch_order
from jointsearch.data.standard import normalized
from jointsearch.distributed import processes, unequal
from jointsearch.loops.journal import Journal
from jointsearch.loops.plan import NewStepSearcher, Plan, new_trainer
from jointsearch.loops.progress import Shown
from jointsearch.loops.trainer import StepOf
from jointsearch.metrics.evaluate import evaluate
from jointsearch.protocols import Moment, Scores, State, StepReport
from search_spaces.errors import InputError

# A reward that is not a number is left out; this many in a row are a defect and end the training.
MOST_SKIPPED_IN_A_ROW = 3


class Keeper(Protocol):
    """Looks at the training after every epoch and keeps what its result needs."""

    def consider(self, training: "Training", scores: Scores | None) -> Mapping[str, float | str]:
        """Take in an epoch; `scores` is None where it was not evaluated. Returns more metrics of the epoch."""

    def state(self) -> State:
        """What a checkpoint has to hold."""

    def restore(self, state: State) -> None:
        """Continue from a state."""


@dataclass
class Progress:
    """Where a training stands: everything of a checkpoint that belongs to the loop itself."""

    epoch: int = 0
    step: int = 0  # steps done in this epoch
    order: Tensor | None = None  # this epoch's training images
    validation_order: Tensor | None = None  # and its validation images, one batch after another
    loss_sum: Tensor = field(default_factory=lambda: torch.zeros(()))  # over the images of this epoch so far
    skipped: int = 0  # steps whose reward was not a number
    skipped_in_a_row: int = 0
    forward_equivalents: int = 0  # what all steps cost so far


class Training:
    """One network on its way through a recipe."""

    def __init__(
        self,
        plan: Plan,
        splits: DataSplits,
        new_searcher: NewStepSearcher,
        keeper: Keeper,
        journal: Journal,
    ) -> None:
        self.plan, self.keeper, self.journal = plan, keeper, journal
        self.train, self.validation = splits.train.to(plan.device), splits.validation.to(plan.device)
        self.test_images = splits.test.to(plan.device)
        self.steps = plan.recipe.check_steps(len(splits.train))
        self.trainer = new_trainer(plan, splits, plan.device)
        train_step = StepOf(self.trainer, self.total_steps, self._begin_part)
        self.shown: Shown | None = None  # while it advances
        self.searcher = new_searcher(self.trainer.trained, train_step, journal.generators["noise"])
        self.progress = Progress()
        if journal.state is not None:
            self.progress = Progress(**journal.state["progress"])
            self.trainer.restore(journal.state["trainer"], self.total_steps())
            self.searcher.restore(journal.state["searcher"])
            keeper.restore(journal.state["keeper"])
        journal.resume()

    def advance(self, until_epoch: int) -> Scores | None:
        """Train on to the end of an epoch, and save. Returns the scores on validation images, if there are any."""
        scores: Scores | None = None
        shown = Shown(self.plan, self.searcher.needs, self.steps, (self.progress.epoch, until_epoch))
        with shown as self.shown:
            while self.progress.epoch < until_epoch:
                self._one_epoch()
                scores = self._finish_epoch()
                shown.at(self.progress.epoch, 0)
        self._save()
        return scores or self.evaluate(self.validation)

    def copy_from(self, other: "Training") -> None:
        """Take over weights, momentum and generators of another training of the same network.

        The settings of the optimizer stay one's own, as its learning rate.
        """
        # torch's optimizers keep the tensors that they are given: without a copy both would move the same momentum.
        state = copy.deepcopy(other.trainer.state())
        state["optimizer"]["param_groups"] = self.trainer.optimizer.state_dict()["param_groups"]
        self.trainer.restore(state, self.total_steps())
        for name, generator in self.journal.generators.items():
            generator.set_state(other.journal.generators[name].get_state())

    def test(self) -> Scores | None:
        """Score the network on the test images. Only a finished training is asked for this."""
        return self.evaluate(self.test_images, thorough=True)

    def metric(self) -> dict[str, Any]:
        """Name, unit and direction of its score."""
        metric = self.plan.task.new_metric(self.plan.device)
        return {"name": metric.name, "unit": metric.unit, "higher_is_better": metric.higher_is_better}

    def evaluate(self, images: Any, thorough: bool = False) -> Scores | None:
        """Score the network on images as they are, `thorough` with all that its metric tells; None for an empty set."""
        if not len(images):
            return None
        task, as_seen = self.plan.task, partial(normalized, standard=self.plan.standard)
        return evaluate(self.trainer, images, as_seen, task.new_metric, task.evaluation_batch, thorough)

    def total_steps(self) -> int:
        """Optimizer steps done since the beginning."""
        return self.progress.epoch * self.steps + self.progress.step

    def _save(self) -> None:
        parts = {
            "progress": vars(self.progress),
            "trainer": self.trainer.state(),
            "searcher": self.searcher.state(),
            "keeper": self.keeper.state(),
        }
        self.journal.save(self.total_steps(), parts)

    def _one_epoch(self) -> None:
        """The steps of an epoch that are left."""
        progress, size = self.progress, self.plan.recipe.step_images
        if progress.order is None:
            progress.order = epoch_order(self.train, self.journal.generators["order"])
            progress.validation_order = self._new_validation_order()
            progress.loss_sum = torch.zeros((), device=self.plan.device)
        moments = [self._moment(step) for step in range(progress.step, self.steps)]
        validation = self._validation_batches(moments)
        left = progress.order[progress.step * size : self.steps * size]
        self.trainer.trained.train()
        for batch, at in zip(self.train.batches(left, size), moments, strict=True):
            wanted = self.searcher.needs.batches if self.searcher.needs.wanted(at) else 0
            now = replace(at, step_size=self.trainer.learning_rate())
            if wanted and self.searcher.needs.epochs is not None:
                self._save()  # a measurement takes long, and one that is interrupted begins anew from here
            self._count(self.searcher.step(batch, list(islice(validation, wanted)), now), len(batch.labels))
            if self.shown is not None:
                self.shown.at(progress.epoch, progress.step)
            if self.journal.is_due():
                self._check_loss()
                self._save()
                self.journal.give_way()

    def _begin_part(self, part: int, parts: int) -> None:
        """Show how far a long step is, and end in the middle of it if a signal came: it is done again on resuming."""
        self.journal.break_off()
        if self.shown is not None:
            self.shown.at_part(part, parts)

    def _count(self, report: StepReport, images: int) -> None:
        """Add up the results of the steps. A row of steps without a usable reward ends the training."""
        progress = self.progress
        progress.loss_sum = progress.loss_sum + report.loss * images
        progress.forward_equivalents += report.forward_equivalents
        progress.step += 1
        if report.skipped is None:
            return
        progress.skipped += report.skipped
        progress.skipped_in_a_row = progress.skipped_in_a_row + 1 if report.skipped else 0
        if progress.skipped_in_a_row >= MOST_SKIPPED_IN_A_ROW:
            raise self.plan.diverged(
                f"the reward was no number in {MOST_SKIPPED_IN_A_ROW} steps in a row of epoch {progress.epoch + 1}"
            )

    def _finish_epoch(self) -> Scores | None:
        """Evaluate when it is due, and write the epoch's line of metrics."""
        progress, recipe = self.progress, self.plan.recipe
        metrics: dict[str, float | str] = {"train_loss": self._check_loss()}
        self._check_equal()
        progress.epoch += 1
        progress.step, progress.order, progress.validation_order = 0, None, None
        due = progress.epoch % recipe.evaluate_every == 0 or progress.epoch == recipe.epochs
        scores = self.evaluate(self.validation) if due else None
        if scores is not None:
            metrics |= {f"validation_{name}": value for name, value in scores.values.items()}
        metrics |= self.keeper.consider(self, scores)
        self.journal.tracker.log(progress.epoch * self.steps, {"epoch": progress.epoch, **metrics})
        return scores

    def _check_equal(self) -> None:
        """End the training if several processes no longer compute the same: a searcher, or a loss, that is not told."""
        if processes() == 1:
            return
        if apart := unequal({"weights": self.trainer.state(), "search": self.searcher.state()}):
            raise InputError(
                f"in epoch {self.progress.epoch + 1} the processes of torchrun had different {' and '.join(apart)}, so "
                "no result would be one of all of them; start this without torchrun"
            )

    def _check_loss(self) -> float:
        """The mean training loss of this epoch so far; a training that diverged ends here."""
        progress = self.progress
        seen = min(progress.step * self.plan.recipe.step_images, len(self.train))
        loss = float(progress.loss_sum) / max(seen, 1)
        if not math.isfinite(loss):
            raise self.plan.diverged(f"the training loss is {loss} in epoch {progress.epoch + 1}")
        return loss

    def _moment(self, step: int) -> Moment:
        return Moment(self.progress.epoch, step, self.steps, self.plan.recipe.epochs, 0.0)

    def _validation_size(self) -> int:
        """Images of a validation batch."""
        return min(self.plan.recipe.batch_size, len(self.validation))

    def _new_validation_order(self) -> Tensor:
        """Validation images for all steps of an epoch: every image once before any comes again."""
        needs, size, count = self.searcher.needs, self._validation_size(), len(self.validation)
        total = self.steps * needs.batches * size
        if not total:
            return torch.empty(0, dtype=torch.int64)
        if needs.fixed:
            fixed = torch.randperm(count, generator=torch.Generator().manual_seed(self.plan.seed))
            return fixed[torch.arange(total) % (needs.batches * size) % count]
        generator = self.journal.generators["order"]
        orders = [torch.randperm(count, generator=generator) for _ in range(math.ceil(total / count))]
        return torch.cat(orders)[:total]

    def _validation_batches(self, moments: list[Moment]) -> Iterator[Batch]:
        """The validation batches of the steps that want them, one after another; no other image is read."""
        order, needs = self.progress.validation_order, self.searcher.needs
        if order is None or not len(order):
            return iter(())
        of_steps = order.view(self.steps, needs.batches * self._validation_size())
        wanted = [at.step for at in moments if needs.wanted(at)]
        return self.validation.batches(
            of_steps[torch.tensor(wanted, dtype=torch.int64)].flatten(), self._validation_size()
        )
