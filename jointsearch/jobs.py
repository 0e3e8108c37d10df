"""Searches by whole trainings: the jobs that such a search asks for, and what it is told of each.

    while jobs := searcher.ask():        # all of them are told before it is asked again
        for job in jobs:
            searcher.tell(job, carried_out(job))
    searcher.found()

A search is a function of its settings, its seed and what it was told, in the order of its jobs. So it has no state to
save: told the same results again, it asks for the same jobs again, whoever carried them out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from jointsearch.protocols import Found
from search_spaces.genotype import Genotype
from search_spaces.policy import Policy
from search_spaces.schedule import PolicySchedule

SEEDS_OF_A_SEARCH = 2**20
# Facts of a search that the loop reads.
TUNED = "recipe_factors"  # what it multiplies settings of the recipe with
OWN_NETWORK = "job_of_network"  # the job whose network is a result as it is, not trained again


@dataclass(frozen=True)
class Job:
    """One training, whole or in part, that a search asks for."""

    name: str  # of what is tried, as an arm of a race
    policy: Policy | PolicySchedule
    fold: int = 0  # of the training images: it judges, the others train
    seed: int | None = 0  # None, of a job that continues another one: its generators go on, too
    until_epoch: int | None = None  # None: to the end
    start: int | None = None  # the number of the job whose training it continues; None begins anew
    judged_under: Policy | None = None  # if given: nothing is trained, `start` is judged on images under this policy
    counted: bool = False  # whether its result tells how often each sub-policy was drawn
    genotype: Genotype | None = None  # of a network of cells
    scaled: Mapping[str, float] = field(default_factory=dict)  # factors of settings of the recipe


@dataclass(frozen=True)
class JobResult:
    """What a job measured, and what it cost."""

    score: float  # the main score on the images that judge
    seconds: float
    forward_equivalents: int
    scores: dict[str, float] = field(default_factory=dict)  # all of them, by name
    draws: tuple[int, ...] = ()  # of each sub-policy, where the job asks for it


class PopulationSearcher(Protocol):
    """A search by whole trainings."""

    def ask(self) -> Sequence[Job]:
        """The next jobs, which may be done in any order and at the same time; none ends the search."""

    def tell(self, job: Job, result: JobResult) -> None:
        """Take in the result of a job. The jobs of an `ask` come in their order."""

    @property
    def continued(self) -> frozenset[int]:
        """The numbers of done jobs that later ones may continue; what the others left is removed."""

    def found(self) -> Found:
        """What the search would return now."""


@dataclass(frozen=True)
class PopulationContext:
    """What a search by whole trainings has to know before it asks."""

    seed: int
    epochs: int  # of a whole training
    higher_is_better: bool = True
    proposals: dict[str, Found] = field(default_factory=dict)  # what other searches found, by name
    mirrored: bool = True  # whether half of the images are, whatever the policy
    cells: Mapping[str, Genotype] = field(default_factory=dict)  # random ones, that cells found have to beat, by name

    @property
    def sign(self) -> float:
        """1, or -1 where less is better: a score times this is the better the larger."""
        return 1.0 if self.higher_is_better else -1.0

    def seed_of(self, number: int) -> int:
        """The seed of a job; every number has its own."""
        return (SEEDS_OF_A_SEARCH * self.seed + number) % 2**32


class PopulationSettings(Protocol):
    """Settings of a search by whole trainings: a frozen dataclass that can start one."""

    folds: int  # parts of the training images

    def cost(self, epochs: int) -> tuple[int, float]:
        """How many jobs it asks for at most, and what they cost in whole trainings of so many epochs."""

    def population(self, context: PopulationContext) -> PopulationSearcher:
        """Begin a search."""


def plain_result(result: JobResult) -> dict[str, Any]:
    """A result as plain data."""
    return {
        "score": result.score,
        "seconds": result.seconds,
        "forward_equivalents": result.forward_equivalents,
        "scores": dict(result.scores),
        "draws": list(result.draws),
    }


def result_of(plain: dict[str, Any]) -> JobResult:
    """A result from plain data."""
    return JobResult(**plain | {"draws": tuple(plain["draws"])})
