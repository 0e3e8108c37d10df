"""What a search by table can be told, and the entries that it measures."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from jointsearch.searchers.settings import EstimatorSettings, SpaceSettings
from jointsearch.settings import bounded, check_fields, choice
from search_spaces.augment.table import OPS
from search_spaces.controls import MAX_SEQUENCES
from search_spaces.errors import InputError
from search_spaces.policy import OpChoice, Policy, SubPolicy

FEWEST = 2  # measurements: one alone has no standard error, and is no evidence


@dataclass(frozen=True)
class TableSpace:
    """The policy that the weights are trained under, and the ops that are measured."""

    start: str = "trivialaugment"  # or another control, pairs, or a policy file
    ops: tuple[str, ...] | None = None  # null takes the start's own

    def __post_init__(self) -> None:
        check_fields(self)

    def policy(self) -> Policy:
        """The starting policy."""
        return SpaceSettings(self.start, self.ops).policy()


@dataclass(frozen=True)
class TableSettings:
    """When the table is measured, and what policy is made of it."""

    name: str = choice("table", "table")
    # Epochs under the starting policy before anything is measured; null takes half of them.
    from_epoch: int | None = bounded(0, 0, 100_000)
    # Steps from one measurement to the next; or null, and so many, spread evenly, each at the beginning of an epoch.
    every: int | None = bounded(20, 1, 1_000_000)
    measurements: int | None = bounded(None, FEWEST, 1000)
    validation_batches: int = bounded(4, 1, 1000)
    # Magnitudes of an op: 3 takes 1/3, 2/3 and 1. null takes the start's own sub-policies, of one op each, so that the
    # start is the outcome where nothing is dropped.
    levels: int | None = bounded(3, 1, 100)
    # 0 asks for the reward of one step, of every op at every level. Otherwise training goes on for so many steps with
    # every op, half of the images under it, all its levels together; then the validation error is compared.
    trial_steps: int = bounded(0, 0, 1000)
    rewards: str = choice("real", "real", "shuffled")  # shuffled among the entries, once and for all: the control
    reward_scale: str = choice("none", "none", "loss", "rank")
    # A mean that differs from the plain image's by less is no reason, however sure: another network trained alike may
    # say the opposite.
    margin: float = bounded(0.0, 0.0, 1000.0)
    # significant: all but what is surely worse than the plain image, and by the margin. proportional: as it gains.
    form: str = choice("significant", "significant", "proportional")
    stages: int = choice(1, 1, 2)  # ops of a sub-policy, drawn independently

    def __post_init__(self) -> None:
        check_fields(self)
        if (self.every is None) == (self.measurements is None):
            raise InputError(
                f"searcher.every={self.every or 'null'} and searcher.measurements={self.measurements or 'null'}; one "
                "of them says when to measure, set the other one to null"
            )
        if self.form == "proportional" and self.margin:
            raise InputError(
                f"searcher.form=proportional makes ops as likely as they gain and drops none for its searcher.margin="
                f"{self.margin:g}; set searcher.margin=0, or leave searcher.form out"
            )
        if self.trial_steps and self.reward_scale != "none":
            raise InputError(
                f"searcher.reward_scale={self.reward_scale} scales rewards of single images, and searcher.trial_steps="
                f"{self.trial_steps} compares validation errors; use searcher.reward_scale=none or trial_steps=0"
            )

    def first_epoch(self, epochs: int) -> int:
        """The first one in which anything may be measured."""
        return epochs // 2 if self.from_epoch is None else self.from_epoch


@dataclass(frozen=True)
class TableSearch:
    """A search by table."""

    searcher: TableSettings = field(default_factory=TableSettings)
    policy_space: TableSpace = field(default_factory=TableSpace)
    estimator: EstimatorSettings = field(default_factory=EstimatorSettings)  # not read: nothing is estimated

    def __post_init__(self) -> None:
        entries, stages = len(self.entries().sub_policies), self.searcher.stages
        if entries**stages > MAX_SEQUENCES:
            raise InputError(
                f"searcher.levels={self.searcher.levels or 'null'} makes {entries} entries, and with searcher.stages="
                f"{stages} a policy file of {entries**stages:,} sub-policies; at most {MAX_SEQUENCES:,} are allowed, "
                "lower searcher.levels or name fewer policy_space.ops"
            )

    @property
    def warning(self) -> str | None:
        """What it is known to do wrong."""
        if not self.searcher.trial_steps or self.searcher.rewards == "shuffled":
            return None
        return (
            f"trials look {self.searcher.trial_steps} steps ahead; on 1,000 photographs of CIFAR-10 the ops that they "
            "dropped were missed after a whole training, by 2.3 to 3.6 points (docs/measurements.md): go by the "
            "trainings beside the control trivialaugment, not by the search"
        )

    def entries(self) -> Policy:
        """The table as a policy of one op each, the identity first."""
        start, space, levels = self.policy_space.policy(), self.policy_space, self.searcher.levels
        likely = [sub_policy for sub_policy in start.sub_policies if sub_policy.weight]
        used = tuple(dict.fromkeys(choice.op for sub_policy in likely for choice in sub_policy.ops))
        if levels is None and (start.stages > 1 or not used):
            held = "a sub-policy of several ops" if used else "no op to measure"
            raise InputError(
                f"policy_space.start={space.start} has {held}, and searcher.levels=null measures the start's own "
                "sub-policies, of one op each; use searcher.levels=30 or policy_space.start=trivialaugment"
            )
        if not (ops := space.ops or used):
            raise InputError(f"policy_space.start={space.start} names no op to measure; name some in policy_space.ops")
        return Policy(own_entries(start) if levels is None else even_entries(ops, levels), name="table")

    def rows(self) -> tuple[Tensor, ...]:
        """The entries that are measured together: each by itself, or an op's where many steps are tried."""
        entries = self.entries().sub_policies
        groups: defaultdict[object, list[int]] = defaultdict(list)
        for place, entry in enumerate(entries):
            groups[entry.ops[0].op if self.searcher.trial_steps and entry.ops else place].append(place)
        return tuple(torch.tensor(members) for members in groups.values())


