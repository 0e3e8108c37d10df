"""Charts of the report, by hand: curves and ticks, trajectories on one axis, what did not move, accuracy and cost."""

import itertools
import re
from pathlib import Path

import pytest

from jointsearch.report.page import write_report
from jointsearch.report.page_charts import Line, Panel, dot_strip, line_chart, nice_ticks, stacked, tick_labels
from jointsearch.report.page_cost import LINE, costs_of, spread_out
from jointsearch.report.page_run import read_run
from tests.report_bench import (
    EPOCHS,
    SEEDS,
    Page,
    edit,
    write_metrics,
    write_predictions,
    write_run,
    write_training,
)

OPS = "Share of images on which an op acts, %"
CELLS = (
    "Genotype(normal=[('skip_connect', 0), ('{0}', 1)], normal_concat=range(2, 3), "
    "reduce=[('{0}', 0), ('{0}', 1)], reduce_concat=range(2, 3))"
)


def charts(page: Page) -> list[str]:
    return [given["aria-label"] for name, given in page.elements if given.get("class") == "chart"]


def records(folder: Path, **columns: list[float | str]) -> None:
    """Replace the metrics of both searches."""
    for seed in SEEDS:
        count = len(next(iter(columns.values())))
        lines = [{"epoch": n + 1, **{name: values[n] for name, values in columns.items()}} for n in range(count)]
        write_metrics(folder / f"search-seed{seed}" / "metrics.jsonl", lines)


def test_every_figure_of_the_records_has_a_curve_for_every_seed(tmp_path: Path) -> None:
    page = Page(write_report(write_run(tmp_path)))
    panels = f"Validation accuracy, %; Sub-policies in use, exp(entropy); {OPS}"
    of_seeds = [f"seed {seed}: {panels}, over epochs" for seed in SEEDS]
    # The training loss of the searches, then that of the trainings.
    assert charts(page)[1:] == [*of_seeds, "Training loss over epochs", "Training loss over epochs"]
    curves = [given["points"].split() for name, given in page.elements if name == "polyline"]
    # Accuracy, sub-policies and two ops; the loss; four trainings.
    assert len(curves) == len(SEEDS) * (4 + 1) + 4
    assert {len(points) for points in curves} == {EPOCHS}
    assert ("span", "1") in page.texts  # the mean training loss in the selected epoch


def test_a_jump_of_policy_and_cells_stands_at_one_place_of_one_axis(tmp_path: Path) -> None:
    write_run(tmp_path, "joint")
    ops = {"share/Invert": [0.1, 0.1, 0.6, 0.6], "share/Rotate": [0.1, 0.1, 0.1, 0.1]}
    cells = [CELLS.format(op) for op in ("sep_conv_3x3", "sep_conv_3x3", "max_pool_3x3", "max_pool_3x3")]
    records(tmp_path, **ops, genotype=cells)
    page = Page(write_report(tmp_path))
    assert charts(page)[1] == f"seed 0: {OPS}; Edges of both cells with an op, over epochs"
    curves = [
        [[float(at) for at in point.split(",")] for point in given["points"].split()]
        for name, given in page.elements
        if name == "polyline"
    ]
    jumps = [
        line[2][0]
        for line in curves[: 2 + 3]  # of the first seed: two ops; sep, max and skip
        if line[1][1] != line[2][1] and line[0][1] == line[1][1] and line[2][1] == line[3][1]
    ]
    assert len(jumps) == 3  # Invert, sep_conv_3x3 and max_pool_3x3
    assert len(set(jumps)) == 1
    legends = [text for place, text in page.texts if place == "span"]
    assert {"Invert 10 to 60", "max_pool_3x3 0 to 3", "sep_conv_3x3 3 to 0"} <= set(legends)


def test_what_did_not_move_is_said_and_not_drawn(tmp_path: Path) -> None:
    write_run(tmp_path)
    flat = [104.95, 104.9, 104.85, 104.8]
    records(
        tmp_path,
        train_loss=[2.0, 1.9, 1.8, 1.7],
        effective_sub_policies=flat,
        **{"share/Invert": [0.066, 0.067, 0.066, 0.065]},
    )
    page = Page(write_report(tmp_path))
    assert charts(page)[1:] == ["Training loss over epochs", "Training loss over epochs"]
    assert f"Did not move: \nSub-policies in use, exp(entropy) (105); {OPS}." in page.text


def test_a_curve_goes_through_its_points() -> None:
    # Ticks 0, 5, 10 from 120 up to 8 units; epochs 1 to 3 from 48 to 290 units across.
    chart = line_chart([Line(((1, 0.0), (2, 5.0), (3, 10.0)), kept=2)], "a figure")
    assert 'points="48.0,120.0 169.0,64.0 290.0,8.0"' in chart
    assert '<circle cx="169.0" cy="64.0"' in chart
    assert re.findall(r">([^<]+)</text>", chart) == ["0", "5", "10", "1", "3", "epoch"]


