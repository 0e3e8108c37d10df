"""Every search by whole trainings keeps the contract of PopulationSearcher, whatever it is told."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from jointsearch.compose import class_of, compose_study, groups
from jointsearch.jobs import Job, JobResult, PopulationContext, PopulationSearcher, PopulationSettings
from jointsearch.protocols import Found
from jointsearch.search_kinds import has_population
from search_spaces.policy import Policy
from search_spaces.schedule import PolicySchedule

EPOCHS = 12
FEW = {
    "controller": ["searcher.trainings=40"],
    "fast_aa": ["searcher.trials=6", "searcher.sub_policies=1", "searcher.kept=2"],
    "randaugment_grid": ["searcher.per_op=true", "searcher.judges=2"],
}
SEARCHERS = [name for name in groups()["searcher"] if has_population(class_of("searcher", name))]
Answer = Callable[[Job, int], float]


def settings_of(name: str) -> PopulationSettings:
    kind: Any = compose_study("search=policy", f"searcher={name}", *FEW.get(name, [])).search
    return kind.searcher


def noisy(job: Job, number: int) -> float:
    """A score that knows of the job only its number."""
    return float(torch.randn((), generator=torch.Generator().manual_seed(number)))


def searched(settings: PopulationSettings, answer: Answer, seed: int = 3) -> tuple[list[Sequence[Job]], Found]:
    """All rounds of a search, and what it found; between two rounds it is asked what it would return."""
    searcher: PopulationSearcher = settings.population(PopulationContext(seed, EPOCHS))
    rounds: list[Sequence[Job]] = []
    number = 0
    while jobs := searcher.ask():
        rounds.append(jobs)
        for job in jobs:
            draws = [7] * len(job.policy.sub_policies) if job.counted and isinstance(job.policy, Policy) else []
            searcher.tell(job, JobResult(answer(job, number), 1.0, 3, draws=tuple(draws)))
            number += 1
        assert isinstance(searcher.found().policy, Policy | PolicySchedule)
        assert all(0 <= one < number for one in searcher.continued)
        assert number < 100_000, "it does not end"
    return rounds, searcher.found()


@pytest.mark.parametrize("name", SEARCHERS)
def test_what_is_asked_depends_on_the_seed_and_on_what_was_told_alone(name: str) -> None:
    settings = settings_of(name)
    torch.manual_seed(0)
    rounds, found = searched(settings, noisy)
    torch.manual_seed(1)
    again, same = searched(settings, noisy)
    assert again == rounds
    assert same == found
    for stub in inspect.getmembers(PopulationSearcher, inspect.isfunction):
        assert hasattr(settings.population(PopulationContext(3, EPOCHS)), stub[0])


@pytest.mark.parametrize("name", SEARCHERS)
def test_its_jobs_are_as_many_as_it_says_and_can_be_done(name: str) -> None:
    settings = settings_of(name)
    rounds, _ = searched(settings, noisy)
    jobs = [job for several in rounds for job in several]
    begun: list[int] = []  # of every job, the epoch in which it ends
    cost = 0
    number = 0
    for several in rounds:
        for job in several:
            assert 0 <= job.fold < settings.folds
            first = 0 if job.start is None else begun[job.start]
            last = EPOCHS if job.until_epoch is None else job.until_epoch
            assert 0 <= first <= last <= EPOCHS
            cost += last - first
        # A job continues only what an earlier round has done, and what was kept for it.
        assert all(job.start is None or job.start < number for job in several)
        for job in several:
            begun.append(EPOCHS if job.until_epoch is None else job.until_epoch)
        number += len(several)
    assert len(jobs) == number
    jobs_at_most, trainings = settings.cost(EPOCHS)
    assert len(jobs) <= jobs_at_most
    assert cost / EPOCHS <= trainings * 1.001


@pytest.mark.parametrize("name", SEARCHERS)
def test_the_seeds_of_its_jobs_are_those_that_every_generator_takes(name: str) -> None:
    rounds, _ = searched(settings_of(name), noisy, seed=2**32 - 1)
    assert all(job.seed is None or 0 <= job.seed < 2**32 for several in rounds for job in several)


@pytest.mark.parametrize("name", SEARCHERS)
def test_a_score_that_never_differs_ends_without_a_number_that_is_none(name: str) -> None:
    _, found = searched(settings_of(name), lambda job, number: 0.0)
    numbers = [value for value in found.facts.values() if isinstance(value, float)]
    assert all(torch.tensor(numbers).isfinite())


def test_every_searcher_is_covered() -> None:
    assert {"race", "randaugment_grid", "controller", "pba", "ohl", "fast_aa"} <= set(SEARCHERS)
