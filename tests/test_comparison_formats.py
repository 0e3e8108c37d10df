"""Every format of a comparison holds its figures, and what each row cost."""

import csv
import io
import json
import re
from pathlib import Path

import pytest

from jointsearch.commands.command import run
from jointsearch.report.alike import tables_of
from jointsearch.report.comparison import compare
from jointsearch.report.comparison_formats import FORMATS, to_csv, to_latex, to_markdown, to_text
from jointsearch.report.comparisons import compare_all
from jointsearch.report.ledger import Cost, iterations, ledger
from jointsearch.report.trainings_found import sources_of
from tests.conftest import REPOSITORY
from tests.test_comparisons import CELLS, JOINT, POLICY, around, search, train


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study on digits, of which `found` has scores beside the accuracy."""
    search(tmp_path, JOINT, (0, 1, 2), "search=joint")
    train(tmp_path, "none", around(50.0, 0.0, 1.0, 2.0))
    train(tmp_path, "found", around(52.0, 0.0, 1.1, 1.9))
    for seed, error in enumerate((4.0, 5.0, 6.0)):
        for row, more in (("found", 0.0), ("none", 1.9 + 0.1 * seed)):
            beside = {"calibration_error": error + more, "macro_f1": 50.0 + seed, "accuracy/cat": 10.0 * seed}
            path = tmp_path / row / f"seed{seed}" / "result.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | {"test_scores_last": beside}))
    return tmp_path


def read_csv(text: str) -> dict[tuple[str, str], dict[str, str]]:
    return {(row["policy"], row["metric"]): row for row in csv.DictReader(io.StringIO(text))}


# Scores beside the accuracy


def test_another_score_is_compared_in_its_own_direction(study: Path) -> None:
    found = compare([study], metric="calibration_error")
    assert [row.policy for row in found.rows] == ["found", "none"]  # the lowest first
    difference = found.differences["found"]
    assert (difference.mean, difference.verdict) == (pytest.approx(-2.0), "better")
    assert "test calibration error last, % (lower is better)" in found.to_markdown()
    f1 = compare([study], metric="macro_f1")
    assert (f1.metric.higher_is_better, f1.differences["found"].mean) == (True, 0.0)
    assert compare([study], metric="accuracy/cat").rows[0].values == {0: 0.0, 1: 10.0, 2: 20.0}


def test_a_score_that_no_result_has_names_those_that_there_are(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compare", [str(study), "metric=macro_f2"]) == 2
    assert "metric is 'macro_f2'; did you mean macro_f1" in capsys.readouterr().err
    path = study / "none" / "seed1" / "result.json"
    path.write_text('{"test_accuracy_last": 51.0}')
    assert run("compare", [str(study), "metric=macro_f1"]) == 2
    assert "none/seed1 has no number test_macro_f1_last; choose another metric" in capsys.readouterr().err
    assert run("compare", [str(study)]) == 0
    assert re.search(r"^none +7\.00 +51\.00$", capsys.readouterr().out, re.MULTILINE)  # of the two that have it


# Formats


def test_text_is_aligned_and_says_verdict_and_cost(study: Path) -> None:
    assert to_text(compare_all([study])).splitlines()[:5] == [
        "policy  test accuracy last, %  seeds  minus none, paired (95% interval)  verdict",
        "------  ---------------------  -----  ---------------------------------  -------",
        "found   53.00 ± 0.95           3      +2.00 ± 0.25                       better",
        "none    51.00 ± 1.00           3",
        "",
    ]
    assert "found is better than none by 2.00 points (1.75 to 2.25, 3 seeds)." in to_text(compare_all([study]))


def test_the_example_of_the_docs_is_what_is_printed(tmp_path: Path) -> None:
    for row, scores in {"none": (50, 51, 52), "found": (52, 53.1, 53.9), "trivialaugment": (53, 51, 54)}.items():
        train(tmp_path, row, around(0.0, *scores))
    text = (REPOSITORY / "docs" / "get_started.md").read_text(encoding="utf-8")
    [shown] = re.findall(r"```\n(policy .*?)```", text, re.DOTALL)
    printed = to_text(compare_all([tmp_path])).splitlines()
    assert len(shown.splitlines()) == 7
    assert [line for line in printed if line in shown.splitlines() and line] == [
        one for one in shown.splitlines() if one
    ]


def test_markdown_begins_as_the_summary_of_a_run_and_every_row_has_all_columns(study: Path) -> None:
    written = to_markdown(compare_all([study]))
    assert written.startswith(compare([study]).to_markdown())
    for table in re.findall(r"(?:^\|.*\n)+", written, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1
    assert "| policy | calibration error | macro f1 |" in written
    assert "accuracy/cat" not in written  # single classes are for metric= and CSV


def test_latex_escapes_names_and_has_as_many_cells_as_columns(study: Path) -> None:
    (study / "none").rename(study / r"no_ne&50%#$\x{y}~^")
    train(study.parent / f"{study.name}_shapes", "found", {0: 50.0}, "shapes")
    for sources in ([study], [study, study.parent / f"{study.name}_shapes"]):
        written = to_latex(compare_all(sources))
        name = r"no\_ne\&50\%\#\$\textbackslash{}x\{y\}\textasciitilde{}\textasciicircum{}"
        assert name in written
        for columns, body in re.findall(r"\\begin\{tabular\}\{(l+)\}(.*?)\\end\{tabular\}", written, re.DOTALL):
            assert body.count(r"\toprule") == body.count(r"\midrule") == body.count(r"\bottomrule") == 1
            for line in (line for line in body.splitlines() if line.endswith(r"\\") and "multicolumn" not in line):
                assert len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1
            spans = [int(count) for count in re.findall(r"\\multicolumn\{(\d)\}", body)]
            assert sum(spans) in (0, len(columns))


def test_csv_has_every_score_with_its_figures_costs_and_seeds(study: Path) -> None:
    told = read_csv(to_csv(compare_all([study], correction="holm")))
    scores = {"test_accuracy_last", "test_calibration_error_last", "test_macro_f1_last", "test_accuracy/cat_last"}
    assert told.keys() == {(row, score) for row in ("found", "none") for score in scores}
    found = told["found", "test_accuracy_last"]
    assert [float(found[name]) for name in ("mean", "seeds", "difference", "shared_seeds")] == pytest.approx(
        [53, 3, 2, 3]
    )
    assert (found["data"], found["baseline"], found["verdict"], found["correction"]) == (
        "digits",
        "none",
        "better",
        "holm",
    )
    assert [float(found[f"seed_{seed}"]) for seed in range(3)] == [52.0, 53.1, 53.9]
    assert float(found["half_width"]) == pytest.approx(0.248414, rel=1e-4)
    assert float(told["found", "test_calibration_error_last"]["difference"]) == -2.0
    assert told["found", "test_calibration_error_last"]["higher_is_better"] == "False"
    assert float(found["search_seconds"]) == 30.0
    by_f1 = to_csv(compare_all([study], metric="macro_f1")).splitlines()
    assert read_csv("\n".join(by_f1)).keys() == told.keys()
    assert len(by_f1) == 1 + len(told)  # the chosen score stands there once
    assert (told["none", "test_accuracy_last"]["search_seconds"], float(found["training_images"])) == ("", 400.0)


@pytest.mark.parametrize("form", FORMATS)
def test_the_command_takes_several_runs_and_writes_a_file(
    form: str, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "sweep" / "search=joint,seeds=0"  # the name of a folder that looks like a setting
    train(other, "other", around(40.0, 0.0, 1.0, 2.0))
    words = [str(study), "sweep/search=joint,seeds=0", "baseline=none", f"format={form}"]
    assert run("compare", [*words, "out=table"]) == 0
    assert capsys.readouterr().out == "Written to table\n"
    written = (tmp_path / "table").read_text()
    assert written == FORMATS[form](compare_all([study, other]))
    assert "other" in written
    assert run("compare", words) == 0
    assert capsys.readouterr().out == written
    assert run("compare", [*words, "out=missing/table"]) == 2
    assert "missing/table cannot be written" in capsys.readouterr().err
    assert run("compare", [*words, f"run={study}"]) == 2
    assert "give all of them without run=" in capsys.readouterr().err


def test_what_is_not_finished_is_no_table(tmp_path: Path) -> None:
    train(tmp_path, "none", {0: None})
    for form, write in FORMATS.items():
        written = write(compare_all([tmp_path]))
        assert ("No training is finished yet." in written) == (form != "csv")


# Costs


def test_costs_are_those_of_the_searches_and_trainings_of_a_row(tmp_path: Path) -> None:
    # A search: 8 epochs of 2 steps of 25 images, 480 passes, 30 s. A training: 4 epochs of 100 images in batches of
    # 32, so 4 steps of 3 passes each: 48. It takes 10 s + seed.
    search(tmp_path / "policy", POLICY, (0, 1))
    search(tmp_path, CELLS, (0, 1))
    train(tmp_path, "found", {0: 50.0, 1: 51.0, 2: None})
    train(tmp_path, "none", {0: 50.0})
    [alike] = tables_of(sources_of([tmp_path]))
    found, none = ledger(alike)
    assert found.search == Cost(60.0, 800.0, 960.0)  # of both stages
    assert found.training == Cost(10.5, 400.0, 48.0)
    assert (none.search, none.training) == (None, Cost(10.0, 400.0, 48.0))


def test_a_figure_that_a_result_lacks_is_no_cost(tmp_path: Path) -> None:
    train(tmp_path, "none", {0: 50.0, 1: 50.0})
    path = tmp_path / "none" / "seed1" / "result.json"
    path.write_text('{"test_accuracy_last": 51.0, "seconds": 20.0}')
    [costs] = ledger(tables_of(sources_of([tmp_path]))[0])
    assert costs.training == Cost(15.0, None, None)
    assert re.search(r"^none +15 +- +-$", to_text(compare_all([tmp_path])), re.MULTILINE)


def test_the_account_of_ohl_auto_aug_is_worked_out_by_hand() -> None:
    # Table 4 of Lin et al. (2019): 7.03e6 and 1.17e5 on CIFAR-10, 1.76e7 and 7.5e5 on ImageNet; 60 and 24 times.
    assert iterations(trainings=15_000, epochs=120, images=4_000) == 7_200_000_000 / 1024 == 7_031_250
    assert iterations(trainings=8, epochs=300, images=50_000) == 120_000_000 / 1024 == 117_187.5
    assert iterations(trainings=15_000, epochs=200, images=6_000) == 18_000_000_000 / 1024 == 17_578_125
    assert iterations(trainings=4, epochs=150, images=1_280_000) == 768_000_000 / 1024 == 750_000
