"""Search: some images train the weights, others judge, none is a test image; resumed, it ends on the same bits."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from jointsearch.data.sets import Batch, DataSplits
from jointsearch.loops.evaluate import evaluate
from jointsearch.loops.recipe import Trainer
from jointsearch.loops.resumable import Journal, carry_out
from jointsearch.loops.trial import CPU, Trial, new_trainer
from jointsearch.randomness import own_global_randomness
from jointsearch.run_folder import replace_file
from jointsearch.train_step import TrainStep
from search_spaces.errors import InputError
from search_spaces.genotype import Genotype
from search_spaces.policy import Policy

# A reward that is no number is left out; this many steps in a row are a defect and end the search.
MOST_SKIPPED_IN_A_ROW = 3
KEEP = ("last", "best")


class Searcher(Protocol):
    """What the loop needs of a search algorithm."""

    validation_batches: int  # how many it wants for a step
    first_batch_only: bool  # whether every step gets the same ones
    learns_from: int  # the first epoch in which all learns that is searched

    def wants_validation(self, epoch: int, steps: int) -> Sequence[bool]:
        """Which of the next steps of this epoch want validation batches; the others get none."""

    def step(self, train: Batch, validation: Sequence[Batch], step_size: float, epoch: int) -> dict[str, Tensor]:
        """Train the weights by one step, and perhaps learn from it: then "skipped" stands beside "train_loss"."""

    def forward_equivalents(self, epoch: int) -> int:
        """What a step of this epoch costs, in forward passes of the batch.

        A backward pass counts as two, and as one where no weight gets a gradient.
        """

    def metrics(self) -> Mapping[str, float | str]:
        """Where the search stands, for the epoch's line of metrics."""

    def found(self) -> dict[str, Any]:
        """What the result keeps beside the policy, as plain data."""

    def policy(self) -> Policy:
        """The policy that it would return now."""

    def genotype(self) -> Genotype | None:
        """The cells that it would return now, where it searches any."""

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint has to hold."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there."""


# Network, its training step, and the generator of all draws in; a searcher out.
NewSearcher = Callable[[nn.Module, TrainStep, torch.Generator], Searcher]


@dataclass(frozen=True)
class StepOf:
    """The training step of a trainer, as searchers call it."""

    trainer: Trainer
    done: Callable[[], int]  # optimizer steps since the beginning

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """One optimizer step."""
        return self.trainer.step(images, labels, self.done())

    def undone(self) -> AbstractContextManager[None]:
        """A trial that is taken back; within it the schedule stands still."""
        return self.trainer.undone()


@dataclass
class Progress:
    """Where a search stands."""

    epoch: int = 0
    step: int = 0  # steps done in this epoch
    order: Tensor | None = None  # this epoch's training images
    validation_order: Tensor | None = None  # and its validation images, one batch after another
    loss_sum: Tensor = field(default_factory=lambda: torch.zeros(()))
    skipped_in_a_row: int = 0
    skipped: int = 0
    kept: dict[str, Any] = field(default_factory=dict)  # what the searcher said in the epoch that is kept
    kept_epoch: int = 0  # whose policy and genotype are the outcome, as the rule has it so far
    kept_accuracy: float = -1.0
    kept_policy: str = ""  # JSON
    kept_genotype: str = ""


def search(trial: Trial, splits: DataSplits, new_searcher: NewSearcher, keep: str = KEEP[0]) -> dict[str, Any]:
    """Search, or go on, or return the result that is there already; what is found lies in found.json and genotype.json.

    The training part of `splits` trains the weights and its validation part judges; its test part is never looked at.
    `keep` says of which epoch policy and genotype are the outcome: the last, or the best, that of the highest
    validation accuracy of the searched network among those in which all of it learned; of equal ones the later.
    """

    def find(journal: Journal) -> dict[str, Any]:
        run = _Run(trial, splits, new_searcher, journal, keep)
        run.to_the_end()
        replace_file(trial.folder / "found.json", run.progress.kept_policy.encode())
        if run.progress.kept_genotype:
            replace_file(trial.folder / "genotype.json", run.progress.kept_genotype.encode())
        return run.result()

    return carry_out(trial, splits, trial.search, find)


