"""Policy search without an estimator: every op is measured on the same images, at a few moments of one training.

A gain is what training with an op takes off the validation loss, or off the validation error: more is better.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from scipy.stats import t as student
from torch import Tensor

from jointsearch.data.sets import Batch
from jointsearch.data.standard import normalize
from jointsearch.front_end import augment
from jointsearch.protocols import PLAIN_STEP, About, Context, Found, Moment, Needs, State, StepReport
from jointsearch.searchers.gains import Gauge, ManySteps, OneStep, Rows
from jointsearch.searchers.spaces import Measured
from jointsearch.searchers.table_entries import check_size, table_entries, table_rows
from jointsearch.settings import bounded, check_fields, choice, group, setting
from jointsearch.soft.policy import SoftPolicy
from search_spaces.errors import InputError
from search_spaces.levels import with_ranges
from search_spaces.policy import OpChoice, Policy, SubPolicy

FEWEST = 2  # measurements: a single one has no standard error, and is no evidence
QUANTILE = 0.975  # what is called sure is so at the 5% level, on both sides


@dataclass(frozen=True)
class Table:
    """Measures the reward of one training step, of every op at every level."""

    about: ClassVar[About] = About(rewards_are_steps=True, complete_at_end=True)

    policy_space: Measured = group(Measured, help="the only space that it reads: start")
    from_epoch: int = bounded(0, 0, 100_000, help="epochs under the starting policy before anything is measured")
    every: int = bounded(20, 1, 1_000_000, help="steps from one measurement to the next")
    validation_batches: int = bounded(
        4, 1, 1000, help="number of batches that are averaged into one validation gradient"
    )
    levels: int | None = bounded(
        3, 1, 100, help="number of magnitudes of an op: 3 takes 1/3, 2/3 and 1; null: those of the start"
    )
    reward_scale: str = choice("none", "none", "loss", "rank", help="divide by each image's loss, or take ranks")
    margin: float = bounded(0.0, 0.0, 1000.0, help="smaller differences from the plain image are ignored")
    stages: int = choice(1, 1, 2, help="number of ops of a sub-policy, drawn independently")
    shuffled: bool = setting(False, help="the control: gains are randomly permuted across ops")

    def __post_init__(self) -> None:
        check_fields(self)
        check_size(table_entries(self.policy_space, self.levels), self.stages, self.levels)

    def check(self, epochs: int, steps: int, epochs_from: str) -> None:
        """Refuse a search that measures too seldom to say anything."""
        measured = max(0, epochs - self.from_epoch) * steps
        if math.ceil(measured / self.every) < FEWEST:
            raise InputError(
                f"searcher.every={self.every} makes fewer than {FEWEST} measurements in the {measured} steps from "
                "searcher.from_epoch on, and one is no evidence; lower it or searcher.from_epoch, or raise "
                f"{epochs_from} or budget"
            )

    def start(self, context: Context) -> "TableSearcher":
        """Begin a search of a policy."""
        entries = table_entries(self.policy_space, self.levels)
        rows = Rows(self.policy_space.policy(), entries, table_rows(entries, by_op=False), context.standard)
        gauge = OneStep(rows, context.network, context.train_step, self.reward_scale, self.validation_batches)
        needs = Needs(self.validation_batches, self.from_epoch, self.from_epoch, every=self.every)
        return TableSearcher(self, context, rows, gauge, needs)


@dataclass(frozen=True)
class Trials:
    """Continues training for some steps with each op, compares the validation errors, and takes the steps back."""

    about: ClassVar[About] = About(
        complete_at_end=True,
        warning="searcher=trials looks few steps ahead, and may drop ops that help in the long run; the row "
        "trivialaugment, where its policy starts, says whether it did (docs/results.md)",
    )

    fewest_epochs: ClassVar[int] = 2 * FEWEST - 1  # of which the second half has an epoch for each measurement

    policy_space: Measured = group(Measured, help="the only space that it reads: start")
    measurements: int = bounded(7, FEWEST, 1000, help="how many, spread evenly over the second half of the epochs")
    trial_steps: int = bounded(20, 1, 1000, help="training steps with each op; half of the images are under it")
    validation_batches: int = bounded(4, 1, 1000, help="number of batches on which errors are compared")
    levels: int | None = bounded(None, 1, 100, help="number of magnitudes of an op; null: those of the start")
    margin: float = bounded(0.015, 0.0, 1.0, help="smaller differences of the validation error are ignored")
    stages: int = choice(1, 1, 2, help="number of ops of a sub-policy, drawn independently")
    shuffled: bool = setting(False, help="the control: gains are randomly permuted across ops")

    def __post_init__(self) -> None:
        check_fields(self)
        check_size(table_entries(self.policy_space, self.levels), self.stages, self.levels)

    def scaled(self, budget: float) -> "Trials":
        """The same search with fewer measurements, where a budget leaves fewer epochs."""
        return replace(self, measurements=max(FEWEST, round(self.measurements * min(budget, 1.0))))

    def check(self, epochs: int, steps: int, epochs_from: str) -> None:
        """Refuse a search with fewer epochs than measurements."""
        self.epochs_due(epochs, epochs_from)

    def epochs_due(self, epochs: int, epochs_from: str = "search_recipe.epochs") -> tuple[int, ...]:
        """The epochs that begin with a measurement."""
        begin = epochs // 2
        left, count = epochs - begin, self.measurements
        if left < count:
            fewer = f", or searcher.measurements={left}" if left >= FEWEST else ""
            raise InputError(
                f"searcher.measurements={count} take an epoch each in the second half of {epochs} epochs; set "
                f"{epochs_from}={2 * count - 1} with budget=1{fewer}"
            )
        return tuple(begin + place * left // count for place in range(count))

    def start(self, context: Context) -> "TableSearcher":
        """Begin a search of a policy."""
        entries = table_entries(self.policy_space, self.levels)
        rows = Rows(self.policy_space.policy(), entries, table_rows(entries, by_op=True), context.standard)
        gauge = ManySteps(rows, context.network, context.train_step, self.trial_steps, self.validation_batches)
        due = self.epochs_due(context.epochs)
        return TableSearcher(
            self, context, rows, gauge, Needs(self.validation_batches, due[0], due[0], epochs=due, cost=gauge.cost)
        )


class TableSearcher:
    """Trains the weights under the starting policy, and now and then measures the gain of every row of a table.

    A row is an entry, or all entries of an op. A measurement follows a training step. All rows are measured on the same
    images, crops and validation images, and so differ by their op alone.
    """

    def __init__(self, settings: Table | Trials, context: Context, rows: Rows, gauge: Gauge, needs: Needs) -> None:
        self.settings, self.context, self.rows, self.gauge, self.needs = settings, context, rows, gauge, needs
        # Whose gain each row gets. In the control it is another row's, so that the policy is as uneven as the real one
        # and random; the plain image, which the others are compared with, keeps its own.
        self.owner = torch.arange(len(rows.members))
        if settings.shuffled:
            self.owner[1:] = 1 + torch.randperm(len(rows.members) - 1, generator=context.noise.clone_state())
        self.gains = torch.empty(0, len(rows.members), dtype=torch.float64)  # (M, R) means over images
        self.images = torch.empty(0, dtype=torch.float64)  # (M,) how many

    def step(self, train: Batch, validation: Sequence[Batch], at: Moment) -> StepReport:
        """Train the weights on augmented images, and measure where there are validation images."""
        standard, noise = self.context.standard, self.context.noise
        images = augment(train.images, self.rows.start, standard, noise)
        self.gauge.remember(train)
        if not validation:
            return StepReport(self.context.train_step(images, train.labels))
        seen = [(normalize(batch.images, standard), batch.labels) for batch in validation]
        train_loss, gains = self.gauge.measure(images, train, seen, at.step_size, noise)
        usable = bool(gains.isfinite().all())
        if usable:
            self.gains = torch.cat([self.gains, gains[self.owner].unsqueeze(0)])
            self.images = torch.cat([self.images, torch.tensor([len(train.labels)], dtype=torch.float64)])
        return StepReport(train_loss, skipped=not usable, forward_equivalents=PLAIN_STEP + self.gauge.cost)

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
        """How likely every entry is in the finished policy, (E,): all but what is surely worse than the plain image."""
        weights = torch.tensor([entry.weight for entry in self.rows.entries.sub_policies], dtype=torch.float64)
        worth = (self.verdicts() >= 0).double()  # (R,)
        kept = weights.clone()
        for row, members in enumerate(self.rows.members):
            kept[members] *= worth[row]
        return kept / kept.sum() if kept.any() else weights / weights.sum()

    def policy(self, shares: Tensor) -> Policy:
        """The finished policy as things stand: entries, or independent pairs of them."""
        rows = zip(self.rows.entries.sub_policies, shares.tolist(), strict=True)
        likely = [(entry.ops, share) for entry, share in rows if share > 0]
        weights: defaultdict[tuple[OpChoice, ...], float] = defaultdict(float)
        for sequence in itertools.product(likely, repeat=self.settings.stages):
            # Pairs that differ only in where the identity stands are one sub-policy.
            ops = tuple(op for entry, _ in sequence for op in entry)
            weights[ops] += math.prod(share for _, share in sequence)
        return Policy(tuple(SubPolicy(ops, weight) for ops, weight in weights.items()), name="found")

    @torch.no_grad()
    def found(self) -> Found:
        """The policy, how much was measured, what surely differs from the identity, and the table, best row first."""
        verdicts, shares = self.verdicts(), self.shares()
        policy, entries = self.policy(shares), self.rows.entries.sub_policies
        soft = SoftPolicy(policy, learn_probability=False)
        of_ops: defaultdict[str, float] = defaultdict(float)
        for entry, share in zip(entries, shares.tolist(), strict=True):
            for acting in entry.ops:
                of_ops[acting.op] += share
        facts = {
            "measurements": float(len(self.gains)),
            "entries_above_identity": float((verdicts > 0).sum()),
            "entries_below_identity": float((verdicts < 0).sum()),
            "effective_sub_policies": float(soft.entropy().exp()),
            "idle_share": float(soft.idle_share()),
            **{f"share/{op}": share for op, share in of_ops.items()},
            "images_measured": int(self.images.sum()),
            "sub_policy_shares": shares.tolist(),
            "table": self.table(shares),
        }
        return Found(with_ranges(policy), facts=facts)

    def table(self, shares: Tensor) -> list[dict[str, Any]]:
        """The rows as plain data, largest gain first."""
        entries = self.rows.entries.sub_policies
        columns = zip(self.rows.members, self.means(), *self.differences(), strict=True)
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
        return sorted(rows, key=lambda row: -row["gain"])

    def state(self) -> State:
        """Everything that a checkpoint has to hold."""
        return {"gains": self.gains, "images": self.images, "owner": self.owner, "gauge": self.gauge.state()}

    def restore(self, state: State) -> None:
        """Continue from a state."""
        self.gains, self.images, self.owner = state["gains"], state["images"], state["owner"]
        self.gauge.restore(state["gauge"])


def named(members: Sequence[SubPolicy]) -> dict[str, Any]:
    """The op of a row and its magnitude, where it has a single one."""
    if not members[0].ops:
        return {"op": "identity", "magnitude": None}
    (first, *others) = (entry.ops[0] for entry in members)
    return {"op": first.op, "magnitude": None if others else first.magnitude}
