"""Tables, summary and page take the metric of the results: its name, its unit, and which of two scores is better."""

import json
from pathlib import Path
from typing import Any

import pytest

from jointsearch.commands.command import run
from jointsearch.report.comparison import compare, write_summary
from jointsearch.report.metric_facts import ACCURACY, MetricFacts, metric_facts
from jointsearch.report.page import write_report
from jointsearch.report.results_writer import write_results
from search_spaces.errors import InputError
from tests.report_bench import Page, edit, write_run, write_training

ERROR = {"name": "error", "unit": "", "higher_is_better": False}
SEEDS = (0, 1, 2)
NAMING = ("b", "figcaption", "dt")  # the elements that name figures


def score(result: Path, metric: dict[str, Any], **scores: float) -> None:
    """Replace the accuracy of a result by the scores of another metric."""
    told = json.loads(result.read_text())
    others = {key: value for key, value in told.items() if "accuracy" not in key}
    result.write_text(json.dumps(others | {"metric": metric} | scores))


@pytest.fixture
def by_error(tmp_path: Path) -> Path:
    """A run that was scored by a share of errors, found: .021 .022 .023, none: .041 .043 .042, and selected epochs."""
    folder = write_run(tmp_path / "run", select_epoch="best")
    for seed, (found, none) in enumerate([(0.021, 0.041), (0.022, 0.043), (0.023, 0.042)]):
        for row, error in (("found", found), ("none", none)):
            write_training(folder / row / f"seed{seed}", seed, 0.0)
            scores = {"test_error_last": error, "test_error_selected": 0.1 if row == "found" else 0.01 * (seed + 1)}
            score(folder / row / f"seed{seed}" / "result.json", ERROR, **scores)
    for metrics in folder.glob("**/metrics.jsonl"):
        metrics.write_text(metrics.read_text().replace("validation_accuracy", "validation_error"))
    return folder


def no_accuracy(text: str) -> bool:
    return "accuracy" not in text.lower() and "%" not in text.replace("95% interval", "")