def check_search(trial: Trial, splits: DataSplits, new_searcher: NewSearcher) -> None:
    """Raise InputError for what would go wrong later, before anything is written: one step is tried on blank images."""
    with own_global_randomness(trial.seed):
        trainer = new_trainer(trial, splits, CPU)
        trainer.task.train()
        blank = torch.zeros(4, *splits.train.image_shape, dtype=torch.uint8)
        batch = Batch(blank, torch.arange(4) % len(splits.train.classes), torch.arange(4))
        searcher = new_searcher(
            trainer.task.get_trainable_module(),
            StepOf(trainer, lambda: 0),
            torch.Generator().manual_seed(trial.seed),
        )
        try:
            searcher.step(batch, [batch] * searcher.validation_batches, trial.recipe.learning_rate, trial.recipe.epochs)
        except InputError:
            raise
        except Exception as error:  # other people's networks raise whatever they like
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise InputError(
                f"network={trial.network} cannot take a search step ({reason}); choose another network or searcher"
            ) from None


class _Run:
    """The moving parts of one search."""

    def __init__(
        self, trial: Trial, splits: DataSplits, new_searcher: NewSearcher, journal: Journal, keep: str
    ) -> None:
        self.trial, self.journal, self.keep = trial, journal, keep
        self.train, self.validation = splits.train.to(trial.device), splits.validation.to(trial.device)
        self.steps = trial.recipe.check_steps(len(self.train))
        self.trainer = new_trainer(trial, splits, trial.device)
        self.searcher = new_searcher(
            self.trainer.task.get_trainable_module(),
            StepOf(self.trainer, self.total_steps),
            journal.generators["noise"],
        )
        self.progress = Progress()
        if journal.state is not None:
            self.progress = Progress(**journal.state["progress"])
            self.trainer.restore(journal.state["trainer"], self.total_steps())
            self.searcher.restore(journal.state["searcher"])
        journal.resume()

    def save(self) -> None:
        """Write a checkpoint of the whole run."""
        parts = {"trainer": self.trainer.state(), "searcher": self.searcher.state()}
        self.journal.save(self.total_steps(), {"progress": vars(self.progress), **parts})

    def total_steps(self) -> int:
        """Optimizer steps done since the beginning."""
        return self.progress.epoch * self.steps + self.progress.step

    def to_the_end(self) -> None:
        """All epochs that are left."""
        epochs = self.trial.recipe.epochs
        disable = None if self.trial.show_progress else True
        with tqdm(
            total=epochs, initial=self.progress.epoch, desc=self.trial.name, unit="epoch", disable=disable
        ) as bar:
            while self.progress.epoch < epochs:
                self.one_epoch()
                bar.update()
        self.save()

    def one_epoch(self) -> None:
        """The steps of an epoch that are left."""
        progress, size = self.progress, self.trial.recipe.batch_size
        if progress.order is None:
            progress.order = torch.randperm(len(self.train), generator=self.journal.generators["order"])
            progress.validation_order = self.new_validation_order()
            progress.loss_sum = torch.zeros((), device=self.trial.device)
        judged = self.searcher.wants_validation(progress.epoch, self.steps - progress.step)
        validation = self.validation_stream(judged)
        left = progress.order[progress.step * size : self.steps * size]
        self.trainer.task.train()
        for batch, is_judged in zip(self.train.batches(left, size), judged, strict=True):
            judges = [next(validation) for _ in range(self.searcher.validation_batches if is_judged else 0)]
            step_size = self.trainer.optimizer.param_groups[0]["lr"]
            metrics = self.searcher.step(batch, judges, step_size, progress.epoch)
            progress.loss_sum = progress.loss_sum + metrics["train_loss"] * len(batch.labels)
            if "skipped" in metrics:
                self.count_skipped(bool(metrics["skipped"]))
            progress.step += 1
            if self.journal.is_due():
                self.check_loss()
                self.save()
                self.journal.give_way()
        self.finish_epoch()

    def finish_epoch(self) -> None:
        """The epoch's line of metrics: the losses, and where the search stands."""
        progress = self.progress
        train_loss = self.check_loss()
        progress.epoch += 1
        progress.step, progress.order, progress.validation_order = 0, None, None
        scores = evaluate(self.trainer, self.validation, self.trial.standard)
        said = dict(self.searcher.metrics())
        self.keep_or_not(scores["accuracy"], said)
        metrics: dict[str, float | str] = {"epoch": progress.epoch, "train_loss": train_loss}
        metrics |= {f"validation_{name}": value for name, value in scores.items()} | said
        self.journal.tracker.log(progress.epoch * self.steps, metrics)

    def keep_or_not(self, accuracy: float, said: dict[str, float | str]) -> None:
        """Take this epoch's policy and genotype, and all that describes them, for the outcome, if the rule says so."""
        progress = self.progress
        learned = progress.kept_epoch > self.searcher.learns_from  # which counts from 0
        if self.keep == "best" and learned and accuracy < progress.kept_accuracy:
            return
        genotype = self.searcher.genotype()
        progress.kept_epoch, progress.kept_accuracy = progress.epoch, accuracy
        progress.kept = {**said, **self.searcher.found()}
        progress.kept_policy = self.searcher.policy().to_json()
        progress.kept_genotype = "" if genotype is None else genotype.to_json()

    def new_validation_order(self) -> Tensor:
        """Validation images for all steps of an epoch: every image once before any comes again."""
        total = self.steps * self.searcher.validation_batches * self.validation_size()
        if self.searcher.first_batch_only:
            fixed = torch.randperm(len(self.validation), generator=torch.Generator().manual_seed(self.trial.seed))
            return fixed[torch.arange(total) % (self.searcher.validation_batches * self.validation_size()) % len(fixed)]
        if not total:
            return torch.empty(0, dtype=torch.int64)
        rounds = math.ceil(total / len(self.validation))
        orders = [
            torch.randperm(len(self.validation), generator=self.journal.generators["order"]) for _ in range(rounds)
        ]
        return torch.cat(orders)[:total]

    def validation_size(self) -> int:
        """Images of a validation batch."""
        return min(self.trial.recipe.batch_size, len(self.validation))

    def validation_stream(self, judged: Sequence[bool]) -> Iterator[Batch]:
        """The validation batches of those steps that are left in this epoch and want them: no other is read."""
        if self.progress.validation_order is None:
            raise ValueError("an epoch has no validation order; call it after one_epoch began")
        size = self.validation_size()
        of_steps = self.progress.validation_order.view(self.steps, self.searcher.validation_batches * size)
        wanted = of_steps[self.progress.step :][torch.tensor(judged, dtype=torch.bool)]
        return self.validation.batches(wanted.flatten(), size)

    def count_skipped(self, skipped: bool) -> None:
        """Count steps without a usable reward; a row of them ends the search."""
        progress = self.progress
        progress.skipped += skipped
        progress.skipped_in_a_row = progress.skipped_in_a_row + 1 if skipped else 0
        if progress.skipped_in_a_row >= MOST_SKIPPED_IN_A_ROW:
            raise self.trial.diverged(
                f"the reward was no number in {MOST_SKIPPED_IN_A_ROW} steps in a row of epoch {progress.epoch + 1}"
            )

    def check_loss(self) -> float:
        """The mean training loss of this epoch so far; a search whose weights diverged ends here."""
        progress = self.progress
        seen = min(progress.step * self.trial.recipe.batch_size, len(self.train))
        loss = float(progress.loss_sum) / max(seen, 1)
        if not math.isfinite(loss):
            raise self.trial.diverged(f"the training loss is {loss} in epoch {progress.epoch + 1}")
        return loss

    def result(self) -> dict[str, Any]:
        """What the search cost, and where it stood in the epoch that is kept."""
        costs = sum(self.searcher.forward_equivalents(epoch) for epoch in range(self.progress.epoch))
        return {
            "epochs": self.progress.epoch,
            "steps": self.total_steps(),
            "seconds": round(self.journal.seconds(), 1),
            "forward_equivalents": costs * self.steps,
            "skipped_steps": self.progress.skipped,
            "keep": self.keep,
            "kept_epoch": self.progress.kept_epoch,
            **self.progress.kept,
        }
