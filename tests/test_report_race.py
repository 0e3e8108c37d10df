"""What a report tells of a race beside the trainings that follow it."""

import re
from pathlib import Path
from typing import Any

import pytest

from jointsearch.report.page_race import order_beside_trainings
from jointsearch.report.page_run import Part, Run
from jointsearch.report.searches import race_verdict

RACED = {"none": -8.0, "trivialaugment": 0.0, "draws2": 2.0, "trivialaugment-x3": 3.0}


def part(group: str, seed: int, result: dict[str, Any]) -> Part:
    return Part(Path(group), group, seed, {}, {}, result, ())


def run_of(tested: dict[str, float], metric: dict[str, Any]) -> tuple[list[Part], Run]:
    arms = [{"arm": arm, "minus_control": mean} for arm, mean in RACED.items()]
    races = [part("", seed, {"arms": arms, "chosen": "draws2", "metric": metric}) for seed in (0, 1)]
    key = f"test_{metric['name']}_last"
    trainings = [part(row, 0, {key: value, "metric": metric}) for row, value in tested.items()]
    return races, Run(Path(), tuple(races), tuple(trainings))


@pytest.mark.parametrize(
    ("tested", "higher_is_better", "told"),
    [
        (
            {"none": 50.0, "trivialaugment": 60.0, "trivialaugment-x3": 61.0, "autoaugment": 70.0},
            True,
            "afterwards, too: 3, of which the race has 3 in",
        ),
        (
            {"none": 50.0, "trivialaugment": 60.0, "trivialaugment-x3": 59.0},
            True,
            "afterwards, too: 3, of which the race has 2 in",
        ),
        (
            {"none": 2.5, "trivialaugment": 1.5, "trivialaugment-x3": 2.0},
            False,
            "afterwards, too: 3, of which the race has 2 in",
        ),
        ({"trivialaugment": 60.0, "trivialaugment-x3": 60.0}, True, "^$"),
        ({"found": 60.0}, True, "^$"),
        ({"found": 60.0, "trivialaugment": 50.0}, True, "afterwards, too: 1, of which the race has 1 in"),
    ],
)
def test_pairs_that_the_race_has_in_the_order_of_the_trainings_are_counted(
    tested: dict[str, float], higher_is_better: bool, told: str
) -> None:
    metric = {"name": "score", "unit": "", "higher_is_better": higher_is_better}
    races, run = run_of(tested, metric)
    said = order_beside_trainings(races, run)
    assert re.search(told, said), said


def test_the_verdict_names_who_won_what_it_cost_and_the_recipe() -> None:
    result = {
        "seed": 1,
        "leader": "draws2",
        "control": "trivialaugment",
        "leader_minus_control": 2.0,
        "leader_interval": 1.0,
        "noise": 1.5,
        "trainings": 40,
        "seconds": 3600.0,
    }
    won = race_verdict(result | {"chosen": "draws2"})
    assert won.startswith("Seed 1: draws2 is returned after 40 whole trainings, which took 3,600 seconds.")
    assert "+2.00 ± 1.00" in won
    kept = race_verdict(result | {"chosen": "trivialaugment", "leader_interval": 4.0})
    assert "trivialaugment, the control, is returned" in kept
    assert "not surely better" in kept
    tuned = race_verdict(result | {"chosen": "draws2", "recipe_factors": {"learning_rate": 3.0, "weight_decay": 1.0}})
    assert tuned.endswith("All rows train with learning_rate x3.")
    as_given = {"learning_rate": 1.0, "weight_decay": 1.0}
    assert "as it was given" in race_verdict(result | {"chosen": "draws2", "recipe_factors": as_given})