def test_panels_share_their_epochs_and_mark_the_kept_one_in_each() -> None:
    lines = (Line(((1, 0.0), (5, 10.0))),)
    chart = stacked([Panel("one", lines, (0, 10)), Panel("two", lines, (0, 10))], (1, 5), 3, "both")
    one, two = re.findall(r'points="([\d.]+),([\d.]+) ([\d.]+),([\d.]+)"', chart)
    assert (one[0], one[2]) == (two[0], two[2]) == ("48.0", "370.0")
    marks = re.findall(r'<line x1="([\d.]+)" x2="[\d.]+" y1="[\d.]+" y2="[\d.]+" class="kept"', chart)
    assert marks == ["209.0", "209.0"]
    assert re.findall(r">(\d) ?</text>", chart)[-5:] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (4.99999, 5.00001, ["4.5", "5.0", "5.5"]),  # one number, computed twice
        (104.76, 104.93, ["104.7", "104.8", "104.9", "105.0"]),
        (0, 12_000, ["0", "5,000", "10,000", "15,000"]),
        (-0.2, 0.2, ["-0.2", "0.0", "0.2"]),
        (0.0, 0.0, ["0.0", "0.5", "1.0"]),
    ],
)
def test_ticks_are_round_and_none_stands_twice(low: float, high: float, labels: list[str]) -> None:
    told = tick_labels(nice_ticks(low, high))
    assert len(set(told)) == len(told)
    assert float(told[0].replace(",", "")) <= low
    assert float(told[-1].replace(",", "")) >= high
    assert max(map(len, told)) <= 6
    assert told == labels


@pytest.mark.parametrize("highest", [0.01, 0.12, 0.9, 1.0, 3.0])
def test_charts_of_one_scale_hold_all_their_points(highest: float) -> None:
    chart = line_chart([Line(((1, 0.0), (2, highest)))], "a share", highest)
    (low, high) = (float(pair.split(",")[1]) for pair in re.search(r'points="([^"]+)"', chart)[1].split())
    assert low == 120.0
    assert 8.0 <= high < 64.0


def test_a_flat_figure_and_a_single_seed_can_be_drawn() -> None:
    assert "nan" not in line_chart([Line(((1, 7.0), (2, 7.0)))], "flat") + dot_strip([5.0], (5.0, 5.0), 0, "one")


def test_a_row_costs_its_training_and_the_search_that_it_needed(tmp_path: Path) -> None:
    def costs(searched: str) -> dict[str, float]:
        write_run(tmp_path / searched, searched)
        for seed in SEEDS:
            for row in ("none@random", "found@random"):
                write_training(tmp_path / searched / row / f"seed{seed}", seed, 80.0)
            for row in ("found", "none") if searched != "policy" else ():
                cells = {"genotype": f"found by {seed}"}
                edit(tmp_path / searched / row / f"seed{seed}" / "settings.json", network_options=cells)
        return {one.row: one.seconds for one in costs_of(read_run(tmp_path / searched))}

    # A training takes 10 s, a search 30. The row found needs a policy; all rows without @ need the cells that were
    # found; of two searches they need both, and found@random that of the policy.
    random = {"none@random": 10.0, "found@random": 40.0}
    assert costs("policy") == {"found": 40.0, "none": 10.0, **random}
    assert costs("joint") == {"found": 40.0, "none": 40.0, **random}
    assert costs("separate") == {"found": 70.0, "none": 70.0, **random}


def test_a_wide_span_of_costs_is_logarithmic_and_chance_is_drawn_where_it_is_near(tmp_path: Path) -> None:
    write_run(tmp_path)
    page = Page(write_report(tmp_path))
    assert "seconds of search and training" in page.text
    assert "is chance" not in page.text
    edit(tmp_path / "search-seed0" / "result.json", seconds=3000.0)
    for row in ("found", "none"):
        for seed in SEEDS:
            edit(tmp_path / row / f"seed{seed}" / "result.json", test_accuracy_last=11.0 + seed)
            write_predictions(tmp_path / row / f"seed{seed}", [75] * 10)
    page = Page(write_report(tmp_path))
    assert "seconds of search and training, logarithmic" in page.text
    assert ["chance", "10.00", "", "", "", ""] in page.rows
    assert "Row chance is what guessing among 10 classes gives." in page.text
    assert "The dashed line is chance: 10.0 % by guessing among 10 classes." in page.text
    assert [given for name, given in page.elements if given.get("class") == "chance"]


@pytest.mark.parametrize(
    "places", [[50.0] * 6, [22.0, 23.0, 205.0, 209.0, 210.0], [210.0], [22.0 + n for n in range(13)]]
)
def test_names_beside_a_drawing_never_overlap_nor_leave_it(places: list[float]) -> None:
    heights = sorted(spread_out(places, 22.0, 210.0))
    assert all(below - above >= LINE - 0.11 for above, below in itertools.pairwise(heights))
    assert heights[0] >= 22.0
    assert heights[-1] <= 210.0