def test_of_an_error_the_lowest_row_comes_first_and_is_better(
    by_error: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("compare", [f"{by_error}", "format=markdown"]) == 0
    printed = capsys.readouterr().out
    # Differences -.020 -.021 -.019: sd .001, and t(0.975, 2) = 4.30265 makes an interval of .00248.
    assert printed.splitlines()[:6] == [
        "| policy | test error last (lower is better) | seeds | minus none, paired (95% interval) | |",
        "|---|---|---|---|---|",
        "| found | 0.02200 ± 0.00100 | 3 | -0.02000 ± 0.00248 | better |",
        "| none | 0.04200 ± 0.00100 | 3 |  |  |",
        "",
        "found is better than none by 0.02000 (0.01752 to 0.02248, 3 seeds).",
    ]
    assert no_accuracy(printed)
    assert run("compare", [f"run={by_error}", "metric=selected", "baseline=found", "format=markdown"]) == 0
    selected = capsys.readouterr().out
    assert selected.splitlines()[2:4] == [
        "| none | 0.0200 ± 0.0100 | 3 | -0.0800 ± 0.0248 | better |",
        "| found | 0.1000 ± 0.0000 | 3 |  |  |",
    ]


def test_what_is_higher_than_the_baseline_is_worse_where_less_is_better(by_error: Path) -> None:
    assert "| none | 0.04200 ± 0.00100 | 3 | +0.02000 ± 0.00248 | worse |" in compare(
        [by_error], baseline="found"
    ).to_markdown().replace("\n", " |\n")


def test_the_summary_and_the_results_file_keep_the_metric(by_error: Path, tmp_path: Path) -> None:
    assert write_summary(by_error) == (by_error / "summary.md").read_text()
    data = json.loads((by_error / "summary.json").read_text())
    assert (data["metric"], data["unit"], data["higher_is_better"]) == ("test_error_last", "", False)
    assert [row["policy"] for row in data["rows"]] == ["found", "none"]
    write_results([by_error], tmp_path / "results.jsonl")
    assert compare([tmp_path / "results.jsonl"]) == compare([by_error])
    assert no_accuracy((tmp_path / "results.jsonl").read_text())


def test_the_page_shows_the_metric_and_no_other(by_error: Path) -> None:
    page = Page(write_report(by_error))
    head = ["policy", "test error last (lower is better)", "seeds", "minus none, paired (95% interval)", ""]
    comparison = [row for row in page.rows if row[0] in ("policy", "found", "none")]
    assert comparison[0] == [*head, "each seed, 0.0210 to 0.0430"]
    assert [row[0] for row in comparison[1:]] == ["found", "none"]
    assert comparison[1][4] == "better"
    assert ["seed", "selected epoch", "validation error"] in [row[:3] for row in page.rows]
    assert "had its best validation error" in page.text
    charts = [given["aria-label"] for name, given in page.elements if given.get("class") == "chart"]
    assert charts[0] == "error of every row over the seconds of its search and training"
    assert charts[1].startswith("seed 0: Validation error; ")
    assert "accuracy" not in page.html.lower()
    assert all(no_accuracy(cell) for row in page.rows for cell in row)
    named = [
        text.replace("Share of images on which an op acts, %", "") for place, text in page.texts if place in NAMING
    ]
    assert all(map(no_accuracy, named))


def test_a_search_alone_shows_what_its_epochs_were_scored_by(by_error: Path) -> None:
    for result in by_error.glob("*/seed*/result.json"):
        result.unlink()
    page = Page(write_report(by_error))
    assert page.rows[0][2] == "validation error"
    assert "accuracy" not in page.html.lower()
    assert "No training is finished yet." in page.text
    assert compare([by_error]).to_markdown().startswith("No training is finished yet.\n\nNot finished, left out: found")


def test_trainings_that_were_scored_by_different_metrics_are_refused(by_error: Path) -> None:
    score(by_error / "none" / "seed1" / "result.json", {**ERROR, "unit": "%"}, test_error_last=4.0)
    said = r"found/seed0 was scored by error \(lower is better\) and .*none/seed1 by error \(in %, lower is better\)"
    with pytest.raises(InputError, match=f"{said}; compare only trainings"):
        compare([by_error])
    assert "Not compared: " in Page(write_report(by_error)).text


def test_results_that_name_no_metric_were_scored_by_accuracy_in_percent(tmp_path: Path) -> None:
    assert metric_facts({"test_accuracy_last": 1.0}, "here") == MetricFacts("accuracy", "%", higher_is_better=True)
    write_training(tmp_path / "none" / "seed0", 0, 80.0)
    write_training(tmp_path / "found" / "seed0", 0, 81.0)
    now = {"name": "accuracy", "unit": "%", "higher_is_better": True}
    edit(tmp_path / "none" / "seed0" / "result.json", metric=now)
    comparison = compare([tmp_path])
    assert comparison.metric == ACCURACY
    assert [row.policy for row in comparison.rows] == ["found", "none"]
    assert comparison.to_markdown().startswith("| policy | test accuracy last, % | seeds |")
    assert comparison == compare([tmp_path], metric="test_accuracy_last")


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("test_accuracy_last", "did you mean test_error_last"),
        ("latest", "did you mean last"),
        ("accuracy", "choose one of last, selected, test_error_last, test_error_selected"),
    ],
)
def test_another_score_than_the_results_have_is_refused(metric: str, said: str, by_error: Path) -> None:
    assert compare([by_error], "test_error_selected") == compare([by_error], "selected")
    with pytest.raises(InputError, match=f"metric is '{metric}'; {said}"):
        compare([by_error], metric)


@pytest.mark.parametrize(
    "told",
    [
        "error",
        None,
        {},
        {**ERROR, "name": ""},
        {**ERROR, "name": "a\nb"},
        {**ERROR, "unit": None},
        {**ERROR, "higher_is_better": 0},
    ],
)
def test_a_metric_that_is_not_described_is_an_error(told: Any, by_error: Path) -> None:
    edit(by_error / "found" / "seed0" / "result.json", metric=told)
    with pytest.raises(InputError, match=r"found/seed0 has the metric .*; wanted name, unit, higher_is_better"):
        compare([by_error])
    assert run("report", [f"run={by_error}"]) == 2


def test_numbers_have_as_many_decimals_as_the_largest_needs() -> None:
    plain, percent = MetricFacts("error"), MetricFacts("error", "%")
    assert [plain.decimals([value]) for value in (0.0123, 0.5, -1.2, 81.6, 12345.0, 0.0)] == [5, 4, 3, 2, 0, 2]
    assert [percent.decimals([value]) for value in (0.0123, 81.6, 100.0)] == [2, 2, 2]
