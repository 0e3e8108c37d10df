"""Made-up results with known differences, from any number of runs: verdicts, rows, seeds that are missing."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from jointsearch.report.comparison import compare
from jointsearch.report.comparisons import Comparisons, compare_all
from jointsearch.report.verdict import verdict_sentence
from search_spaces.errors import InputError

JOINT = {"outcome": "Policy and cells", "searcher": {"is": "Differentiable", "from_epoch": 0}}
FIRST_ORDER = {"outcome": "Policy and cells", "searcher": {"is": "FirstOrder"}}
POLICY = {"outcome": "Policy", "searcher": {"is": "Trials"}}
CELLS = {"outcome": "Cells", "architecture": {"order": "first"}}
COMMAND = "joint_search.py {} seeds=[0]"


def put(folder: Path, settings: dict[str, Any], result: dict[str, Any] | None, command: str = "") -> None:
    folder.mkdir(parents=True)
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "birth.json").write_text(json.dumps({"command": command, "hardware": "AMD EPYC, 2 cores"}))
    if result is not None:
        (folder / "result.json").write_text(json.dumps(result))


def train(run: Path, row: str, scores: dict[int, float | None], data: str = "digits", **more: Any) -> None:
    """A row of trainings by seed; None is one that is not finished."""
    for seed, score in scores.items():
        recipe = {"epochs": 4, "batch_size": 32}
        of_seed = {"train": 100, "validation": 0, "digest": f"{data}{seed}"}
        settings = {"seed": seed, "recipe": recipe, "dataset": {"name": data}, "data": of_seed, "policy": row, **more}
        result = {"test_accuracy_last": score, "epochs": 4, "images_trained": 400, "seconds": 10.0 + seed}
        put(run / row / f"seed{seed}", settings, None if score is None else result)


def search(
    run: Path,
    settings: dict[str, Any],
    seeds: tuple[int, ...],
    words: str = "",
    data: str = "digits",
    space: str | None = None,
) -> None:
    for seed in seeds:
        whole = {"seed": seed, "search": settings, "recipe": {"epochs": 8, "batch_size": 25}, "dataset": {"name": data}}
        whole |= {} if space is None else {"network_options": {"space": space}}
        whole |= {"policy": f"start of {seed}", "data": {"train": 50, "validation": 50, "digest": f"{data}{seed}"}}
        result = {"epochs": 8, "steps": 16, "forward_equivalents": 480, "seconds": 30.0}
        put(run / f"search-seed{seed}", whole, result, COMMAND.format(words))


def around(mean: float, *offsets: float) -> dict[int, float | None]:
    return {seed: mean + offset for seed, offset in enumerate(offsets)}


def rows(comparisons: Comparisons) -> list[str]:
    [only] = comparisons.tables
    return sorted(row.policy for row in only.comparison.rows)


def read(comparisons: Comparisons) -> str:
    """All sentences."""
    parts = [*comparisons.scores(), *comparisons.beside()]
    return "\n".join(part for part in parts if isinstance(part, str))


# Verdicts


def test_known_differences_give_the_right_verdicts(tmp_path: Path) -> None:
    # Paired differences: large 9, 10, 11, 10, 10; small .4 .5 .6 .5 .5; none -2, 3, -1, 1, -1; harm -5 +- .1.
    noise = (0.0, 2.0, -1.0, 3.0, 1.0)
    train(tmp_path, "none", around(60.0, *noise))
    for row, differences in {
        "large": (9.0, 10.0, 11.0, 10.0, 10.0),
        "small": (0.4, 0.5, 0.6, 0.5, 0.5),
        "nothing": (-2.0, 3.0, -1.0, 1.0, -1.0),
        "harm": (-5.1, -5.0, -4.9, -5.0, -5.0),
    }.items():
        train(tmp_path, row, around(60.0, *(one + other for one, other in zip(noise, differences, strict=True))))
    found = compare([tmp_path])
    verdicts = {policy: difference.verdict for policy, difference in found.differences.items()}
    assert verdicts == {"large": "better", "small": "better", "nothing": "no difference found", "harm": "worse"}
    # Two rows of 61 +- 1.6 that are half a point apart overlap almost entirely: only pairing by seed tells them.
    small = found.differences["small"]
    # Standard error of .4 .5 .6 .5 .5: sqrt(.02 / 4) / sqrt(5) = .031623; t(.975, 4) = 2.77645.
    assert (small.mean, small.half_width) == (pytest.approx(0.5), pytest.approx(2.77645 * 0.0316228, rel=1e-4))
    assert verdict_sentence(found) == (
        "Beside none, better: large (+10.00 ± 0.88), small (+0.50 ± 0.09); "
        "no difference found: nothing (+0.00 ± 2.48); worse: harm (-5.00 ± 0.09)."
    )


def test_a_finding_is_set_beside_the_baseline_and_every_control_in_a_sentence(tmp_path: Path) -> None:
    train(tmp_path, "none", around(50.0, 0.0, 1.0, 2.0))
    train(tmp_path, "found", around(52.0, 0.0, 1.1, 1.9))
    train(tmp_path, "trivialaugment", around(52.0, 1.0, -1.0, 2.0))
    # found - none: 2, 2.1, 1.9; sd .1, t(.975, 2) / sqrt(3) = 2.48414, so +- .25.
    # found - trivialaugment: -1, 2.1, -.1; mean 1/3, sd 1.59478, so +- 3.9616.
    assert verdict_sentence(compare([tmp_path])) == (
        "found is better than none by 2.00 points (1.75 to 2.25, 3 seeds); no difference to trivialaugment was found "
        "(-3.63 to 4.29, 3 seeds)."
    )
    holm = verdict_sentence(compare([tmp_path], correction="holm"))
    assert "better than none" in holm
    assert "trivialaugment" not in holm  # Holm's verdicts are of differences to the baseline


def test_with_two_seeds_no_sentence_claims_anything(tmp_path: Path) -> None:
    train(tmp_path, "none", around(50.0, 0.0, 1.0))
    train(tmp_path, "found", around(60.0, 0.0, 1.0))
    said = verdict_sentence(compare([tmp_path]))
    assert said == "found: 2 seeds are too few for a verdict on none (difference 10.00 points)."


def test_where_less_is_better_the_sentence_still_counts_upwards(tmp_path: Path) -> None:
    error = {"name": "error", "unit": "", "higher_is_better": False}
    for row, scores in {"none": (0.41, 0.43, 0.42), "found": (0.21, 0.22, 0.23)}.items():
        train(tmp_path, row, around(0.0, *scores))
        for seed, score in enumerate(scores):
            told = {"metric": error, "test_error_last": score}
            (tmp_path / row / f"seed{seed}" / "result.json").write_text(json.dumps(told))
    assert verdict_sentence(compare([tmp_path])) == "found is better than none by 0.2000 (0.1752 to 0.2248, 3 seeds)."
    assert verdict_sentence(compare([tmp_path], baseline="found")).startswith("Beside found, worse: none (+0.2000")


def test_of_twenty_rows_without_a_difference_holm_calls_none_better(tmp_path: Path) -> None:
    noise = random.Random(4)
    for row in ("none", *(f"row{place}" for place in range(20))):
        train(tmp_path, row, around(60.0, *(noise.gauss(0, 1) for _ in range(5))))
    alone, together = (compare([tmp_path], correction=one) for one in ("none", "holm"))
    assert {one.verdict for one in alone.differences.values()} & {"better", "worse"}  # by chance
    assert {one.verdict for one in together.differences.values()} == {"no difference found"}
    assert "up to 64% of such tables" in alone.by_chance  # 1 - .95^20
    assert "corrected for 20 rows" in together.by_chance


# Seeds


def test_a_missing_seed_is_named_and_the_difference_is_over_the_others(tmp_path: Path) -> None:
    train(tmp_path, "none", around(50.0, 0.0, 1.0, 2.0, 3.0))
    train(tmp_path, "found", {0: 52.0, 1: 53.1, 2: 53.9, 3: None})
    train(tmp_path, "more", {**around(50.0, 0.0, 1.0, 2.0, 3.0), 4: 99.0})
    train(tmp_path, "other", {7: 50.0})
    found = compare([tmp_path])
    assert [*found.lacking] == [
        "none lacks seed 4, which more has: the difference is over seeds 0, 1, 2, 3.",
        "found lacks seed 3, which none has: the difference is over seeds 0, 1, 2.",
        "other lacks seeds 0, 1, 2, 3, which none has; none lacks seed 7, which other has: no seed is shared, so no "
        "difference is told.",
    ]
    assert (found.differences["found"].seeds, found.differences["more"].mean) == (3, 0.0)
    assert "Not finished, left out: found/seed3." in found.to_markdown()


def test_seeds_of_one_method_merge_from_the_folders_of_a_sweep(tmp_path: Path) -> None:
    for seed in range(3):
        for words, settings in {"search=joint": JOINT, "search=policy": POLICY}.items():
            member = tmp_path / f"{words},seeds={seed}"
            search(member, settings, (seed,), words)
            better = 5.0 if settings is JOINT else 0.0
            train(member, "found", {seed: 50.0 + better + seed}, policy=f"{words}{seed}")
            train(member, "none", {seed: 50.0 + seed})
    found = compare_all([tmp_path])
    assert rows(found) == ["found (search=joint)", "found (search=policy)", "none"]
    table = found.tables[0].comparison
    assert {row.policy: tuple(row.values) for row in table.rows} == dict.fromkeys(rows(found), (0, 1, 2))
    assert table.differences["found (search=joint)"].mean == 5.0
    assert "3 trainings lie in several of these runs: " in read(found)
    members = sorted(tmp_path.iterdir())
    assert compare_all(members) == found == compare_all([tmp_path, *members])


def test_a_control_that_was_trained_twice_counts_once_and_another_score_is_told(tmp_path: Path) -> None:
    for name, score in (("a", 51.0), ("b", 51.5)):
        train(tmp_path / name, "none", {0: 50.0, 1: score})
    found = compare_all([tmp_path])
    [row] = found.tables[0].comparison.rows
    assert row.values == {0: 50.0, 1: 51.0}
    assert f"came to other scores in {tmp_path}/b/none/seed1; those of {tmp_path}/a/none/seed1 count." in read(found)


# Rows of several searches


def test_rows_are_called_by_preset_and_search_where_the_command_says_so(tmp_path: Path) -> None:
    for name, settings, words in (
        ("a", JOINT, "search=joint"),
        ("b", FIRST_ORDER, "preset=kashima2021"),
        ("c", JOINT | {"searcher": {"is": "Differentiable", "from_epoch": 9}}, "search=joint preset=late"),
    ):
        search(tmp_path / name, settings, (0,), words)
        train(tmp_path / name, "found", {0: 60.0}, policy=name)
    assert rows(compare_all([tmp_path])) == [
        "found (preset=kashima2021)",
        "found (preset=late, search=joint)",
        "found (search=joint)",
    ]


def test_without_words_rows_are_called_by_what_their_searches_were(tmp_path: Path) -> None:
    for name, settings in (("a", JOINT), ("b", FIRST_ORDER)):
        search(tmp_path / name, settings, (0,))
        train(tmp_path / name, "found", {0: 60.0}, policy=name)
    search(tmp_path / "c" / "policy", POLICY, (0,))
    search(tmp_path / "c", CELLS, (0,))
    train(tmp_path / "c", "found", {0: 60.0}, policy="c")
    assert rows(compare_all([tmp_path])) == [
        "found (search=joint, searcher=Differentiable)",
        "found (search=joint, searcher=FirstOrder)",
        "found (search=separate, searcher=Trials)",
    ]


def test_searches_that_differ_in_one_setting_are_called_by_it(tmp_path: Path) -> None:
    for epoch in (0, 5):
        settings = JOINT | {"searcher": {"is": "Differentiable", "from_epoch": epoch}}
        search(tmp_path / f"run{epoch}", settings, (0,), "search=joint")
        train(tmp_path / f"run{epoch}", "found", {0: 60.0 + epoch}, policy=str(epoch))
    name = "found (search=joint, search.searcher.from_epoch={})"
    assert rows(compare_all([tmp_path])) == [name.format(0), name.format(5)]


def test_a_control_with_the_cells_of_a_search_belongs_to_it_and_one_with_other_cells_to_none(tmp_path: Path) -> None:
    for name, settings, score, growing in (("joint", JOINT, 60.0, 0.1), ("cells", CELLS, 58.0, 0.0)):
        search(tmp_path / name, settings, (0, 1, 2))
        for row in ("found", "none"):
            for seed in range(3):
                cells = {"genotype": f"{name}{seed}", "channels": 4}
                train(tmp_path / name, row, {seed: score + growing * seed}, network_options=cells)
        train(tmp_path / name, "none@random", around(50.0, 1.0, 0.0, 2.0), network_options={"channels": 4})
    found = compare_all([tmp_path])
    architecture, joint = ("search=architecture", "search=joint")
    assert rows(found) == [
        *(f"found ({one})" for one in (architecture, joint)),
        *(f"none ({one})" for one in (architecture, joint)),
        "none@random",
    ]
    assert found.tables[0].comparison.baseline == "none@random"
    said = read(found)
    assert "Of 2 findings found (search=joint) has the best mean. It is better than none@random by 9.10 points" in said
    assert "is the same as none (search=joint): equal scores with 3 seeds" in said
    assert "is better than found (search=architecture) by 2.10 points" in said
    assert "none (search=architecture)" not in said  # not the control of its own cells
    assert set(found.tables[0].alike.searches) == {(row, seed) for row in rows(found)[:4] for seed in range(3)}


METHODS: dict[str, tuple[str, float, Any]] = {
    "joint": ("small", 60.0, JOINT),
    "architecture": ("small", 59.0, CELLS),
    "kashima2021": ("darts", 58.0, FIRST_ORDER),
}
SMALL, DARTS = "none@random (preset=architecture / preset=joint)", "none@random (preset=kashima2021)"


def write_member(root: Path, name: str, seed: int, data: str = "digits") -> None:
    """The run folder of a method and a seed, as a sweep leaves it, with random cells of the space of the method."""
    space, better, settings = METHODS[name]
    run = root / f"{data}-{name}{seed}"
    search(run, settings, (seed,), f"preset={name}", data, space)
    train(run, "found", {seed: better + 1.01 * seed}, data, network_options={"genotype": f"{name}{seed}"})
    train(run, "none@random", {seed: 50.0 + seed}, data, network_options={"genotype": f"{space}{seed}"})


def test_random_cells_of_two_spaces_are_two_controls_each_with_the_searches_that_share_it(tmp_path: Path) -> None:
    for seed in range(3):
        for name in METHODS:
            write_member(tmp_path, name, seed)
    found = compare_all([tmp_path])
    assert rows(found) == [*(f"found (preset={name})" for name in sorted(METHODS)), SMALL, DARTS]
    assert {len(row.values) for row in found.tables[0].comparison.rows} == {3}
    said = read(found)
    assert f"Of 3 findings found (preset=joint) has the best mean. It is better than {SMALL} by 10.01 points" in said
    assert f"than {DARTS}" not in said  # that is a control of others


def test_controls_of_an_unfinished_sweep_are_told_apart_whatever_seeds_are_there(tmp_path: Path) -> None:
    for name, seed in (("joint", 0), ("architecture", 1), ("kashima2021", 2)):
        write_member(tmp_path, name, seed)
    [table] = compare_all([tmp_path]).tables
    values = {row.policy: sorted(row.values) for row in table.comparison.rows if "none" in row.policy}
    assert values == {SMALL: [0, 1], DARTS: [2]}


def test_a_control_has_the_name_of_the_searches_on_its_own_data_set(tmp_path: Path) -> None:
    for data, names in (("digits", METHODS), ("shapes", ("joint", "kashima2021"))):
        for name in names:
            write_member(tmp_path, name, 0, data)
    digits, shapes = compare_all([tmp_path]).tables
    names = [{row.policy for row in table.comparison.rows if "none" in row.policy} for table in (digits, shapes)]
    assert names == [{SMALL, DARTS}, {"none@random (preset=joint)", DARTS}]


def test_one_lucky_seed_is_not_the_best_finding(tmp_path: Path) -> None:
    for seed in range(3):
        write_member(tmp_path, "joint", seed)
    search(tmp_path / "lucky", CELLS, (2,), "preset=architecture", space="small")
    train(tmp_path / "lucky", "found", {2: 99.0}, network_options={"genotype": "lucky"})
    said = read(compare_all([tmp_path]))
    assert "found (preset=joint) is better than none@random by 10.01 points" in said
    assert "1 seed is too few for a verdict on found (preset=architecture)" in said


def test_one_control_with_two_policies_and_no_search_to_tell_them_apart_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        train(tmp_path / name, "random", {0: 50.0}, policy=name)
    with pytest.raises(InputError, match="repeats seed 0 of random with another policy or genotype"):
        compare_all([tmp_path])


# Several data sets


@pytest.fixture
def two_sets(tmp_path: Path) -> Path:
    for data, better in (("digits", 1.0), ("shapes", 0.0)):
        run = tmp_path / data
        search(run, JOINT, (0, 1, 2), "search=joint", data)
        train(run, "none", around(50.0, 0.0, 1.0, 2.0), data)
        train(run, "found", around(50.0 + better, 0.1, 1.0, 1.9), data)
    train(tmp_path / "shapes", "trivialaugment", around(51.0, 0.0, 1.0, 2.5), "shapes")
    return tmp_path


def test_methods_stand_beside_data_sets(two_sets: Path) -> None:
    found = compare_all([two_sets])
    assert [one.alike.title for one in found.tables] == ["digits", "shapes"]
    table = next(found.scores())
    assert not isinstance(table, str)
    assert table.spans == (("", 1), ("digits", 2), ("shapes", 2))
    cells = {row[0]: row[1:] for row in table.rows}
    # digits: 1.1, 1, .9 is better; shapes: .1, 0, -.1 is not.
    assert cells["found"] == (
        "52.00 ± 0.90 (3)",
        "+1.00 ± 0.25, better",
        "51.00 ± 0.90 (3)",
        "+0.00 ± 0.25, no difference found",
    )
    assert cells["none"] == ("51.00 ± 1.00 (3)", "", "51.00 ± 1.00 (3)", "")
    assert cells["trivialaugment"][:2] == ("-", "")
    assert "digits: found is better than none by 1.00 points (0.75 to 1.25, 3 seeds)." in read(found)
    assert "shapes: found: no difference to none was found (-0.25 to 0.25, 3 seeds); " in read(found)
    with pytest.raises(InputError, match=r"not trained alike .*dataset\.name was 'digits', is 'shapes'"):
        compare([two_sets / "digits", two_sets / "shapes"])


def test_a_baseline_that_one_data_set_lacks_is_told_there_and_an_unknown_one_is_refused(two_sets: Path) -> None:
    found = compare_all([two_sets], baseline="trivialaugment")
    assert "digits: There is no finished training of trivialaugment" in read(found)
    assert found.tables[1].comparison.differences.keys() == {"none", "found"}
    with pytest.raises(InputError, match="baseline is 'trivial', no finished policy of these; did you mean trivialaug"):
        compare_all([two_sets], baseline="trivial")


def test_tables_of_one_data_set_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    for epochs in (4, 8):
        train(tmp_path / str(epochs), "none", {0: 50.0}, recipe={"epochs": epochs, "batch_size": 32})
    assert [one.alike.title for one in compare_all([tmp_path]).tables] == [
        "digits, recipe.epochs=4", "digits, recipe.epochs=8",
    ]  # fmt: skip


def test_other_images_under_one_seed_are_refused(tmp_path: Path) -> None:
    train(tmp_path / "a", "none", {0: 50.0})
    train(tmp_path / "b", "other", {0: 50.0}, data="digits")
    path = tmp_path / "b" / "other" / "seed0" / "settings.json"
    path.write_text(path.read_text().replace("digits0", "others"))
    with pytest.raises(InputError, match=r"data\.digest was 'digits0', is 'others'"):
        compare_all([tmp_path])
