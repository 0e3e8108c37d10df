"""Images that a table lists: Waterbirds, CelebA and tables of one's own, and what is wrong with them in a line."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from jointsearch.commands.command import run
from jointsearch.compose import compose_words
from jointsearch.data.check import check_data_report
from jointsearch.data.group_datasets import Listed
from jointsearch.data.load import Loaded
from jointsearch.settings import build
from search_spaces.errors import InputError

# Place, split (0 train, 1 validation, 2 test), class and attribute of 60 images, whose gray level is 4 * place.
SPLITS = [0] * 40 + [1] * 8 + [2] * 12
LABELS = [place % 2 for place in range(60)]
VALUES = [place % 2 if split == 0 and place % 10 > 1 else place // 2 % 2 for place, split in enumerate(SPLITS)]


def draw(folder: Path) -> list[str]:
    """The images, in two folders. Returns their names."""
    names = [f"{place % 3}/{place:06}.png" for place in range(60)]
    for place, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 4 * place).save(folder / name)
    return names


def waterbirds(folder: Path) -> Path:
    rows = zip(draw(folder), LABELS, SPLITS, VALUES, strict=True)
    lines = [f"{place},{name},{y},{split},{z},/{z}/sea.jpg" for place, (name, y, split, z) in enumerate(rows)]
    head = "img_id,img_filename,y,split,place,place_filename"
    (folder / "metadata.csv").write_text("\n".join([head, *lines]) + "\n")
    return folder


def celeba(folder: Path) -> Path:
    names = draw(folder / "img_align_celeba")
    signs = [(2 * y - 1, 2 * z - 1) for y, z in zip(LABELS, VALUES, strict=True)]
    lines = [f"{name}  {y:2} -1 {z:2}" for name, (y, z) in zip(names, signs, strict=True)]
    (folder / "list_attr_celeba.txt").write_text("\n".join(["60", "Blond_Hair Eyeglasses Male ", *lines, ""]))
    splits = [f"{name} {split}" for name, split in zip(reversed(names), reversed(SPLITS), strict=True)]
    (folder / "list_eval_partition.txt").write_text("\n".join(splits))
    return folder


def kaggle(folder: Path) -> Path:
    celeba(folder)
    for name, head in (
        ("list_attr_celeba", ["image_id", "Blond_Hair", "Eyeglasses", "Male"]),
        ("list_eval_partition", None),
    ):
        lines = [line.split() for line in (folder / f"{name}.txt").read_text().splitlines() if line]
        rows = [head, *lines[2:]] if head else [["image_id", "partition"], *lines]
        (folder / f"{name}.csv").write_text("\r\n".join(",".join(row) for row in rows if row))
        (folder / f"{name}.txt").unlink()
    return folder


KAGGLE = ["dataset.table=list_attr_celeba.csv", "dataset.split_table=list_eval_partition.csv"]
SETS: dict[str, tuple[Any, list[str]]] = {
    "waterbirds": (waterbirds, ["dataset=waterbirds"]),
    "celeba": (celeba, ["dataset=celeba"]),
    "celeba of kaggle": (kaggle, ["dataset=celeba", *KAGGLE]),
}


def settings(name: str, folder: Path) -> Listed:
    write, words = SETS[name]
    write(folder)
    values = compose_words("retrain", [*words, f"dataset.path={folder}"]).values["dataset"]
    return replace(build(Listed, values, "dataset"), image_size=8, workers=0)


@pytest.mark.parametrize("in_memory", ["always", "never"])
@pytest.mark.parametrize("name", SETS)
def test_images_come_with_the_class_attribute_and_split_of_their_row(name: str, in_memory: str, tmp_path: Path) -> None:
    splits = Loaded(replace(settings(name, tmp_path), in_memory=in_memory)).splits(0)
    for number, part in enumerate((splits.train, splits.validation, splits.test)):
        [batch] = part.batches(torch.arange(len(part)), len(part))
        places = (batch.images[:, 0, 0, 0] // 4).tolist()
        assert places == [place for place in range(60) if SPLITS[place] == number]
        assert batch.labels.tolist() == [LABELS[place] for place in places]
        assert batch.groups.values.tolist() == [VALUES[place] for place in places]
    classes = ("landbird", "waterbird") if name == "waterbirds" else ("not_blond", "blond")
    assert splits.train.classes == classes
    attributes = ("land", "water") if name == "waterbirds" else ("female", "male")
    assert splits.test.groups.names(splits.train.classes)[1] == f"{classes[0]}/{attributes[1]}"
    text, wrong = check_data_report(settings(name, tmp_path))
    assert not wrong
    assert "training 40, validation 8, test 12" in text


def own(folder: Path, rows: list[str] | None = None) -> Listed:
    """A table of one's own without splits."""
    names = draw(folder)
    lines = [
        f"{name},{'cat' if y else 'ape'},{'night' if z else 'day'}"
        for name, y, z in zip(names, LABELS, VALUES, strict=True)
    ]
    (folder / "metadata.csv").write_text("\n".join(["image,label,attribute", *(lines if rows is None else rows)]))
    return Listed(str(folder), image_size=8, workers=0)


