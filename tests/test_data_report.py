"""What the check says of data that are in order, and how it tells many equal findings."""

import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from jointsearch import Digits, Folder, Study
from jointsearch.commands import check_data as command
from jointsearch.commands.command import run
from jointsearch.compose import compose_words
from jointsearch.data.always_on import always_on
from jointsearch.data.check import check_data_report
from jointsearch.data.check_text import counted, grouped, kind
from jointsearch.data.datasets import Cifar10
from jointsearch.data.facts import class_facts
from jointsearch.data.files import Finding
from jointsearch.data.load import Loaded
from jointsearch.data.standard import PhotoStandard, ResizedCrop
from jointsearch.settings import build
from jointsearch.study import Prepared
from tests.folders_bench import classes, write_folder
from tests.images_bench import encoded


def photo(height: int, width: int, level: int) -> bytes:
    pixels = np.full((height, width, 3), level, np.uint8)
    pixels[0, 0] = 255 - level
    return encoded(pixels, "PNG")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """20 square photos of 70x70 and 10 of 70x100 pixels, 20 of class a and 10 of class b."""
    files = {f"a/{n}.png": photo(70, 70, n) for n in range(20)} | {f"b/{n}.png": photo(100, 70, n) for n in range(10)}
    return write_folder(tmp_path / "photos", files)


def report(path: Path, every: bool = False, **fields) -> list[str]:
    text, _ = check_data_report(Folder(path=str(path), workers=0, **fields), every)
    return [line.strip() for line in text.splitlines()]


def test_data_in_order_are_described(photos: Path) -> None:
    lines = report(photos, image_size=64)
    assert lines[0] == f"dataset=folder: {photos}"
    assert lines[1] == "30 images in 2 classes: a (20), b (10); the smallest b (10), the largest a (20)"
    # A fifth of 30 is 6, and a tenth of the other 24 is 2.
    assert lines[2].startswith(
        "training 22, validation 2, test 6 (held out: dataset.test_share=0.2, dataset.validation"
    )
    assert lines[3] == "pixels, width x height: 70x70 (20), 70x100 (10); 10 images not square"
    assert "images of 64x64 pixels, the middle square of each" in lines[4]
    assert "dataset.fit=pad keeps all of an image that is not square, dataset.fit=stretch distorts it" in lines
    assert any(
        line.startswith("dataset.standard.flip=true if an image keeps its class in the mirror") for line in lines
    )
    assert lines[-1] == "0 errors, 0 warnings"


def test_a_size_is_suggested_that_enlarges_at_most_a_tenth(photos: Path) -> None:
    assert any(line.startswith("dataset.image_size=64 brings them to one size") for line in report(photos))
    assert any(line.startswith("dataset.image_size=64: 96 enlarges 30 of 30") for line in report(photos, image_size=96))
    assert not any(line.startswith("dataset.image_size=") for line in report(photos, image_size=64))
    (photos / "a/small.png").write_bytes(photo(40, 40, 99))
    assert any(line.startswith("dataset.image_size=64 brings") for line in report(photos))
    for number in range(4):
        (photos / f"a/small{number}.png").write_bytes(photo(40, 40, 100 + number))
    assert any(line.startswith("dataset.image_size=32 brings") for line in report(photos))


def test_mean_and_std_are_measured_on_the_training_images(tmp_path: Path) -> None:
    digits = load_digits()
    train, test = digits.images[:60] * 15, digits.images[60:90] * 0
    files = {
        f"train/{digits.target[n]}/{n}.png": encoded(image.astype(np.uint8), "PNG") for n, image in enumerate(train)
    }
    files |= {
        f"test/{digits.target[n]}/{n}.png": encoded(image.astype(np.uint8), "PNG") for n, image in enumerate(test)
    }
    path, expected = write_folder(tmp_path, files), train.astype(np.uint8) / 255
    words = f"dataset.standard.mean=[{expected.mean():.3f}] dataset.standard.std=[{expected.std():.3f}]"
    assert f"{words} as measured here" in report(path, channels=1)
    standard = PhotoStandard(mean=(round(expected.mean(), 3),), std=(round(expected.std(), 3),))
    assert not any("as measured here" in line for line in report(path, channels=1, standard=standard))


def test_what_is_set_already_is_not_suggested(photos: Path) -> None:
    standard = PhotoStandard(flip=True, resized_crop=ResizedCrop(0.3))
    told = " ".join(report(photos, image_size=64, fit="pad", standard=standard))
    assert "flip=true" not in told
    assert "smallest=0.25" not in told
    assert "dataset.fit" not in told
    assert "crops of 30 to 100 % of the image, half of the images mirrored" in told


@pytest.mark.parametrize(("few", "is_told"), [(10, False), (9, True)])
def test_classes_are_uneven_from_more_than_twice_on(few: int, is_told: bool, tmp_path: Path) -> None:
    files = {f"a/{n}.png": photo(8, 8, n) for n in range(20)} | {f"b/{n}.png": photo(8, 8, 90 + n) for n in range(few)}
    path = write_folder(tmp_path, files)
    told = [line for line in report(path) if "dataset.balanced=true" in line]
    assert len(told) == is_told
    assert not is_told or f"has 20 of class a and {few} of class b" in told[0]
    assert not any("dataset.balanced=true" in line for line in report(path, balanced=True))


