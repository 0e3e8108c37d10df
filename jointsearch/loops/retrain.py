"""Train one network under one finished policy, from scratch to its test accuracy; resumed, it ends on the same bits."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from jointsearch.data.sets import AnySet, DataSplits
from jointsearch.front_end import augment
from jointsearch.loops.evaluate import evaluate
from jointsearch.loops.resumable import Journal, carry_out
from jointsearch.loops.trial import Trial, new_trainer
from jointsearch.settings import as_plain


@dataclass
class Progress:
    """Where a training stands: everything of a checkpoint that is not the network's own."""

    epoch: int = 0
    step: int = 0  # steps done in this epoch
    order: Tensor | None = None  # this epoch's images
    loss_sum: Tensor = field(default_factory=lambda: torch.zeros(()))  # over the images of this epoch so far
    selected_epoch: int = 0
    selected_accuracy: float = -1.0
    selected_weights: dict[str, Tensor] | None = None


def retrain(trial: Trial, splits: DataSplits) -> dict[str, Any]:
    """Train, or go on, or return the result that is there already; `check_trial` is the caller's to call first.

    Raises Interrupted after a signal.
    """

    def train(journal: Journal) -> dict[str, Any]:
        run = _Run(trial, splits, journal)
        result = run.to_the_end()
        scores = {key: value for key, value in result.items() if key.startswith("test_acc")}
        journal.tracker.log(run.total_steps(), scores)
        return result

    return carry_out(trial, splits, as_plain(trial.recipe), train)


class _Run:
    """The moving parts of one training."""

    def __init__(self, trial: Trial, splits: DataSplits, journal: Journal) -> None:
        self.trial, self.journal = trial, journal
        self.splits = DataSplits(*(part.to(trial.device) for part in (splits.train, splits.validation, splits.test)))
        self.steps = trial.recipe.check_steps(len(splits.train))
        self.trainer = new_trainer(trial, splits, trial.device)
        self.progress = Progress()
        if journal.state is not None:
            self.progress = Progress(**journal.state["progress"])
            self.trainer.restore(journal.state["trainer"], self.total_steps())
        journal.resume()

    def save(self) -> None:
        """Write a checkpoint of the whole run."""
        self.journal.save(self.total_steps(), {"progress": vars(self.progress), "trainer": self.trainer.state()})

    def total_steps(self) -> int:
        """Optimizer steps done since the beginning."""
        return self.progress.epoch * self.steps + self.progress.step

    def to_the_end(self) -> dict[str, Any]:
        """All epochs that are left, then the test set, once."""
        epochs = self.trial.recipe.epochs
        bar = tqdm(
            total=epochs,
            initial=self.progress.epoch,
            desc=self.trial.name,
            unit="epoch",
            disable=None if self.trial.show_progress else True,
            leave=False,
        )
        with bar:
            while self.progress.epoch < epochs:
                self.one_epoch()
                bar.update()
        self.save()
        return self.result()

    def one_epoch(self) -> None:
        """The steps of an epoch that are left, and its evaluation when it is due."""
        trial, progress = self.trial, self.progress
        if progress.order is None:
            progress.order = torch.randperm(len(self.splits.train), generator=self.journal.generators["order"])
            progress.loss_sum = torch.zeros((), device=trial.device)
        policy = trial.policy_at(progress.epoch)
        batch_size = trial.recipe.batch_size
        left = progress.order[progress.step * batch_size : self.steps * batch_size]
        self.trainer.task.train()
        for batch in self.splits.train.batches(left, batch_size):
            images = augment(batch.images, policy, trial.standard, self.journal.generators["noise"])
            loss = self.trainer.step(images, batch.labels, self.total_steps())
            progress.loss_sum = progress.loss_sum + loss * len(images)
            progress.step += 1
            if self.journal.is_due():
                self.check_loss()
                self.save()
                self.journal.give_way()
        self.finish_epoch()

    def finish_epoch(self) -> None:
        """Evaluate when it is due, and keep the weights that validation likes best."""
        progress, recipe = self.progress, self.trial.recipe
        train_loss = self.check_loss()
        progress.epoch += 1
        progress.step, progress.order = 0, None
        metrics = {"epoch": progress.epoch, "train_loss": train_loss}
        due = progress.epoch % recipe.evaluate_every == 0 or progress.epoch == recipe.epochs
        if due and len(self.splits.validation):
            scores = self.evaluate(self.splits.validation)
            metrics |= {f"validation_{name}": value for name, value in scores.items()}
            # Of equal epochs the first: later ones had more chances to be lucky.
            if scores["accuracy"] > progress.selected_accuracy:
                progress.selected_accuracy, progress.selected_epoch = scores["accuracy"], progress.epoch
                weights = self.trainer.network().state_dict()
                progress.selected_weights = {name: value.detach().clone() for name, value in weights.items()}
        self.journal.tracker.log(progress.epoch * self.steps, metrics)

    def check_loss(self) -> float:
        """The mean training loss of this epoch so far; a training that diverged ends here."""
        progress = self.progress
        seen = min(progress.step * self.trial.recipe.batch_size, len(self.splits.train))
        loss = float(progress.loss_sum) / max(seen, 1)
        if not math.isfinite(loss):
            raise self.trial.diverged(f"the training loss is {loss} in epoch {progress.epoch + 1}")
        return loss

    def evaluate(self, images: AnySet) -> dict[str, float]:
        """Mean loss and accuracy in percent, images as they are."""
        return evaluate(self.trainer, images, self.trial.standard)

    def result(self) -> dict[str, Any]:
        """The result of the run. Here the test set is looked at, and nowhere else."""
        progress, seconds = self.progress, self.journal.seconds()
        result: dict[str, Any] = {
            "epochs": progress.epoch,
            "images_trained": progress.epoch * min(self.steps * self.trial.recipe.batch_size, len(self.splits.train)),
            "seconds": round(seconds, 1),
            "test_images": len(self.splits.test),
        }
        if not len(self.splits.test):
            return result
        result["test_accuracy_last"] = self.evaluate(self.splits.test)["accuracy"]
        if progress.selected_weights is not None:
            self.trainer.network().load_state_dict(progress.selected_weights)
            result |= {
                "test_accuracy_selected": self.evaluate(self.splits.test)["accuracy"],
                "selected_epoch": progress.selected_epoch,
                "validation_accuracy_selected": progress.selected_accuracy,
            }
        return result
