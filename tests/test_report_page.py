"""The report is one file that asks for nothing, escapes what it shows, and says what the folders carry, no more."""

import base64
import hashlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jointsearch.commands.command import run
from jointsearch.data.datasets import Folder
from jointsearch.data.load import load_search_splits
from jointsearch.estimators.reinforce import ReinforceSettings
from jointsearch.loops.grid import plain_dataset
from jointsearch.protocols import SearcherSettings
from jointsearch.report.comparison import compare
from jointsearch.report.contact_sheet import photo_images
from jointsearch.report.page import write_report
from jointsearch.report.page_html import tag
from jointsearch.search_kinds import PolicyOnly
from jointsearch.searchers.differentiable import Differentiable
from jointsearch.searchers.random import RandomSearch
from jointsearch.searchers.rewards import Rewards
from jointsearch.searchers.table import Table, Trials
from search_spaces.errors import InputError
from search_spaces.genotype import Genotype
from tests.conftest import REPOSITORY
from tests.report_bench import (
    DIGITS,
    HOSTILE,
    SEEDS,
    Page,
    edit,
    write,
    write_hostile_run,
    write_metrics,
    write_run,
    write_search,
    write_training,
    write_trainings,
)


def written(folder: Path) -> Page:
    return Page(write_report(folder))


def without_training(folder: Path) -> Path:
    write_run(folder)
    shutil.rmtree(folder / "none")
    shutil.rmtree(folder / "found")
    return folder


def unfinished(folder: Path) -> Path:
    """Killed in the second epoch of the second search; nothing else was begun."""
    for seed in SEEDS:
        write_search(folder / f"search-seed{seed}", seed, "joint")
    for name in ("result.json", "policy.json", "genotype.json"):
        (folder / "search-seed1" / name).unlink()
    metrics = folder / "search-seed1" / "metrics.jsonl"
    lines = metrics.read_text().splitlines()
    metrics.write_text(f"{lines[0]}\n{lines[1][:20]}")
    return folder


def just_begun(folder: Path) -> Path:
    write_search(folder / "search-seed0", 0)
    for path in (folder / "search-seed0").iterdir():
        if path.name not in ("settings.json", "birth.json"):
            path.unlink()
    return folder


def only_trainings(folder: Path) -> Path:
    write_trainings(folder, (0, 1, 2))
    return folder


RUNS: dict[str, Callable[[Path], Path]] = {
    **{
        name: lambda folder, name=name: write_run(folder, name)
        for name in ("joint", "policy", "architecture", "separate")
    },
    "hostile": write_hostile_run,
    "without_training": without_training,
    "unfinished": unfinished,
    "just_begun": just_begun,
    "only_trainings": only_trainings,
}