def test_a_table_of_ones_own_is_divided_by_groups(tmp_path: Path) -> None:
    splits = Loaded(own(tmp_path)).splits(0)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (43, 5, 12)
    assert splits.train.classes == ("ape", "cat")
    counts = torch.tensor([2 * y + z for y, z in zip(LABELS, VALUES, strict=True)]).bincount()
    of_test = splits.test.groups.numbers.bincount(minlength=4)
    assert ((of_test - counts * 12 / 60).abs() < 1).all()


def test_images_that_are_skipped_take_their_groups_along(tmp_path: Path) -> None:
    made = own(tmp_path)
    left = Loaded(replace(made, skip=("0/000000.png", "1/000001.png"), test_share=0.5, validation=0)).splits(0)
    for part in (left.train, left.test):
        [batch] = part.batches(torch.arange(len(part)), 60)
        places = (batch.images[:, 0, 0, 0] // 4).tolist()
        assert not {0, 1} & set(places)
        assert batch.groups.values.tolist() == [VALUES[place] for place in places]


ROW = "0/000000.png,cat,day"
BAD: dict[str, tuple[dict[str, Any], list[str] | None, str]] = {
    "no place": ({"path": None}, None, "dataset=listed needs a place; set dataset.path"),
    "no table": ({"table": "other.csv"}, None, r"other\.csv cannot be read \(No such file.*give dataset.path"),
    "column": ({"label_column": "labl"}, None, "no column labl, which dataset.label_column names; did you mean label"),
    "split column": ({"split_column": "part"}, None, "no column part, which dataset.split_column names; "),
    "unknown split": ({"split_column": "label"}, None, "line 2, has the split ape; wanted one of 0, 1, 2, train"),
    "file": ({}, [ROW, "a.png,ape,night"], r"line 3, has a\.png, which is not in .*; give dataset.images, or add it"),
    "outside": ({}, [ROW, "../a.png,ape,night"], r"line 3, has \.\./a\.png, which lies outside of .*; name images"),
    "values": ({}, [ROW, "a.png,ape"], "line 3, has 2 values for 3 columns; repair it"),
    "one class": ({}, [ROW, "0/000003.png,cat,night"], "label_column has the one value cat everywhere; name another"),
    "many names": ({"classes": ("x", "y", "z")}, None, r"classes names 3, and .* has 2 values \(ape, cat\); name as"),
    "empty": ({}, [], "has no rows, or empty ones among them; give a line for every image"),
    "no training image": ({"split_column": "s"}, ["train"], "lists no training image; name the column of its splits"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said_in_a_line(name: str, tmp_path: Path) -> None:
    changes, rows, said = BAD[name]
    made = own(tmp_path, rows)
    if name == "no training image":
        lines = [f"{one}/00000{one}.png,{one % 2},{one // 2},test" for one in range(3)]
        (tmp_path / "metadata.csv").write_text("\n".join(["image,label,attribute,s", *lines]))
    with pytest.raises(InputError, match=said) as refused:
        replace(made, **changes).find()
    assert "\n" not in str(refused.value)


def test_a_split_table_has_to_know_every_image(tmp_path: Path) -> None:
    made = settings("celeba", tmp_path)
    table = tmp_path / "list_eval_partition.txt"
    table.write_text("\n".join(table.read_text().splitlines()[1:]))
    with pytest.raises(InputError, match=r"line 62, has 2/000059\.png, of which .*partition\.txt has no split; add"):
        made.find()
    with pytest.raises(InputError, match=r"split_table needs the column of its splits; set dataset\.split_column"):
        Listed(split_table="x.csv")


def test_group_dro_trains_on_them(tmp_path: Path) -> None:
    waterbirds(tmp_path / "birds")
    words = [
        "dataset=waterbirds",
        f"dataset.path={tmp_path / 'birds'}",
        "dataset.image_size=8",
        "dataset.balanced=true",
    ]
    words += ["objective=group_dro", "policy=none", "controls=[]", "seeds=[0]", "network=tiny_cnn", "device=cpu"]
    words += ["recipe.epochs=2", "recipe.batch_size=20", "dataset.workers=0", f"run={tmp_path / 'run'}"]
    assert run("retrain", words) == 0
    told = json.loads((tmp_path / "run/none/seed0/result.json").read_text())["test_scores_last"]
    assert "group_accuracy/waterbird/land" in told
