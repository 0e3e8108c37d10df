"""Confusions and worst mistakes by hand; images that were shown once stay in the run folder; a gallery is diverse."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from jointsearch.commands.command import run
from jointsearch.data.datasets import Folder
from jointsearch.data.load import load_splits
from jointsearch.loops.grid import plain_dataset
from jointsearch.report.page import write_report
from jointsearch.report.page_gallery import diverse
from jointsearch.report.page_mistakes import read_predictions, worst_mistakes
from jointsearch.report.page_run import read_run
from search_spaces.errors import InputError
from search_spaces.policy import OpChoice, Policy, SubPolicy
from tests.report_bench import DIGITS, HOSTILE, SEEDS, Page, edit, write, write_run

CLASSES = ["cat", "dog", "fish"]
KEPT = "pictures.safetensors"


def told(
    labels: list[int], predicted: list[int], confidence: list[float], classes: list[str] = CLASSES
) -> dict[str, Any]:
    return {"classes": classes, "labels": labels, "predicted": predicted, "confidence": confidence}


def with_predictions(folder: Path, *by_seed: dict[str, Any], row: str = "found") -> Path:
    write_run(folder)
    for seed, one in enumerate(by_seed):
        write(folder / row / f"seed{seed}" / "predictions.json", one)
    return folder


TWO_SEEDS = (
    told([0, 0, 1, 1, 2], [0, 1, 1, 0, 2], [0.9, 0.6, 0.8, 0.7, 0.5]),
    told([0, 0, 1, 1, 2], [0, 1, 1, 1, 0], [0.9, 0.4, 0.8, 0.7, 0.95]),
)


def test_the_matrix_counts_both_seeds_of_the_best_row_in_percent_of_a_class(tmp_path: Path) -> None:
    page = Page(write_report(with_predictions(tmp_path, *TWO_SEEDS)))
    head = next(place for place, cells in enumerate(page.rows) if cells[0] == "true class")
    assert page.rows[head + 1 : head + 4] == [
        ["cat", "50", "50", "", "4"],
        ["dog", "25", "75", "", "4"],
        ["fish", "50", "", "50", "2"],
    ]
    assert "Of row found, the best one, 2 seeds:" in page.text


def test_the_worst_mistakes_are_the_most_confident_and_each_image_stands_once(tmp_path: Path) -> None:
    trainings = read_run(with_predictions(tmp_path, *TWO_SEEDS)).trainings
    read = [one for part in trainings if (one := read_predictions(part)) is not None]
    assert [(one.row, one.label, one.predicted, one.confidence, one.seeds) for one in worst_mistakes(read)] == [
        (4, "fish", "cat", 0.95, 1),
        (3, "dog", "cat", 0.7, 1),
        (1, "cat", "dog", 0.6, 2),
    ]
    assert [one.row for one in worst_mistakes(read, most=1)] == [4]


def test_of_many_classes_the_pairs_that_are_confused_most_are_told(tmp_path: Path) -> None:
    classes = [f"class {n}" for n in range(30)]
    labels, predicted = [0] * 8 + [1] * 2 + [2], [1] * 6 + [0] * 2 + [2] * 2 + [2]
    page = Page(write_report(with_predictions(tmp_path, told(labels, predicted, [0.5] * 11, classes))))
    head = page.rows.index(["true class", "taken for", "images", "of its class"])
    assert page.rows[head + 1 : head + 3] == [
        ["class 0", "class 1", "6", "75.0%"],
        ["class 1", "class 2", "2", "100.0%"],
    ]


def digits_mistakes(folder: Path) -> tuple[Path, torch.Tensor, list[int]]:
    """A run on digits whose network takes every test image for its label, but two."""
    test = load_splits(DIGITS, 0).test
    labels = test.labels.tolist()
    predicted, confidence = list(labels), [0.5] * len(labels)
    wrong = [700, 3]
    for place, row in enumerate(wrong):
        predicted[row], confidence[row] = (labels[row] + 1) % 10, 0.9 - place / 10
    classes = [str(digit) for digit in range(10)]
    return with_predictions(folder, told(labels, predicted, confidence, classes)), test.images[wrong], labels


def test_the_worst_mistakes_are_shown_as_the_test_images_that_they_are(tmp_path: Path) -> None:
    folder, images, labels = digits_mistakes(tmp_path)
    page = Page(write_report(folder))
    assert np.array_equal(np.stack(page.images()[-2:]), images[:, 0].numpy())
    assert f"{(labels[700] + 1) % 10}\n 90%\nis {labels[700]}" in page.text
    # The labels of other test images: none of them may be shown.
    write(
        folder / "found" / "seed0" / "predictions.json", told(labels[1:], labels[:-1], [0.5] * 748, list("0123456789"))
    )
    (folder / KEPT).unlink()
    page = Page(write_report(folder))
    assert "The test images were not found again" in page.text
    assert len(page.images()) == len(SEEDS) * 3 * 8


def test_no_class_name_becomes_markup(tmp_path: Path) -> None:
    classes = [HOSTILE, "<script>alert(1)</script>", "b" * 200]
    page = Page(write_report(with_predictions(tmp_path, told([0, 1, 2], [1, 2, 0], [0.9] * 3, classes))))
    assert [row[0] for row in page.rows if row[0] in classes] == classes
    assert "<script" not in page.html


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": [0]}, "it has 1 labels, 2 predicted and 2 confidence"),
        ({"predicted": [0, 3]}, "predicted holds what is no place in its 3 classes"),
        ({"labels": [0, True]}, "labels holds what is no place in its 3 classes"),
        ({"confidence": [0.5, 2.0]}, "confidence holds what is no probability"),
        ({"confidence": [0.5, None]}, "confidence holds what is no probability"),
        ({"classes": [1, 2, 3]}, "its classes are no names"),
        ({"labels": None}, "it has no lists classes, labels, predicted, confidence"),
    ],
)
def test_damaged_predictions_are_one_line_that_says_why(
    change: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = with_predictions(tmp_path, told([0, 1], [1, 1], [0.5, 0.5]) | change)
    assert run("report", [f"run={folder}"]) == 2
    error = capsys.readouterr().err
    assert f"found/seed0/predictions.json cannot be used: {said}; restore it or remove it" in error
    assert error.count("\n") == 1


def photos(folder: Path) -> Folder:
    """100 photos of two classes, each of one color."""
    for place, label in enumerate("ab"):
        (folder / label).mkdir(parents=True)
        for number in range(50):
            Image.new("RGB", (8, 8), (number, 100 * place, 7)).save(folder / label / f"{number:02}.png")
    return Folder(path=str(folder), image_size=8, validation=0)


def run_on_photos(folder: Path, settings: Folder) -> Path:
    write_run(folder)
    for path in (*folder.glob("search-*"), *folder.glob("*/seed*")):
        train = 40 if "search" in path.name else 80
        data = {"train": train, "validation": 40, "digest": path.name}
        edit(path / "settings.json", dataset=plain_dataset(settings), data=data)
    test = load_splits(settings, 0).test
    labels = test.labels.tolist()
    one = told(labels, [1 - label for label in labels], [0.9] * len(labels), ["a", "b"])
    write(folder / "found" / "seed0" / "predictions.json", one)
    return folder


def test_photos_that_were_shown_once_are_shown_again_without_the_data(tmp_path: Path) -> None:
    settings = photos(tmp_path / "photos")
    folder = run_on_photos(tmp_path / "run", settings)
    given = ["dataset=folder", f"dataset.path={settings.path}", "dataset.image_size=8", "dataset.validation=0"]
    assert run("report", [f"run={folder}", *given]) == 0
    first = (folder / "report.html").read_bytes()
    assert b"The pictures are of training images of photos." in first
    assert run("report", [f"run={folder}"]) == 0
    assert (folder / "report.html").read_bytes() == first
    # 8 training images and 12 mistakes of 8x8 pixels, and no more.
    assert (folder / KEPT).stat().st_size < 20 * 8 * 8 * 3 + 1000
    assert str(tmp_path).encode() not in (folder / KEPT).read_bytes() + first


def test_kept_images_of_other_data_are_not_shown(tmp_path: Path) -> None:
    folder = run_on_photos(tmp_path / "run", settings := photos(tmp_path / "photos"))
    write_report(folder, settings)
    for path in folder.glob("**/settings.json"):
        told_of = json.loads(path.read_text())
        edit(path, data=told_of["data"] | {"digest": "another"})
    page = Page(write_report(folder))
    assert "the images of photos were not found again" in page.text
    assert "The test images were not found again" in page.text


def test_kept_images_that_are_damaged_are_an_error_with_a_remedy(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    write_report(folder)
    (folder / KEPT).write_bytes((folder / KEPT).read_bytes()[:-1])
    with pytest.raises(InputError, match=r"pictures\.safetensors is damaged; remove it, and give dataset="):
        write_report(folder)


def choices(*ops: str) -> Policy:
    return Policy(tuple(SubPolicy((OpChoice(op, 1.0, 0.5),), 10.0 - place) for place, op in enumerate(ops)))


def test_at_most_two_rows_begin_with_one_op_as_long_as_there_are_others() -> None:
    policy = choices(*["Rotate"] * 5, "ShearX", "ShearX", "ShearY")
    assert diverse(policy, 5) == [0, 1, 5, 6, 7]
    assert diverse(policy, 6) == [0, 1, 2, 5, 6, 7]
    assert diverse(choices(*["Rotate"] * 5), 4) == [0, 1, 2, 3]
