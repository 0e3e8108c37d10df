"""Policy search without an estimator: every op at every level is tried on the same images, at a few moments.

A gain is what training on an image takes off the validation loss: the reward f_i with its sign turned, more is better.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from scipy.stats import t as student
from torch import Tensor, nn

from jointsearch.data.sets import Batch
from jointsearch.data.standard import Standard, normalize
from jointsearch.front_end import augment, augment_with
from jointsearch.searchers.credit import scaled
from jointsearch.searchers.settings import EstimatorSettings, SpaceSettings
from jointsearch.settings import bounded, check_fields, choice
from jointsearch.through_step.record import FrozenNetwork, record_step
from jointsearch.through_step.sides import losses_on_both_sides
from jointsearch.through_step.validation import validation_gradient
from search_spaces.augment.apply import apply_draw, draw_of
from search_spaces.augment.table import OPS
from search_spaces.controls import MAX_SEQUENCES
from search_spaces.errors import InputError
from search_spaces.policy import OpChoice, Policy, SubPolicy

QUANTILE = 0.975  # what is called sure is so at the 5% level, on both sides


@dataclass(frozen=True)
class TableSettings:
    """When the table is measured, and what policy is made of it."""

    name: str = choice("table", "table")
    from_epoch: int = bounded(0, 0, 100_000)  # epochs under the starting policy before anything is measured
    every: int = bounded(20, 1, 1_000_000)  # steps from one measurement to the next
    validation_batches: int = bounded(4, 1, 1000)
    levels: int = bounded(3, 1, 100)  # magnitudes of an op: 3 takes 1/3, 2/3 and 1
    rewards: str = choice("real", "real", "shuffled")  # shuffled among the entries, once and for all: the control
    reward_scale: str = choice("none", "none", "loss", "rank")
    # significant: all but what is surely worse than the plain image. proportional: as likely as it gains.
    form: str = choice("significant", "significant", "proportional")
    stages: int = choice(1, 1, 2)  # ops of a sub-policy, drawn independently

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class TableSearch:
    """A search by table; of the space only the start and its ops are read, of the estimator nothing."""

    searcher: TableSettings = field(default_factory=TableSettings)
    policy_space: SpaceSettings = field(default_factory=SpaceSettings)
    estimator: EstimatorSettings = field(default_factory=EstimatorSettings)

    def __post_init__(self) -> None:
        entries, stages = len(self.entries().sub_policies), self.searcher.stages
        if entries**stages > MAX_SEQUENCES:
            raise InputError(
                f"searcher.levels={self.searcher.levels} makes {entries} entries, and with searcher.stages={stages} a "
                f"policy file of {entries**stages:,} sub-policies; at most {MAX_SEQUENCES:,} are allowed, lower "
                "searcher.levels or name fewer policy_space.ops"
            )

    def entries(self) -> Policy:
        """The table as a policy of one op each, the identity first; as in TrivialAugment every op is equally likely."""
        start, levels = self.policy_space.policy(), self.searcher.levels
        used = (choice.op for sub_policy in start.sub_policies for choice in sub_policy.ops)
        ops = self.policy_space.ops or tuple(dict.fromkeys(used))
        if not ops:
            raise InputError(
                f"policy_space.start={self.policy_space.start} names no op to measure; name some in policy_space.ops"
            )
        rows = [SubPolicy()]
        for op in ops:
            if OPS[op].has_magnitude:
                choices = (OpChoice(op, 1.0, level / levels) for level in range(1, levels + 1))
                rows += [SubPolicy((choice,), 1 / levels) for choice in choices]
            else:
                rows.append(SubPolicy((OpChoice(op),)))
        return Policy(tuple(rows), name="table")


class TableSearcher:
    """Trains the weights under the starting policy, and now and then measures the gain of every entry of a table.

    A measurement follows a training step: v is the validation gradient after it, and every entry, the identity among
    them, is applied to the step's images with the same crops. Entries differ by nothing but their op.
    """

    first_batch_only = False

    def __init__(
        self,
        settings: TableSearch,
        network: nn.Module,
        train_step: Callable[[Tensor, Tensor], Tensor],
        standard: Standard,
        noise: torch.Generator,
    ) -> None:
        self.settings, self.standard, self.noise, self.train_step = settings.searcher, standard, noise, train_step
        self.network = network
        self.start, self.entries = settings.policy_space.policy(), settings.entries()
        self.validation_batches = settings.searcher.validation_batches
        entries = len(self.entries.sub_policies)
        # Whose gain each entry gets. In the control the policy is as uneven as the real one, and knows as much as dice.
        shuffled = settings.searcher.rewards == "shuffled"
        self.owner = torch.randperm(entries, generator=twin(noise)) if shuffled else torch.arange(entries)
        self.steps = 0  # since from_epoch
        self.cost = 0  # forward-equivalents
        self.gains = torch.empty(0, len(self.entries.sub_policies), dtype=torch.float64)  # (M, E) means over images
        self.images = torch.empty(0, dtype=torch.float64)  # (M,) how many

    def step(self, train: Batch, validation: Sequence[Batch], step_size: float, epoch: int) -> dict[str, Tensor]:
        """Train the weights on augmented images, and measure where a measurement is due."""
        images = augment(train.images, self.start, self.standard, self.noise)
        self.cost += 3
        if not self.is_due(epoch):
            return {"train_loss": self.train_step(images, train.labels), "skipped": torch.tensor(False)}
        with record_step(self.network) as record:
            train_loss = self.train_step(images, train.labels)
        judges = [(normalize(batch.images, self.standard), batch.labels) for batch in validation]
        direction = validation_gradient(self.network, judges)
        gains = self.measured(record.frozen(), direction, train, step_size).mean(1)[self.owner]  # (E,)
        self.cost += self.measurement_cost()
        usable = bool(gains.isfinite().all())
        if usable:
            self.gains = torch.cat([self.gains, gains.unsqueeze(0)])
            self.images = torch.cat([self.images, torch.tensor([len(train.labels)], dtype=torch.float64)])
        return {"train_loss": train_loss, "skipped": torch.tensor(not usable)}

    def is_due(self, epoch: int) -> bool:
        """Whether this step is measured; counts it."""
        if epoch < self.settings.from_epoch:
            return False
        self.steps += 1
        return (self.steps - 1) % self.settings.every == 0

    def measured(self, frozen: FrozenNetwork, direction: dict[str, Tensor], train: Batch, step_size: float) -> Tensor:
        """The gain of every entry on every image, (E, B), on the CPU."""
        # Entry by entry and not in one large batch, so that all of them meet the same dropout noise.
        sides = [
            losses_on_both_sides(frozen, direction, self.changed(entry, train), train.labels)
            for entry in range(len(self.entries.sub_policies))
        ]
        rewards = torch.stack([side.rewards(step_size) for side in sides])  # (E, B)
        losses = torch.stack([side.losses() for side in sides])
        scale = self.settings.reward_scale
        return -scaled(rewards.flatten(), losses.flatten(), scale).view_as(rewards).cpu().double()

    def changed(self, entry: int, train: Batch) -> Tensor:
        """The images under one entry, as the network sees them."""
        # Every entry gets the same crops and directions, and training goes on as if unmeasured.
        noise = twin(self.noise)
        tables, batch = self.entries.tables, len(train.labels)
        rows = torch.full((batch,), entry)

        def transform(pixels: Tensor) -> Tensor:
            uniform = torch.rand(4, batch, generator=noise)
            return apply_draw(pixels, draw_of(rows, tables.op[rows], tables.magnitude[rows], uniform))

        return augment_with(transform, train.images, self.standard, noise)

    def means(self) -> Tensor:
        """The mean gain of every entry over all images that were measured, (E,)."""
        return self.images @ self.gains / self.images.sum().clamp(min=1)

    def differences(self) -> tuple[Tensor, Tensor]:
        """What every entry gains beyond the identity on the same images: mean and standard error, (E,) each."""
        # Images of a measurement share v, and v is noise too. From images as if they were independent, the standard
        # error of 30 measurements on shapes came out 2.4 to 2.8 times too small (3 seeds): measurements are counted.
        count = len(self.gains)
        paired = self.gains - self.gains[:, :1]  # (M, E)
        mean = self.images @ paired / self.images.sum().clamp(min=1)
        if count < 2:
            return mean, torch.full_like(mean, torch.inf)
        squares = (self.images.unsqueeze(1) * (paired - mean)).square().sum(0)
        return mean, (squares * count / (count - 1)).sqrt() / self.images.sum()

    def verdicts(self) -> Tensor:
        """1 for entries that are surely better than the identity, -1 for surely worse ones, 0 for others, (E,)."""
        mean, error = self.differences()
        # About 2 standard errors, but 12.7 of them where there are only two measurements.
        reach = float(student.ppf(QUANTILE, len(self.gains) - 1)) * error
        return (mean > reach).int() - (mean < -reach).int()

    def shares(self) -> Tensor:
        """How likely every entry is in the finished policy, (E,); where nothing gains all ops stay alike."""
        weights = torch.tensor([entry.weight for entry in self.entries.sub_policies], dtype=torch.float64)
        significant = self.settings.form == "significant"
        kept = weights * (self.verdicts() >= 0 if significant else self.means().clamp(min=0))
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

    def measurement_cost(self) -> int:
        """What a measurement costs beside its training step: 3 for each validation batch, 2 for each entry."""
        return 3 * self.validation_batches + 2 * len(self.entries.sub_policies)

    def forward_equivalents(self, epoch: int) -> int:
        """What a step costs, on average and rounded; the exact sum of all steps is in `found`."""
        if epoch < self.settings.from_epoch:
            return 3
        return 3 + round(self.measurement_cost() / self.settings.every)

    def metrics(self) -> dict[str, float]:
        """How much was measured, what surely differs from the identity, and how wide the policy is."""
        verdicts, policy = self.verdicts(), self.policy()
        weights = torch.tensor([sub_policy.weight for sub_policy in policy.sub_policies], dtype=torch.float64)
        of_ops: defaultdict[str, float] = defaultdict(float)
        for entry, share in zip(self.entries.sub_policies, self.shares().tolist(), strict=True):
            for acting in entry.ops:
                of_ops[acting.op] += share
        return {
            "measurements": float(len(self.gains)),
            "entries_above_identity": float((verdicts > 0).sum()),
            "entries_below_identity": float((verdicts < 0).sum()),
            "effective_sub_policies": float((-weights * weights.log()).sum().exp()),
            "idle_share": math.fsum(one.weight for one in policy.sub_policies if not one.ops),
            **{f"share/{op}": share for op, share in of_ops.items()},
        }

    def found(self) -> dict[str, Any]:
        """The table, largest gain first, and the exact cost, which is not the same for every step."""
        shares = self.shares()
        columns = zip(self.entries.sub_policies, self.means(), *self.differences(), shares, strict=True)
        rows = [
            {
                "op": entry.ops[0].op if entry.ops else "identity",
                "magnitude": entry.ops[0].magnitude if entry.ops else None,
                "gain": float(gain),
                "beyond_identity": float(beyond),
                "standard_error": float(error) if error.isfinite() else None,
                "share": float(share),
            }
            for entry, gain, beyond, error, share in columns
        ]
        return {
            "table": sorted(rows, key=lambda row: -row["gain"]),
            "images_measured": int(self.images.sum()),
            "sub_policy_shares": shares.tolist(),
            "forward_equivalents": self.cost,
        }

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint has to hold."""
        return {
            "steps": self.steps, "cost": self.cost, "gains": self.gains, "images": self.images, "owner": self.owner
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.steps, self.cost = state["steps"], state["cost"]
        self.gains, self.images, self.owner = state["gains"], state["images"], state["owner"]


def twin(noise: torch.Generator) -> torch.Generator:
    """A generator of its own in the same state."""
    return noise.clone_state()