def test_equal_findings_are_told_once_with_three_files_or_all(tmp_path: Path) -> None:
    broken = {f"a/bad{n}.png": b"text" for n in range(6)}
    path = write_folder(tmp_path, {**classes(), **broken})
    lines = report(path, channels=None)
    at = next(place for place, line in enumerate(lines) if line.startswith("error, 6 times: is "))
    assert all(line.startswith(f"{path}/a/bad{n}.png is ") for n, line in enumerate(lines[at + 1 : at + 4]))
    assert lines[at + 4] == "and 3 more; all=true lists them"
    every = report(path, every=True, channels=None)
    assert sum("bad" in line and line.startswith(str(path)) for line in every) == 6
    assert lines[-1] == every[-1] == "6 errors, 0 warnings"


def test_the_word_that_leaves_broken_images_out_makes_a_sound_data_set(tmp_path: Path, capsys) -> None:
    files = {**classes(), "a/my photo.png": b"", "b/x.png": b"text"}
    words = ["dataset=folder", f"dataset.path={write_folder(tmp_path, files)}", "dataset.channels=null"]
    assert run("check_data", words) == 2
    again = report(Path(words[1].partition("=")[2]), channels=None, skip=("a/my photo.png",))
    assert again[-2] == "to train without 1 broken image: \"dataset.skip=['a/my photo.png','b/x.png']\""
    [line] = [
        one for one in capsys.readouterr().out.splitlines() if one.startswith("to train without 2 broken images: ")
    ]
    [word] = shlex.split(line.partition(": ")[2])
    assert run("check_data", [*words, word]) == 0
    assert "20 images in 2 classes" in capsys.readouterr().out
    given = build(command.Settings, compose_words("check_data", [*words, word]).values)
    assert given.dataset.skip == ("a/my photo.png", "b/x.png")  # type: ignore[attr-defined]


def test_one_image_of_a_class_is_told_to_add_images(tmp_path: Path) -> None:
    path = write_folder(tmp_path, {f"{name}/0.png": photo(8, 8, ord(name)) for name in "abcdefghij"})
    [told] = [line for line in report(path) if line.startswith("error")]
    assert "has no image left for training; add images of it: there is 1, and it takes one for training" in told
    assert "reduced" not in told


def test_many_classes_are_told_by_the_smallest_and_the_largest() -> None:
    names = [f"k{label}" for label in range(20)]
    labels = [label for label in range(20) for _ in range(label + 1)]
    assert class_facts(names, labels) == (
        "210 images in 20 classes: the smallest k0 (1), k1 (2), k2 (3); the largest k19 (20), k18 (19), k17 (18)"
    )


def test_findings_that_differ_in_what_they_name_are_equal() -> None:
    copies = [
        Finding("warning", f"{n}.png", f"has the same pixels as {n}{n}.png; remove one", f"{n}{n}.png") for n in "123"
    ]
    assert {kind(one) for one in copies} == {"has the same pixels as ...; remove one"}
    assert kind(Finding("error", "x", "is cut off (a (12 bytes) b); remove it")) == "is cut off; remove it"
    assert (
        kind(Finding("error", "x", "the box [1, 2, 1, 2] has no size; left out")) == "the box ... has no size; left out"
    )
    assert grouped(copies)[0] == "warning, 3 times: has the same pixels as ...; remove one"
    assert grouped(copies[:1]) == ["warning: 1.png has the same pixels as 11.png; remove one"]


@pytest.mark.parametrize(("count", "words"), [(0, "0 errors"), (1, "1 error"), (2062, "2,062 errors")])
def test_one_is_not_plural(count: int, words: str) -> None:
    assert counted(count, "error") == words
    assert counted(2, "class") == "2 classes"


def test_what_is_always_on_is_said_of_every_data_set() -> None:
    assert always_on(Digits()) == "crops shifted by up to 1 pixel, no mirroring; normalization by mean 0.3, std 0.38"
    assert always_on(Cifar10()).startswith(
        "crops shifted by up to 4 pixels, half of the images mirrored, a square of 16 pixels erased; normalization by"
    )
    folder = Folder(image_size=32, fit="pad", balanced=True, skip=("a",), standard=PhotoStandard())
    assert always_on(folder) == (
        "no crop, no mirroring; normalization by mean 0.5, std 0.25; images of 32x32 pixels, padded to squares; "
        "every class as often (dataset.balanced); without 1 image (dataset.skip)"
    )


def test_a_study_says_it_before_it_begins() -> None:
    study = Study(Folder(image_size=32), retrain=False)
    lines = Prepared(study, Path("x"), Loaded(Digits()), (), {"device": torch.device("cpu")}).plan_lines()
    assert f"Always on: {always_on(Folder(image_size=32))}" in lines
