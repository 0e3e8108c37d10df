"""The control of every search: a random policy of the same form, at no cost."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from jointsearch.data.sets import Batch
from jointsearch.protocols import Context, Found, Moment, Needs, State, StepReport
from jointsearch.settings import check_fields, setting
from search_spaces.augment.table import check_op_names
from search_spaces.controls import random_policy
from search_spaces.policy import Policy
from search_spaces.spaces import DADA_OPS


@dataclass(frozen=True)
class RandomSearch:
    """25 random pairs of ops with random numbers."""

    ops: tuple[str, ...] | None = setting(None, help="ops to draw from; null for DADA's fifteen")

    def __post_init__(self) -> None:
        check_fields(self)
        if self.ops is not None:
            check_op_names(self.ops, "searcher.ops")

    def start(self, context: Context) -> "RandomSearcher":
        """Begin a search that draws its outcome from the seed."""
        return RandomSearcher(random_policy(DADA_OPS if self.ops is None else self.ops, context.seed))


class RandomSearcher:
    """Does not train, and returns a random policy."""

    needs = Needs(batches=0)

    def __init__(self, drawn: Policy) -> None:
        self.drawn = drawn

    def step(self, train: Batch, validation: Sequence[Batch], at: Moment) -> StepReport:
        """Nothing."""
        return StepReport(torch.zeros((), device=train.labels.device), skipped=False, forward_equivalents=0)

    def found(self) -> Found:
        """The random policy."""
        return Found(self.drawn)

    def state(self) -> State:
        """There is none."""
        return {}

    def restore(self, state: State) -> None:
        """There is none."""
