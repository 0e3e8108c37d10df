"""Policy search without an estimator: every op is tried on the same images, at a few moments of one training.

A gain is what training with an op takes off the validation loss, or its error, as `gains` says: more is better.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from scipy.stats import t as student
from torch import Tensor, nn

from jointsearch.data.sets import Batch
from jointsearch.data.standard import Standard, normalize
from jointsearch.front_end import augment
from jointsearch.searchers.gains import Gauge, ManySteps, OneStep, Table
from jointsearch.searchers.table_settings import TableSearch, epochs_due
from jointsearch.soft.policy import SoftPolicy
from jointsearch.train_step import TrainStep
from search_spaces.policy import OpChoice, Policy, SubPolicy

STATE = ("steps", "epoch", "cost", "gains", "images", "owner")  # of a searcher
QUANTILE = 0.975  # what is called sure is so at the 5% level, on both sides


class TableSearcher:
    """Trains the weights under the starting policy, and now and then measures the gain of every row of a table.

    A row is an entry, or where many steps are tried, an op at all its levels. A measurement follows a training step,
    and all rows meet the same images, crops and judges: they differ by nothing but their op.
    """

    first_batch_only = False
    learns_from = 0

    def __init__(
        self,
        settings: TableSearch,
        network: nn.Module,
        train_step: TrainStep,
        standard: Standard,
        noise: torch.Generator,
        epochs: int = 1,
    ) -> None:
        self.settings, self.standard, self.noise, self.train_step = settings.searcher, standard, noise, train_step
        self.from_epoch = self.settings.first_epoch(epochs)
        self.epochs_due = epochs_due(self.settings, epochs)
        if not self.settings.trial_steps:
            self.epochs_due += (epochs,)  # which comes in the check before a search only, and is cheap enough there
        self.start, self.entries, self.rows = settings.policy_space.policy(), settings.entries(), settings.rows()
        self.validation_batches = judges = settings.searcher.validation_batches
        table = Table(self.start, self.entries, self.rows, standard)
        self.gauge: Gauge = (
            ManySteps(table, network, train_step, self.settings.trial_steps, judges)
            if self.settings.trial_steps
            else OneStep(table, network, train_step, self.settings.reward_scale, judges)
        )
        # Whose gain each row gets. In the control the policy is as uneven as the real one, and knows as much as dice:
        # the plain image, which the others are compared with, keeps its own.
        self.owner = torch.arange(len(self.rows))
        if self.settings.rewards == "shuffled":
            self.owner[1:] = 1 + torch.randperm(len(self.rows) - 1, generator=noise.clone_state())
        self.steps = 0  # since from_epoch
        self.epoch = -1  # of the last step
        self.cost = 0  # forward-equivalents
        self.gains = torch.empty(0, len(self.rows), dtype=torch.float64)  # (M, R) means over images
        self.images = torch.empty(0, dtype=torch.float64)  # (M,) how many

    def step(self, train: Batch, validation: Sequence[Batch], step_size: float, epoch: int) -> dict[str, Tensor]:
        """Train the weights on augmented images, and measure where a measurement is due."""
        images = augment(train.images, self.start, self.standard, self.noise)
        self.cost += 3
        self.gauge.remember(train)
        if not self.is_due(epoch):
            return {"train_loss": self.train_step(images, train.labels)}
        judges = [(normalize(batch.images, self.standard), batch.labels) for batch in validation]
        train_loss, gains = self.gauge.measure(images, train, judges, step_size, self.noise)
        self.cost += self.gauge.cost
        usable = bool(gains.isfinite().all())
        if usable:
            self.gains = torch.cat([self.gains, gains[self.owner].unsqueeze(0)])
            self.images = torch.cat([self.images, torch.tensor([len(train.labels)], dtype=torch.float64)])
        return {"train_loss": train_loss, "skipped": torch.tensor(not usable)}

    def is_due(self, epoch: int) -> bool:
        """Whether this step is measured; counts it."""
        (due,) = self.wants_validation(epoch, 1)
        self.epoch, self.steps = epoch, self.steps + (epoch >= self.from_epoch)
        return due

    def wants_validation(self, epoch: int, steps: int) -> list[bool]:
        """Which of the next steps of an epoch are followed by a measurement."""
        if self.settings.every is None:
            begins = epoch != self.epoch and epoch in self.epochs_due
            return [begins and place == 0 for place in range(steps)]
        learns = epoch >= self.from_epoch
        return [learns and (self.steps + place) % self.settings.every == 0 for place in range(steps)]

    def means(self) -> Tensor:
        """The mean gain of every row over all images that were measured, (R,)."""
        return self.images @ self.gains / self.images.sum().clamp(min=1)

    def differences(self) -> tuple[Tensor, Tensor]:
        """What every row gains beyond the identity on the same images: mean and standard error, (R,) each."""
        # Images of a measurement share v, and v is noise too. From images as if they were independent, the standard
        # error of 30 measurements on shapes came out 2.4 to 2.8 times too small (3 seeds): measurements are counted.
        count = len(self.gains)
        paired = self.gains - self.gains[:, :1]  # (M, R)
        mean = self.images @ paired / self.images.sum().clamp(min=1)
        if count < 2:
            return mean, torch.full_like(mean, torch.inf)
        squares = (self.images.unsqueeze(1) * (paired - mean)).square().sum(0)
        return mean, (squares * count / (count - 1)).sqrt() / self.images.sum()

    def verdicts(self) -> Tensor:
        """(R,): 1 for rows surely better than the identity, their mean by the margin; -1 for worse, 0 for others."""
        mean, error = self.differences()
        # About 2 standard errors, but 12.7 of them where there are only two measurements; at least the margin.
        reach = (float(student.ppf(QUANTILE, len(self.gains) - 1)) * error).clamp(min=self.settings.margin)
        return (mean > reach).int() - (mean < -reach).int()

    def shares(self) -> Tensor:
        """How likely every entry is in the finished policy, (E,); where nothing gains all ops stay alike."""
        weights = torch.tensor([entry.weight for entry in self.entries.sub_policies], dtype=torch.float64)
        significant = self.settings.form == "significant"
        worth = (self.verdicts() >= 0).double() if significant else self.means().clamp(min=0)  # (R,)
        kept = weights.clone()
        for row, members in enumerate(self.rows):
            kept[members] *= worth[row]
        return kept / kept.sum() if kept.any() else weights / weights.sum()

    def genotype(self) -> None:
        """No cells are searched."""

    def policy(self) -> Policy:
        """The finished policy as things stand: entries, or independent pairs of them."""
        rows = zip(self.entries.sub_policies, self.shares().tolist(), strict=True)
        likely = [(entry.ops, share) for entry, share in rows if share > 0]
        weights: defaultdict[tuple[OpChoice, ...], float] = defaultdict(float)
        for sequence in itertools.product(likely, repeat=self.settings.stages):
            # Pairs that differ only in where the identity stands are one sub-policy.
            ops = tuple(op for entry, _ in sequence for op in entry)
            weights[ops] += math.prod(share for _, share in sequence)
        return Policy(tuple(SubPolicy(ops, weight) for ops, weight in weights.items()), name="found")

    def forward_equivalents(self, epoch: int) -> int:
        """What a step costs, on average and rounded where that is known; the exact sum of all steps is in `found`."""
        every = self.settings.every
        return 3 if epoch < self.from_epoch or every is None else 3 + round(self.gauge.cost / every)

    @torch.no_grad()
    def metrics(self) -> dict[str, float]:
        """How much was measured, what surely differs from the identity, and how wide the policy is."""
        verdicts = self.verdicts()
        soft = SoftPolicy(self.policy(), learn_probability=False)
        of_ops: defaultdict[str, float] = defaultdict(float)
        for entry, share in zip(self.entries.sub_policies, self.shares().tolist(), strict=True):
            for acting in entry.ops:
                of_ops[acting.op] += share
        return {
            "measurements": float(len(self.gains)),
            "entries_above_identity": float((verdicts > 0).sum()),
            "entries_below_identity": float((verdicts < 0).sum()),
            "effective_sub_policies": float(soft.entropy().exp()),
            "idle_share": float(soft.idle_share()),
            **{f"share/{op}": share for op, share in of_ops.items()},
        }

    def found(self) -> dict[str, Any]:
        """The table, largest gain first, and the exact cost, which is not the same for every step."""
        shares, entries = self.shares(), self.entries.sub_policies
        columns = zip(self.rows, self.means(), *self.differences(), strict=True)
        rows = [
            {
                **named([entries[member] for member in members.tolist()]),
                "gain": float(gain),
                "beyond_identity": float(beyond),
                "standard_error": float(error) if error.isfinite() else None,
                "share": float(shares[members].sum()),
            }
            for members, gain, beyond, error in columns
        ]
        return {
            "table": sorted(rows, key=lambda row: -row["gain"]),
            "measurements": len(self.gains),
            "images_measured": int(self.images.sum()),
            "sub_policy_shares": shares.tolist(),
            "forward_equivalents": self.cost,
        }

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint has to hold."""
        kept = {name: getattr(self, name) for name in STATE}
        return {**kept, "gauge": self.gauge.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        for name in STATE:
            setattr(self, name, state[name])
        self.gauge.restore(state["gauge"])


def named(members: Sequence[SubPolicy]) -> dict[str, Any]:
    """The op of a row and its magnitude, where it has a single one."""
    if not members[0].ops:
        return {"op": "identity", "magnitude": None}
    (first, *others) = (entry.ops[0] for entry in members)
    return {"op": first.op, "magnitude": None if others else first.magnitude}
