"""What may be said of one difference, and of several together."""

import random
from pathlib import Path

import pytest

from jointsearch.report.comparison import compare
from jointsearch.report.difference import Difference, corrected_by_holm, paired_difference
from tests.test_comparison import write


def claim(p_value: float, seeds: int = 5) -> Difference:
    return Difference(1.0, 0.5, seeds, p_value=p_value)


def test_the_p_value_is_that_of_a_table_of_students_t() -> None:
    # Differences 1, 2, 3: t = 2 / (1 / sqrt(3)) = 3.4641, between 2.920 (p = .1) and 4.303 (p = .05) at two degrees.
    difference = paired_difference({0: 1.0, 1: 2.0, 2: 3.0}, {0: 0.0, 1: 0.0, 2: 0.0})
    assert difference is not None
    assert difference.p_value == pytest.approx(0.07418, abs=1e-5)


def test_equal_differences_are_no_claim_and_none_at_all_is_no_difference() -> None:
    base = {0: 50.0, 1: 51.0, 2: 52.0}
    same, more = (
        paired_difference(base, base),
        paired_difference({seed: one + 1 / 7.49 for seed, one in base.items()}, base),
    )
    assert same is not None
    assert more is not None
    assert (same.verdict, more.verdict) == ("no difference found", "3 equal differences: no claim")


def test_holm_is_worked_out_by_hand() -> None:
    found = corrected_by_holm({"a": claim(0.04), "b": claim(0.01), "c": claim(0.03), "d": claim(0.001, seeds=2)})
    assert [found[name].p_value for name in "abcd"] == pytest.approx([0.06, 0.03, 0.06, 0.001])
    verdicts = ["no difference found", "better", "no difference found", "2 seeds: no claim"]
    assert [found[name].verdict for name in "abcd"] == verdicts


def test_ten_rows_without_a_difference_give_a_verdict_in_a_third_of_tables_and_by_holm_in_a_twentieth() -> None:
    noise, tables, alone, together = random.Random(0), 400, 0, 0
    for _ in range(tables):
        base = {seed: noise.gauss(60, 1) for seed in range(5)}
        rows = {str(row): {seed: noise.gauss(60, 1) for seed in range(5)} for row in range(10)}
        found = {name: one for name, row in rows.items() if (one := paired_difference(row, base)) is not None}
        alone += any(one.verdict in ("better", "worse") for one in found.values())
        together += any(one.verdict in ("better", "worse") for one in corrected_by_holm(found).values())
    assert 0.25 < alone / tables < 0.40  # 31 % in many tables; independent rows would have 40 %
    assert together / tables < 0.08


def test_a_table_of_several_rows_says_how_often_chance_alone_gives_a_verdict(tmp_path: Path) -> None:
    scores = {"none": (50.0, 51.0, 52.0), "good": (53.0, 54.1, 55.3)}
    scores |= {"other": (50.1, 50.0, 53.0), "more": (51.1, 52.2, 53.3)}
    for policy, of_seeds in scores.items():
        for seed, score in enumerate(of_seeds):
            write(tmp_path, policy, seed, score)
    plain, corrected = compare([tmp_path]), compare([tmp_path], correction="holm")
    assert "up to 14% of such tables" in plain.to_markdown()
    assert "corrected for 3 rows" in corrected.to_markdown()
    p_values = {name: one.p_value for name, one in plain.differences.items()}
    assert corrected.differences == corrected_by_holm(plain.differences)
    assert corrected.differences["good"].p_value == pytest.approx(3 * p_values["good"])
