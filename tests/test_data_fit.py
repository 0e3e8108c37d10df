"""What is not square is cropped, padded or stretched; what is broken may be left out, by name."""

import json
import shlex
from pathlib import Path

import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from jointsearch import Folder, Grid, Recipe, load_splits, run_grid
from jointsearch.commands import predict, retrain
from jointsearch.compose import compose_words
from jointsearch.data.dataset_words import form_of
from jointsearch.data.decode import Form, decode_image
from jointsearch.loops.grid import plain_dataset
from jointsearch.settings import build
from search_spaces.errors import InputError
from tests.folders_bench import classes, gray, settings, write_folder
from tests.images_bench import WHOLE, encoded


def test_a_padded_photo_is_all_there_in_the_middle_of_its_background() -> None:
    wide = torch.full((1, 2, 12), 40, dtype=torch.uint8)
    # 12 pixels become 6 and 2 become 1: the row 2 of 6, with two rows above and three below.
    expected = [[[9] * 6, [9] * 6, [40] * 6, [9] * 6, [9] * 6, [9] * 6]]
    assert Form(6, background=9, fit="pad").fitted(wide).tolist() == expected
    tall = Form(6, background=9, fit="pad").fitted(wide.mT)
    assert tall.tolist() == torch.tensor(expected).mT.tolist()


def test_a_photo_is_padded_and_stretched_with_the_pixels_of_torchvision() -> None:
    image = decode_image(WHOLE["png"], "x", 3)  # 24 rows of 20 pixels
    padded, stretched = (Form(12, fit=fit).fitted(image).int() for fit in ("pad", "stretch"))
    inside = reference.resize(image, [12, 10], antialias=True).int()
    assert (padded[:, :, 1:11] - inside).abs().max() <= 1
    assert padded[:, :, [0, 11]].eq(255).all()
    assert (stretched - reference.resize(image, [12, 12], antialias=True).int()).abs().max() <= 1


def test_a_very_long_photo_keeps_a_row_of_pixels() -> None:
    found = Form(4, background=0, fit="pad").fitted(torch.full((3, 1, 1000), 7, dtype=torch.uint8))
    assert found.sum() == 3 * 4 * 7


def test_by_itself_the_middle_is_cut_out() -> None:
    image = decode_image(WHOLE["png"], "x", 3)
    expected = Form(20, fit="crop").fitted(image)
    assert torch.equal(Form(20).fitted(image), expected)
    assert torch.equal(expected, image[:, 2:22])
    assert form_of(Folder()).fit == "crop"


def test_a_trained_network_says_how_its_photos_were_fitted_and_predict_does_the_same(tmp_path: Path) -> None:
    tall = {f"{kind}/{n}.png": encoded(torch.full((9, 5), 9 * n + k).byte().numpy(), "PNG") for n in range(9)
            for k, kind in enumerate("ab")}  # fmt: skip
    folder = Folder(
        path=str(write_folder(tmp_path / "photos", tall)),
        image_size=8,
        fit="pad",
        background=3,
        validation=0,
        workers=0,
    )
    run_grid(Grid(("none",), folder, (0,), "tiny_cnn", Recipe(epochs=1, batch_size=8)), tmp_path / "run")
    told = json.loads((tmp_path / "run/none/seed0/model.json").read_text())
    assert predict._form(told) == form_of(folder)
    for name in ("fit", "background"):  # a network of before
        told.pop(name)
    assert predict._form(told) == Form(8, 3)


NAMES = ["a/x.jpg", "b/my photo, (1) [it's].jpg", "a/7=8.png"]


@pytest.mark.parametrize("name", NAMES)
def test_a_broken_image_is_left_out_by_the_word_that_its_error_names(name: str, tmp_path: Path) -> None:
    path = write_folder(tmp_path / "photos", {**classes(), name: WHOLE["jpeg"][:40]})
    with pytest.raises(InputError) as caught:
        load_splits(settings(path, channels=3, image_size=2), 0)
    assert str(caught.value).startswith(f"{path}/{name} ")
    word = shlex.split(str(caught.value).partition(", or leave it out: ")[2])
    given = build(retrain.Settings, compose_words("retrain", ["dataset=folder", *word]).values).dataset
    assert given.skip == (name,)  # type: ignore[attr-defined]
    whole = load_splits(settings(path, skip=(name,)), 0)
    assert sum(len(part) for part in (whole.train, whole.validation, whole.test)) == 20
    assert plain_dataset(settings(path, skip=(name,)))["skip"] == [name]


def test_what_is_left_out_takes_no_part_in_the_splits(tmp_path: Path) -> None:
    bad = {"a/3a.png": b"", "b/5a.png": b"text"}
    with_bad, without = write_folder(tmp_path / "1", {**classes(), **bad}), write_folder(tmp_path / "2", classes())
    first, second = load_splits(settings(with_bad, skip=tuple(bad)), 0), load_splits(settings(without), 0)
    assert first.digest == second.digest


def test_a_name_that_is_not_there_is_refused_with_the_nearest(tmp_path: Path) -> None:
    path = write_folder(tmp_path, classes())
    with pytest.raises(InputError, match=r"dataset\.skip names a/22\.png, which is not there; did you mean .*a/2\.png"):
        load_splits(settings(path, skip=("a/22.png",)), 0)


def test_leaving_out_a_whole_class_is_told(tmp_path: Path) -> None:
    path = write_folder(tmp_path, {**classes(), "c/1.png": gray(5)})
    with pytest.raises(InputError, match="class c has no image left for training"):
        load_splits(settings(path, skip=("c/1.png",)), 0)
    every = tuple(classes())
    with pytest.raises(InputError, match=r"no training image is left; name fewer in dataset\.skip"):
        load_splits(settings(write_folder(tmp_path / "2", classes()), skip=every), 0)
