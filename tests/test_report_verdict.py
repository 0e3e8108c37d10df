"""The page begins with the outcome: what the comparison's verdicts carry, and what moved; every figure by hand."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from jointsearch.report.movement import cells_movement, kept_and_dropped, policy_movement, still
from jointsearch.report.page import write_report
from jointsearch.report.page_run import Part, read_run
from tests.report_bench import (
    Page,
    edit,
    write_metrics,
    write_predictions,
    write_run,
    write_search,
    write_training,
)
from tests.test_report_metric import score

SEEDS = (0, 1, 2)
ERROR = {"name": "error", "unit": "", "higher_is_better": False}


def run_of(folder: Path, searched: str = "policy", **rows: tuple[float, float, float]) -> Path:
    """A run whose rows have these accuracies by seed."""
    for seed in SEEDS:
        if searched:
            write_search(folder / f"search-seed{seed}", seed, searched)
        for row, accuracies in rows.items():
            write_training(folder / row.replace("AT", "@") / f"seed{seed}", seed, accuracies[seed])
    return folder


def verdicts(folder: Path) -> list[str]:
    return verdict_of(Page(write_report(folder)))


def verdict_of(page: Page) -> list[str]:
    """The paragraphs of the verdict, which stand before the first section."""
    classes = [given.get("class", name) for name, given in page.elements]
    assert "verdict" not in classes[classes.index("h2") :]
    before = page.texts[: page.texts.index(("h2", next(text for place, text in page.texts if place == "h2")))]
    return [text for place, text in before if place == "p"][1:]


def test_the_first_sentence_says_by_how_much_the_finding_is_better_and_than_what(tmp_path: Path) -> None:
    run = run_of(tmp_path, none=(80, 81, 82), found=(81, 82.2, 83.4), trivialaugment=(81.1, 82.0, 83.5))
    # Found minus none 1, 1.2, 1.4: sd .2, and t(0.975, 2) = 4.3027 makes ±.497; minus trivialaugment -.1, .2, -.1, of
    # which it makes ±.430.
    assert verdicts(run)[0] == (
        "The policy found is better than training without a policy by 1.2 points (95% interval 0.7 to 1.7, 3 seeds); "
        "no difference to TrivialAugment was found (+0.0 points, 95% interval -0.4 to 0.4, 3 seeds)."
    )


def test_a_control_that_was_handed_over_is_called_the_same(tmp_path: Path) -> None:
    run = run_of(tmp_path, none=(80, 81, 82), found=(81, 82.2, 83.4), trivialaugment=(81, 82.2, 83.4))
    assert verdicts(run)[0] == (
        "The policy found is better than training without a policy by 1.2 points (95% interval 0.7 to 1.7, 3 seeds); "
        "the same as TrivialAugment: equal scores with every seed."
    )


def test_the_network_of_a_search_is_told_beside_a_row_of_as_many_copies(tmp_path: Path) -> None:
    rows = {"none": (80, 81, 82), "own_network": (81, 82.2, 83.4), "none+copies4": (81.1, 82.0, 83.5)}
    run = run_of(tmp_path, **rows, **{"none+copies2": (10, 20, 30)})
    for seed in SEEDS:
        edit(run / f"own_network/seed{seed}/settings.json", copies="+copies4")
    assert verdicts(run)[0] == (
        "The network of the search is better than training without a policy by 1.2 points (95% interval 0.7 to 1.7, 3 "
        "seeds); no difference to none+copies4 was found (+0.0 points, 95% interval -0.4 to 0.4, 3 seeds)."
    )


def test_a_finding_that_is_worse_is_called_worse(tmp_path: Path) -> None:
    run = run_of(tmp_path, none=(81, 82.2, 83.4), found=(80, 81, 82))
    assert verdicts(run)[0] == (
        "The policy found is worse than training without a policy by 1.2 points (95% interval 0.7 to 1.7, 3 seeds)."
    )


def test_an_error_that_is_lower_is_better_by_a_positive_amount(tmp_path: Path) -> None:
    run = run_of(tmp_path, none=(0, 0, 0), found=(0, 0, 0))
    for seed, (found, none) in enumerate([(0.021, 0.041), (0.022, 0.043), (0.023, 0.042)]):
        for row, error in (("found", found), ("none", none)):
            score(run / row / f"seed{seed}" / "result.json", ERROR, test_error_last=error)
    # As in test_report_metric: -.020 ± .00248.
    assert verdicts(run)[0] == (
        "The policy found is better than training without a policy by 0.02000 (95% interval 0.01752 to 0.02248, 3 "
        "seeds)."
    )


def test_two_seeds_are_no_claim(tmp_path: Path) -> None:
    assert verdicts(write_run(tmp_path))[0] == (
        "No claim about the policy found: 3 seeds are needed. Mean differences: +1.1 points to training without a "
        "policy."
    )


def test_cells_are_compared_with_random_cells_under_the_same_policy(tmp_path: Path) -> None:
    rows: Any = {"trivialaugment": (80, 81, 82), "trivialaugmentATrandom": (79, 79.8, 80.6)}
    said = verdicts(run_of(tmp_path, "joint", found=(80, 81.1, 82), **rows))
    assert said[0].startswith("For the policy found, no difference to TrivialAugment was found (+0.0 points,")
    # 1, 1.2, 1.4 again.
    assert said[1] == (
        "The cells found, trained under TrivialAugment, are better than random cells by 1.2 points (95% interval 0.7 "
        "to 1.7, 3 seeds)."
    )


def test_without_a_search_rows_are_grouped_by_their_verdict(tmp_path: Path) -> None:
    run = run_of(
        tmp_path,
        "",
        none=(80, 81, 82),
        autoaugment=(81, 82.2, 83.4),
        randaugment=(80, 81.3, 81.8),
        mine=(79, 79.8, 80.6),
    )
    said = verdicts(run)
    assert (
        said[0]
        == "Better than training without a policy: AutoAugment (+1.20 ± 0.50); worse than training without a policy: "
        "mine (-1.20 ± 0.50)."
    )
    assert said[1].startswith("No difference to training without a policy was found for RandAugment (+0.03 ± ")
    assert "Differences are in points, with their 95% intervals." in said[2]
    assert "up to 14% of such tables" in said[2]  # 1 - .95 ** 3


def test_accuracies_that_guessing_reaches_tell_no_policies_apart(tmp_path: Path) -> None:
    # Of 750 test images and 10 equal classes, two standard errors above 10 % are 12.19 %.
    run = run_of(tmp_path, none=(12.1, 12.2, 12.1), found=(10, 11, 12))
    assert "chance" not in verdicts(run)[0]  # nobody knows the classes
    write_predictions(run / "none" / "seed0", [75] * 10)
    assert verdicts(run)[0] == (
        "No row is above chance: the best mean accuracy is 12.1 %, and guessing among 10 classes gives 10.0 %, so "
        "these trainings cannot tell policies apart."
    )
    edit(run / "none" / "seed2" / "result.json", test_accuracy_last=12.6)
    assert "chance" not in verdicts(run)[0]
    # Where one class has 120 of 750 images, a network that says it always reaches 16 %.
    write_predictions(run / "none" / "seed0", [120, *[70] * 9])
    assert "and always saying the largest of 10 classes gives 16.0 %" in verdicts(run)[0]


def test_without_trainings_it_says_that_nothing_tells_the_worth(tmp_path: Path) -> None:
    write_run(tmp_path)
    for row in ("found", "none"):
        shutil.rmtree(tmp_path / row)
    assert verdicts(tmp_path)[0] == (
        "A search of policy with 2 seeds; nothing was trained with what it found, so nothing says what that is worth."
    )


def part_of(folder: Path, searched: str = "policy", **result: Any) -> Part:
    write_run(folder, searched)
    for seed in range(2):
        edit(folder / f"search-seed{seed}" / "result.json", **result)
    return read_run(folder).searches[0]


def test_a_policy_moved_by_the_share_of_draws_that_fall_elsewhere(tmp_path: Path) -> None:
    # From .4 .4 .2 to .5 .3 .2: a tenth of the draws. Preferences are log(.5 / .4), log(.3 / .4) and 0.
    preferences = [0.2231436, -0.2876821, 0.0]
    told: dict[str, Any] = {"sub_policy_shares": [0.5, 0.3, 0.2], "sub_policy_preferences": preferences}
    part = part_of(tmp_path, **told)
    assert policy_movement(part) == pytest.approx(0.1, abs=1e-6)
    # Without preferences by the shares of ops from the first epoch on: Invert .2 to .8 beside Rotate at .1.
    bare = part_of(tmp_path, sub_policy_shares=None)
    assert policy_movement(bare) == pytest.approx(0.8 / 0.9 - 0.2 / 0.3)


@pytest.mark.parametrize(
    ("preferences", "said"),
    [
        # From equal thirds by at most (1.08 - 1) / 3, which is 2.6 % of the draws, or 5.4 %.
        ([0.08, 0.0, -0.08], "The policy did not move: at most 2.7% of images would draw another sub-policy"),
        ([0.16, 0.0, -0.16], None),
    ],
)
def test_a_policy_did_not_move_below_five_percent(preferences: list[float], said: str | None, tmp_path: Path) -> None:
    exponentials = [2.718281828**one for one in preferences]
    shares = [one / sum(exponentials) for one in exponentials]
    start = [share / one for share, one in zip(shares, exponentials, strict=True)]
    assert start == pytest.approx([start[0]] * 3)
    part_of(tmp_path, sub_policy_shares=shares, sub_policy_preferences=preferences)
    (step,) = read_run(tmp_path).steps
    assert still(step[:1]) == ([said] if said else [])


def test_a_policy_whose_seeds_rank_by_chance_moved_by_noise(tmp_path: Path) -> None:
    write_run(tmp_path)
    # Ranks of nine as in test_report_searches, where they correlate by -0.07.
    orders = [[float(place) for place in range(9)], [4.0, 5, 6, 7, 0, 1, 2, 3, 8]]
    for seed, order in enumerate(orders):
        shares = [1 / 9] * 9
        edit(tmp_path / f"search-seed{seed}" / "result.json", sub_policy_shares=shares, sub_policy_preferences=order)
    said = verdicts(tmp_path)[-1]
    assert said.startswith("The policy moved for up to ")
    assert said.endswith(" of images, but its seeds agree no more than random orders.")


def test_cells_moved_by_the_mean_distance_from_equal_shares(tmp_path: Path) -> None:
    weights: dict[str, Any] = {"weights/normal": [[0.5, 0.5], [0.6, 0.4]], "weights/reduction": [[0.56, 0.44]]}
    part = part_of(tmp_path, "architecture", **weights)
    assert cells_movement(part) == pytest.approx((0 + 0.1 + 0.06) / 3)
    assert "The cells did not move" not in verdicts(tmp_path)[-1]
    part_of(tmp_path, "architecture", **weights | {"weights/normal": [[0.5, 0.5], [0.54, 0.46]]})
    assert verdicts(tmp_path)[-1] == (
        "The cells did not move: the shares of their candidates stayed within 3.3% of equal."
    )


def test_it_says_what_was_kept_dropped_and_gained(tmp_path: Path) -> None:
    def row(op: str, share: float) -> dict[str, Any]:
        return {"op": op, "magnitude": None, "gain": 0.0, "share": share}

    write_run(tmp_path)
    for seed, share in enumerate((0.0, 0.5)):
        table = [row("identity", 0.0), row("Invert", 0.0), row("Rotate", share)]
        edit(tmp_path / f"search-seed{seed}" / "result.json", table=table)
    (step,) = read_run(tmp_path).steps
    assert kept_and_dropped(step)[0] == ("dropped", "Invert (2 of 2 seeds), Rotate (1 of 2 seeds)")
    assert ("ops that gained most", "Invert +60.0") in kept_and_dropped(step)  # from .2 to .8
    for seed in range(2):
        edit(tmp_path / f"search-seed{seed}" / "result.json", table=[row("Invert", 1.0)])
    assert "The search dropped nothing, so the policy found is the one that it started from." in verdicts(tmp_path)
    for seed in range(2):
        edit(tmp_path / f"search-seed{seed}" / "result.json", table=None, sub_policy_shares=[0.5, 0.3, 0.2])
    (step,) = read_run(tmp_path).steps
    assert kept_and_dropped(step)[0] == ("kept", "2 of 3 sub-policies")


def test_one_epoch_is_no_trajectory(tmp_path: Path) -> None:
    write_run(tmp_path)
    for seed in range(2):
        write_metrics(tmp_path / f"search-seed{seed}" / "metrics.jsonl", [{"epoch": 1, "train_loss": 2.0}])
    assert "One epoch has been recorded, so nothing can be drawn over time." in Page(write_report(tmp_path)).text