def own_entries(start: Policy) -> tuple[SubPolicy, ...]:
    """The sub-policies of a start, those that do nothing as one, the identity."""
    idle = math.fsum(one.weight for one in start.sub_policies if not one.ops)
    return SubPolicy((), idle), *(one for one in start.sub_policies if one.ops and one.weight)


def even_entries(ops: Sequence[str], levels: int) -> tuple[SubPolicy, ...]:
    """The ops at so many levels; as in TrivialAugment, every op is as likely as the identity."""
    entries = [SubPolicy()]
    for op in ops:
        if OPS[op].has_magnitude:
            choices = (OpChoice(op, 1.0, level / levels) for level in range(1, levels + 1))
            entries += [SubPolicy((choice,), 1 / levels) for choice in choices]
        else:
            entries.append(SubPolicy((OpChoice(op),)))
    return tuple(entries)


def epochs_due(settings: TableSettings, epochs: int) -> tuple[int, ...]:
    """The epochs that begin with a measurement; none where steps are counted."""
    if settings.measurements is None:
        return ()
    begin = settings.first_epoch(epochs)
    left, count = epochs - begin, settings.measurements
    if left < count:
        enough = 2 * count - 1 if settings.from_epoch is None else begin + count
        fewer = f", or searcher.measurements={left}" if left >= FEWEST else ""
        raise InputError(
            f"searcher.measurements={count} take an epoch each, and of {epochs} only those from epoch {begin} on are "
            f"measured; they need {enough}: search_recipe.epochs={enough} (of search=separate policy_epochs) "
            f"with budget=1{fewer}"
        )
    return tuple(begin + place * left // count for place in range(count))
