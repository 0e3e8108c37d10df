"""What searches say of themselves, by hand."""

import random
import re
from typing import Any

import pytest

from jointsearch.report.searches import agreement_between_seeds, describe_searches, rank_agreement


def result(seed: int, *rows: tuple[str, float | None, float, float]) -> dict[str, Any]:
    table = [{"op": op, "magnitude": level, "gain": gain, "share": share} for op, level, gain, share in rows]
    return {"seed": seed, "seconds": 1.0, "forward_equivalents": 10, "skipped_steps": 0, "table": table}


def test_a_table_says_what_every_seed_drops_and_whether_their_gains_agree() -> None:
    one = result(0, ("Rotate", None, 0.2, 0.5), ("identity", None, 0.0, 0.0), ("Invert", None, -0.4, 0.0))
    other = result(3, ("identity", None, 0.0, 0.5), ("Rotate", None, -0.1, 0.5), ("Invert", None, -0.2, 0.0))
    printed = describe_searches([one, other])
    assert "Seed 0 drops Invert.\n" in printed
    assert "Seed 3 drops Invert.\n" in printed
    # Ranks of Invert, Rotate, identity: 1 3 2 and 1 2 3; 1 - 6 * (0 + 1 + 1) / (3 * 8).
    assert "Rank correlation of the gains between seeds: +0.50 on average" in printed
    assert rank_agreement([[-0.4, 0.2, 0.0], [-0.2, -0.1, 0.0]]) == pytest.approx(0.5)


def test_it_says_so_where_seeds_agree_no_more_than_random_orders() -> None:
    # Two seeds of 9 things: 1.96 / sqrt(8) = 0.69. Ranks with d² = 2 correlate by 0.98, the reversed by -1.
    order = [float(place) for place in range(9)]
    said = "So the seeds agree no more than random orders would."
    assert said not in agreement_between_seeds("gains", [order, [1.0, 0.0, *order[2:]]])
    assert said not in agreement_between_seeds("gains", [order, order[::-1]])
    # d² sums to 8 * 16: 1 - 6 * 128 / 720 = -0.07.
    assert said in agreement_between_seeds("gains", [order, [4, 5, 6, 7, 0, 1, 2, 3, 8]])


@pytest.mark.parametrize("levels", [1000, 3])
def test_rankings_by_chance_stay_within_the_band_in_95_of_100(levels: int) -> None:
    dice = random.Random(0)
    said, within = re.compile(r"seeds: ([+-]\d\.\d\d) on .* within ±(\d\.\d\d)"), 0
    for _ in range(400):
        seeds = [[dice.randrange(levels) for _ in range(40)] for _ in range(3)]
        mean, chance = map(float, said.search(agreement_between_seeds("gains", seeds)).groups())
        within += abs(mean) <= chance
    assert within / 400 == pytest.approx(0.95, abs=0.03)


def test_levels_that_were_tried_by_themselves_are_named_with_their_magnitude() -> None:
    kept = result(1, ("Rotate", 1 / 3, 0.2, 1.0))
    dropped = result(2, ("Rotate", 1 / 3, -0.2, 0.0))
    printed = describe_searches([kept, dropped])
    assert "Seed 1 drops nothing." in printed
    assert "Seed 2 drops Rotate at 0.33." in printed


def test_a_table_measured_once_says_that_this_is_no_evidence() -> None:
    once, twice = (result(seed, ("Rotate", None, 0.2, 1.0)) | {"measurements": seed} for seed in (1, 2))
    printed = describe_searches([once, twice])
    assert "Seed 1 drops nothing, measured once, which is no evidence." in printed
    assert "Seed 2 drops nothing.\n" in printed
