"""The control of every search: a policy of the same form, drawn blindly, at no cost."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from jointsearch.data.sets import Batch
from jointsearch.searchers.settings import EstimatorSettings, SpaceSettings
from jointsearch.settings import changed, check_fields, choice, refuse_unread
from search_spaces.controls import random_policy
from search_spaces.errors import InputError
from search_spaces.policy import Policy
from search_spaces.spaces import DADA_OPS


@dataclass(frozen=True)
class RandomSettings:
    """Nothing to set."""

    name: str = choice("random", "random")

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class RandomSearch:
    """A search that searches nothing; only the ops of its space are read."""

    searcher: RandomSettings = field(default_factory=RandomSettings)
    policy_space: SpaceSettings = field(default_factory=SpaceSettings)
    estimator: EstimatorSettings = field(default_factory=EstimatorSettings)

    def __post_init__(self) -> None:
        if self.policy_space.start != "pairs":
            raise InputError(
                f"searcher=random draws pairs of ops, and policy_space.start is {self.policy_space.start}; "
                "use policy_space=pairs, or name the policy itself in controls"
            )
        unread = [name for name in changed(self.policy_space, "policy_space") if name != "policy_space.ops"]
        refuse_unread(unread, "searcher=random draws 25 pairs of ops and any numbers", "leave it out")


class RandomSearcher:
    """Leaves the weights alone, and returns a random policy."""

    validation_batches = 0
    first_batch_only = False
    learns_from = 0

    def __init__(self, settings: RandomSearch, seed: int) -> None:
        ops = settings.policy_space.ops
        self.drawn = random_policy(DADA_OPS if ops is None else ops, seed)

    def wants_validation(self, epoch: int, steps: int) -> list[bool]:
        """No step."""
        return [False] * steps

    def step(self, train: Batch, validation: Sequence[Batch], step_size: float, epoch: int) -> dict[str, Tensor]:
        """Nothing."""
        return {"train_loss": torch.zeros((), device=train.labels.device), "skipped": torch.tensor(False)}

    def forward_equivalents(self, epoch: int) -> int:
        """Nothing is computed."""
        return 0

    def metrics(self) -> dict[str, float]:
        """Nothing is learned."""
        return {}

    def found(self) -> dict[str, Any]:
        """Nothing is learned."""
        return {}

    def genotype(self) -> None:
        """No cells are searched."""

    def policy(self) -> Policy:
        """Drawn from the seed."""
        return self.drawn

    def state(self) -> dict[str, Any]:
        """There is none."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """There is none."""
