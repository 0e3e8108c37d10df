"""A race of policies with cells, and with recipes, against responses that are known."""

from collections.abc import Callable

import pytest
import torch

from jointsearch.jobs import TUNED, Job, JobResult, PopulationContext
from jointsearch.protocols import Found
from jointsearch.searchers.race import Race, RaceSearcher
from jointsearch.searchers.race_arms import FACTORS
from search_spaces.cells.random import random_genotype
from search_spaces.cells.space import CELL_SPACES
from search_spaces.controls import named_policy
from search_spaces.family import Point
from tests.test_race import FOLD_SPREAD, MEAN, NOISE, helpful, useless

CELLS = {name: random_genotype(CELL_SPACES["small"], seed) for seed, name in enumerate(("random", "random2", "found"))}
OF_POLICY = {"none": -4.0, "trivialaugment": 0.0, "found": -1.0}
Effect = Callable[[Job, str, str], float]  # of a job, its policy and its cells


def raced(effect: Effect, seed: int, cells: bool = True, **settings: object) -> tuple[RaceSearcher, Found]:
    """A race whose trainings answer with an effect, that of their fold, and noise."""
    found = Found(named_policy("random-s7"), CELLS["found"])
    given = {"cells": {name: CELLS[name] for name in ("random", "random2")}, "proposals": {"found": found}}
    context = PopulationContext(seed, 1, **given if cells else {})  # type: ignore[arg-type]
    searcher = RaceSearcher(Race(**settings), context)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(20_000 + seed)
    of_folds = FOLD_SPREAD * torch.randn(5, generator=generator)
    while jobs := searcher.ask():
        for job in jobs:
            policy, _, of_cells = job.name.partition(" with ")[0].partition("@")
            noise = NOISE * float(torch.randn((), generator=generator))
            score = MEAN + effect(job, policy, of_cells) + float(of_folds[job.fold]) + noise
            searcher.tell(job, JobResult(score, 1.0, 1))
    return searcher, searcher.found()


PAIRS = {"untuned": ("none", "trivialaugment"), "family": False}


@pytest.mark.parametrize(("gain", "trainings"), [(4.0, 20), (3.0, 40), (-3.0, 20)])
def test_cells_are_handed_over_only_if_they_beat_random_ones(gain: float, trainings: int) -> None:
    def effect(job: Job, policy: str, cells: str) -> float:
        assert job.genotype == CELLS[cells]
        return OF_POLICY[policy] + gain * (cells == "found") - 0.5 * (cells == "random2")

    found = [raced(effect, seed, trainings=trainings, **PAIRS)[1] for seed in range(20)]
    handed = sum(one.genotype == CELLS["found"] for one in found)
    assert handed >= 18 if gain > 0 else handed == 0
    assert all(one.facts["control"] == "trivialaugment@random" for one in found)
    assert sum("@found" in one.facts["chosen"] for one in found) == handed
    # TrivialAugment is better than what was found with the cells, so that the pair found is not best.
    assert sum(one.policy == named_policy("trivialaugment") for one in found) >= 15


def test_random_cells_under_trivialaugment_are_returned_where_nothing_is_better() -> None:
    def effect(job: Job, policy: str, cells: str) -> float:
        return OF_POLICY[policy]

    found = [raced(effect, seed, trainings=20, **PAIRS)[1] for seed in range(20)]
    assert sum(one.facts["chosen"] == "trivialaugment@random" for one in found) >= 18


def test_first_arms_hold_the_pair_found_and_each_of_its_parts_beside_what_nobody_searched() -> None:
    searcher, _ = raced(lambda *_: 0.0, 0, trainings=8, **PAIRS)
    names = [arm.name for arm in searcher.arms.all[: searcher.given]]
    assert set(names) == {
        "trivialaugment@random",
        "none@found",
        "found@found",
        "found@random",
        "trivialaugment@found",
    }
    joined = {arm.name for arm in searcher.arms.all[searcher.given :]}
    everything = {f"{policy}@{cells}" for policy in OF_POLICY for cells in CELLS}
    assert joined <= everything - set(names)


def of_recipe(job: Job) -> float:
    return {0.3: -3.0, 1.0: 0.0, 3.0: 4.0}[job.scaled["learning_rate"]]


@pytest.mark.parametrize(("response", "helps"), [(helpful, True), (useless, False)])
def test_the_recipe_is_tuned_for_all_arms_alike(response: Callable[[Point], float], helps: bool) -> None:
    points = raced(lambda *_: 0.0, 0, cells=False, trainings=2)[0].arms.points
    others = {"none": -8.0, "autoaugment": -0.5}

    def effect(job: Job, policy: str, cells: str) -> float:
        own = response(points[policy]) if policy in points else others[policy]
        return own + (of_recipe(job) if helps else -abs(of_recipe(job)))

    found = [raced(effect, seed, cells=False, tune="recipe", trainings=60)[1] for seed in range(20)]
    chosen = [one.facts[TUNED]["learning_rate"] for one in found]
    assert chosen.count(3.0 if helps else 1.0) >= (16 if helps else 18)
    assert 0.3 not in chosen, "the harmful rate is never taken"
    assert sum(one.facts[TUNED]["weight_decay"] == 1.0 for one in found) >= 18
    assert all(one.facts["control"].startswith("trivialaugment") for one in found)
    kept = sum(one.policy == named_policy("trivialaugment") for one in found)
    assert kept <= 2 if helps else kept >= 18


def test_without_tuning_no_job_changes_the_recipe_and_with_it_all_levels_come_first() -> None:
    searcher, _ = raced(lambda job, *_: float(bool(job.scaled)), 0, trainings=10)
    assert not any(arm.factors for arm in searcher.arms.all)
    searcher, _ = raced(lambda *_: 0.0, 0, tune="recipe", cells=False)
    tried = [arm.scaled for arm in searcher.arms.all[: searcher.given]]
    for name, levels in FACTORS.items():
        assert {one[name] for one in tried} == set(levels)