@pytest.mark.parametrize("make", RUNS.values(), ids=RUNS.keys())
def test_the_page_is_well_formed_and_holds_nothing_that_runs_or_loads(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    page = written(make(tmp_path))
    styles = [data for place, data in page.texts if place == "style"]
    assert len(styles) == 1
    assert not re.search(r"url\(|@import|expression|</", styles[0])
    digest = base64.b64encode(hashlib.sha256(styles[0].encode()).digest()).decode()
    policies = [
        given["content"] for name, given in page.elements if given.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policies == [
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    ]
    assert page.html.index("Content-Security-Policy") < page.html.index("<title>") < page.html.index("<style>")
    kinds = {given["src"].partition(",")[0] for name, given in page.elements if name == "img"}
    assert kinds <= {"data:image/png;base64", "data:image/jpeg;base64"}


def test_no_name_in_a_file_becomes_markup(tmp_path: Path) -> None:
    page = written(write_hostile_run(tmp_path / HOSTILE))
    for place in ("title", "h1", "p", "dd", "td", "b", "span", "summary"):
        assert any(HOSTILE in text for where, text in page.texts if where == place), place
    assert any(HOSTILE[:-3] in text for where, text in page.texts if where == "pre")  # JSON escapes the quotes
    assert any(HOSTILE in given.get("aria-label", "") for name, given in page.elements if name == "svg")


def test_marks_that_turn_the_writing_and_halves_of_letters_are_shown_and_not_obeyed() -> None:
    assert tag("p", "a\u202eb\x00c\udcffd\x1be\n") == "<p>a\ufffdb\ufffdc\ufffdd\ufffde\n</p>"


def test_markup_is_made_in_one_module_only() -> None:
    for path in (REPOSITORY / "jointsearch" / "report").glob("page*.py"):
        if path.name != "page_html.py":
            assert not re.search(r"Html\(|</?[a-z]", path.read_text()), path.name


def test_text_and_attributes_are_escaped_and_html_is_not() -> None:
    made = tag("p", "a < b & c", tag("b", '"'), title="\"'<")
    assert made == '<p title="&quot;&#x27;&lt;">a &lt; b &amp; c<b>&quot;</b></p>'


def test_the_table_says_what_the_comparison_says(tmp_path: Path) -> None:
    write_trainings(tmp_path, (0, 1, 2, 3))
    (tmp_path / "found" / "seed3" / "result.json").unlink()
    page = written(tmp_path)
    lines = compare([tmp_path]).to_markdown().splitlines()[2:4]
    wanted = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    # The last column, every seed as a dot, is the page's own.
    assert [row[:-1] for row in page.rows[1:3]] == wanted
    assert wanted[0] == ["found", "82.20 ± 1.20", "3", "+1.20 ± 0.50", "better"]
    assert "Not finished, left out: found/seed3." in page.text
    assert (
        "Every network was trained for 4 epochs on 300 images. The network of the last epoch was measured on 749 test"
        in page.text
    )


def test_it_explains_the_rows_and_figures_that_it_shows_and_no_others(tmp_path: Path) -> None:
    text = written(write_run(tmp_path)).text
    assert "Row found was trained with what the searches found, row none was trained without a policy.\n" in text
    assert "Sub-policies in use are" in text
    assert "Candidates in use are" not in text
    (tmp_path / "none").rename(tmp_path / "trivialaugment@random")
    text = written(tmp_path).text
    assert "Row found was trained with what the searches found. Rows without @ share their cells" in text


def test_two_seeds_claim_nothing(tmp_path: Path) -> None:
    page = written(write_run(tmp_path))
    assert ["found", "81.60 ± 0.85", "2", "+1.10 ± 1.27", "2 seeds: no claim", ""] in page.rows
    assert not [text for place, text in page.texts if place == "td" and text in ("better", "worse")]


def test_without_the_control_no_difference_is_told(tmp_path: Path) -> None:
    write_run(tmp_path)
    shutil.rmtree(tmp_path / "none")
    page = written(tmp_path)
    assert ["found", "81.60 ± 0.85", "2", "", "", ""] in page.rows
    assert "There is no finished training of none, so no differences are told." in page.text


def test_trainings_that_are_not_alike_are_not_compared(tmp_path: Path) -> None:
    write_run(tmp_path)
    edit(tmp_path / "none" / "seed1" / "settings.json", recipe={"epochs": 9})
    assert "Not compared: " in written(tmp_path).text
    assert "(recipe.epochs was 4, is 9)" in written(tmp_path).text


@pytest.mark.parametrize(
    ("select_epoch", "row", "rule"),
    [
        ("last", ["4 of 4", "80.00"], "Policy of the last epoch (select_epoch=last)"),
        ("best", ["2 of 4", "90.00"], "in which the searched network had its best validation accuracy"),
    ],
)
def test_it_says_which_epoch_was_selected_by_which_rule_and_how_good_it_was(
    select_epoch: str, row: list[str], rule: str, tmp_path: Path
) -> None:
    page = written(write_run(tmp_path, select_epoch=select_epoch))
    head = next(place for place, cells in enumerate(page.rows) if cells[0] == "seed")
    assert page.rows[head][:3] == ["seed", "selected epoch", "validation accuracy, %"]
    assert page.rows[head + 1][:3] == ["0", *row]
    assert rule in page.text


def test_it_says_what_the_search_cost(tmp_path: Path) -> None:
    page = written(write_run(tmp_path))
    assert "cost of all 2 seeds\n60.0 s, 2,400 forward-equivalents" in page.text
    assert (
        "The trainings took 40.0 s. The searches before them took 60.0 s more (2,400 forward-equivalents)." in page.text
    )
    # Shares .5 .3 .2 and .4 .35 .25 have the same order.
    assert "between seeds: +1.00 on average" in page.text


@pytest.mark.parametrize(
    ("searcher", "said"),
    [
        (
            Differentiable(rewards=Rewards(epsilon=0.0)),
            "searcher Differentiable, epsilon 0.0, statistics live, estimator Relax",
        ),
        (
            Differentiable(estimator=ReinforceSettings(), shuffled=True),
            "searcher Differentiable, estimator Reinforce, rewards shuffled (the control)",
        ),
        (Table(), "searcher Table"),
        (Trials(trial_steps=20), "searcher Trials, 20 steps with each op"),
        (RandomSearch(), "searcher RandomSearch"),
    ],
)
def test_it_says_by_what_was_searched_and_no_more(searcher: SearcherSettings, said: str, tmp_path: Path) -> None:
    write_run(tmp_path)
    (stage,) = PolicyOnly(searcher).stages()
    for seed in range(2):
        edit(tmp_path / f"search-seed{seed}" / "settings.json", search=stage.settings)
    assert f"method\n{said}\ndata" in written(tmp_path).text


def test_a_separate_search_shows_the_policy_before_the_cells(tmp_path: Path) -> None:
    page = written(write_run(tmp_path, "separate"))
    assert "Policy, then cells, searched on digits" in page.text
    headings = [text for place, text in page.texts if place in ("h3", "summary")]
    found = [f"{what} found on digits by seed {seed}" for what in ("Policy", "Cells") for seed in SEEDS]
    assert headings[:5] == [*found, "Policy"]


def test_what_is_not_finished_is_said_and_what_there_is_is_shown(tmp_path: Path) -> None:
    page = written(unfinished(tmp_path))
    assert "Not finished: search-seed1 (1 of 4 epochs)." in page.text
    assert "cost of the 1 finished of 2 seeds\n30.0 s, 1,200 forward-equivalents" in page.text
    assert page.rows[2][:2] == ["1", "not finished, 1 of 4 epochs"]
    assert "Nothing in this folder was trained with what was found" in page.text
    assert ("summary", "Policy and cells found on digits by seed 0") in page.texts
    assert ("summary", "Policy and cells found on digits by seed 1") not in page.texts


def test_a_run_that_has_just_begun_has_a_page(tmp_path: Path) -> None:
    assert "Not finished: search-seed0 (0 of 4 epochs)." in written(just_begun(tmp_path)).text


def test_the_policy_is_shown_on_training_images_of_the_search(tmp_path: Path) -> None:
    page = written(write_run(tmp_path))
    train = load_search_splits(DIGITS, 0).train
    originals = train.images[torch.tensor([int((i + 0.5) * 150 / 8) for i in range(8)]), 0].numpy()
    images = page.images()
    assert len(images) == len(SEEDS) * 3 * 8  # as they are, inverted, rotated
    assert np.array_equal(np.stack(images[:8]), originals)
    assert np.array_equal(np.stack(images[8:16]), 255 - originals)
    assert "The pictures are of training images of digits." in page.text
    assert "Invert\n p 1.00\n75.0% of images" in page.text
    assert "Rotate\n p 0.50, ±30.0 degrees\n25.0% of images" in page.text


def test_images_that_are_not_found_again_are_replaced_by_photos_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "run")
    # A folder of the recorded name lies here, but whose?
    monkeypatch.chdir(tmp_path)
    for label in "ab":
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(100):
            Image.new("RGB", (8, 8)).save(tmp_path / "images" / label / f"{number}.png")
    told = Folder(path="images", image_size=8, validation=0)
    for seed in SEEDS:
        edit(tmp_path / "run" / f"search-seed{seed}" / "settings.json", dataset=plain_dataset(told))
    page = written(tmp_path / "run")
    assert "the images of images were not found again" in page.text
    photo = photo_images()[0].permute(1, 2, 0).numpy()
    assert np.abs(page.images()[0] - photo.astype(float)).mean() < 5  # gray levels that JPEG changes
    with pytest.raises(InputError, match="has 80 training images and the run had 150; give the data set of the run"):
        write_report(tmp_path / "run", told)
    edit(tmp_path / "run" / "search-seed0" / "settings.json", data={"train": 80, "validation": 80})
    assert Page(write_report(tmp_path / "run", told)).images()[0].tolist() == np.zeros((8, 8, 3)).tolist()


def test_cells_are_drawn_and_written_as_darts_writes_them(tmp_path: Path) -> None:
    page = written(write_run(tmp_path, "architecture"))
    assert len(page.images()) == len(SEEDS)
    texts = [data for place, data in page.texts if place == "pre"]
    for seed in SEEDS:
        assert Genotype.load(tmp_path / f"search-seed{seed}" / "genotype.json").to_darts() in texts


def test_a_loss_that_is_no_number_leaves_a_gap(tmp_path: Path) -> None:
    write_training(tmp_path / "none" / "seed0", 0, 80.0)
    records = [
        {"epoch": epoch, "train_loss": loss} for epoch, loss in enumerate([2.0, "nan", True, None, 1.0], start=1)
    ]
    write_metrics(tmp_path / "none" / "seed0" / "metrics.jsonl", records)
    (curve,) = (given["points"] for name, given in written(tmp_path).elements if name == "polyline")
    assert curve == "48.0,8.0 290.0,120.0"


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    write_run(tmp_path)
    assert write_report(tmp_path).read_bytes() == write_report(tmp_path).read_bytes()


def test_it_says_where_the_figures_come_from(tmp_path: Path) -> None:
    write_run(tmp_path)
    edit(tmp_path / "found" / "seed1" / "birth.json", commit="other", date="2026-01-05T00:00:00+00:00")
    text = written(tmp_path).text
    assert "command\njoint_search.py seeds=[0,1]\ncommit\n0123456789ab, other\nhardware\na processor, 2 cores" in text
    assert "begun\n2026-01-02 03:04:05+00:00 to 2026-01-05 00:00:00+00:00" in text
    assert "Settings of search-seed0" in text


def test_the_script_writes_the_page_and_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path)
    assert run("report", [f"run={tmp_path}"]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/report.html\n"
    assert run("report", [f"run={tmp_path}", "dataset=digits"]) == 0


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        (None, None, "no search and no training found"),
        ("search-seed0/settings.json", [], "holds no object"),
        ("search-seed0/settings.json", {"seed": "0"}, "has no seed as runs have"),
        ("search-seed0/settings.json", {"seed": -1}, "has no seed as runs have"),
        ("search-seed0/result.json", 3, "holds no object"),
        ("search-seed0/birth.json", "x", "holds no object"),
        ("search-seed0/metrics.jsonl", None, "is not valid JSON"),
        ("search-seed0/policy.json", {}, "format is None"),
        ("search-seed0/genotype.json", {}, "format"),
        ("report.html/is/a/folder.json", {}, "cannot be written"),
    ],
)
def test_a_folder_that_is_no_run_or_is_damaged_gives_one_line_and_exit_code_two(
    file: str | None, content: object, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if file is not None:
        write_run(tmp_path)
        write(tmp_path / file, content)
        if file.endswith(".jsonl"):
            (tmp_path / file).write_text("{\n")
    assert run("report", [f"run={tmp_path}"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert said in printed.err
    assert not (tmp_path / "report.html").is_file()
