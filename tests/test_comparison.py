"""A comparison says what the figures carry and nothing more."""

import json
import math
from pathlib import Path

import pytest

from jointsearch.report.comparison import compare
from jointsearch.report.difference import paired_difference
from search_spaces.errors import InputError


def write(folder: Path, policy: str, seed: int, accuracy: float | None, **settings: object) -> None:
    trained = folder / policy / f"seed{seed}"
    trained.mkdir(parents=True)
    (trained / "settings.json").write_text(json.dumps({"seed": seed, "network": "tiny_cnn", **settings}))
    if accuracy is not None:
        (trained / "result.json").write_text(json.dumps({"test_accuracy_last": accuracy}))


def test_paired_interval_equals_the_one_worked_out_by_hand() -> None:
    # Differences 1, 2, 3: mean 2, sd 1, n 3; t(0.975, 2) = 4.30265 in any table.
    difference = paired_difference({0: 11.0, 1: 22.0, 2: 33.0}, {0: 10.0, 1: 20.0, 2: 30.0, 7: 99.0})
    assert difference is not None
    assert (difference.mean, difference.seeds) == (2.0, 3)
    assert difference.half_width == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5)
    assert difference.verdict == "no difference found"


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ({0: 60.0, 1: 61.0, 2: 62.1}, "better"),
        ({0: 40.0, 1: 41.0, 2: 41.9}, "worse"),
        ({0: 55.0, 1: 49.0, 2: 52.5}, "no difference found"),
        ({1: 70.0}, "1 seed: no claim"),
    ],
)
def test_verdict_follows_from_the_interval(values: dict[int, float], verdict: str) -> None:
    difference = paired_difference(values, {0: 50.0, 1: 51.0, 2: 52.0})
    assert difference is not None
    assert difference.verdict == verdict


def test_policies_without_a_common_seed_are_not_compared() -> None:
    assert paired_difference({0: 1.0}, {1: 2.0}) is None


def test_table_holds_means_spreads_and_differences(tmp_path: Path) -> None:
    for seed, (none, better) in enumerate([(50.0, 60.0), (51.0, 61.5), (52.0, 61.5)]):
        write(tmp_path, "none", seed, none)
        write(tmp_path, "better", seed, better)
    write(tmp_path, "better", 3, None)
    lines = compare([tmp_path]).to_markdown().splitlines()
    assert lines[2] == "| better | 61.00 ± 0.87 | 3 | +10.00 ± 1.24 | better |"
    assert lines[3] == "| none | 51.00 ± 1.00 | 3 |  |  |"
    assert lines[-1] == "Not finished, left out: better/seed3."


def test_trainings_that_differ_in_more_than_policy_and_seed_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "none", 0, 50.0)
    write(tmp_path, "other", 0, 50.0, recipe={"epochs": 3})
    with pytest.raises(InputError, match=r"not trained alike \(recipe\.epochs was None, is 3\)"):
        compare([tmp_path])


def test_cells_may_differ_as_policies_may(tmp_path: Path) -> None:
    write(tmp_path, "found", 0, 50.0, network_options={"genotype": "Genotype(...)", "channels": 16})
    write(tmp_path, "found@random", 0, 51.0, network_options={"genotype": "Genotype(others)", "channels": 16})
    assert len(compare([tmp_path]).rows) == 2
    write(tmp_path, "wider", 0, 52.0, network_options={"genotype": "Genotype(...)", "channels": 36})
    with pytest.raises(InputError, match=r"network_options\.channels was 16, is 36"):
        compare([tmp_path])


def test_one_seed_with_two_policies_of_one_name_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a", "none", 0, 50.0, network_options={"genotype": "A"})
    write(tmp_path / "b", "none", 0, 50.0, network_options={"genotype": "B"})
    with pytest.raises(
        InputError, match=r"b/none/seed0 repeats seed 0 of none with another .* or rename its folder none"
    ):
        compare([tmp_path / "a", tmp_path / "b"])


def test_nothing_to_compare_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no training found"):
        compare([tmp_path])
    write(tmp_path, "none", 0, 50.0)
    with pytest.raises(InputError, match="did you mean test_accuracy_last"):
        compare([tmp_path], metric="test_accuracy")


def test_without_a_baseline_it_is_the_row_that_owes_nothing_to_a_method_or_none_is_told(tmp_path: Path) -> None:
    for seed in range(3):
        write(tmp_path, "found", seed, 52.0 + seed)
        write(tmp_path, "trivialaugment@random", seed, 51.0)
    said = "There is no finished training of none, so no differences are told."
    assert compare([tmp_path]).to_markdown().splitlines()[-1] == said
    for seed in range(3):
        write(tmp_path, "none@random", seed, 50.0)
    assert compare([tmp_path]).baseline == "none@random"
    assert "| found | 53.00 ± 1.00 | 3 | +3.00 ± 2.48 | better |" in compare([tmp_path]).to_markdown()
    with pytest.raises(InputError, match=r"baseline is 'none', no finished policy of these; did you mean none@random"):
        compare([tmp_path], baseline="none")


def test_a_tiny_negative_difference_is_no_minus_zero(tmp_path: Path) -> None:
    for seed in range(3):
        write(tmp_path, "none", seed, 50.0)
        write(tmp_path, "other", seed, 49.999)
    assert "| +0.00 | 3 equal differences: no claim |" in compare([tmp_path]).to_markdown()
