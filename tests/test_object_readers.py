"""Readers of VOC and COCO: what they find, and one line for everything that is wrong."""

import io
import json
import re
import resource
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from jointsearch.data.check import check_data
from jointsearch.data.object_datasets import Coco, Voc
from jointsearch.data.object_load import LoadedObjects
from search_spaces.errors import InputError
from tests.object_files import VOC, coco_document, photo, voc_object, write_coco, write_voc
from tests.scripts_bench import run_script

TRAIN = "annotations/instances_train2017.json"


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    return write_voc(tmp_path / "data/VOC")


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    return write_coco(tmp_path / "coco")


def voc_settings(path: Path, **changes: Any) -> Voc:
    return Voc(**{"path": str(path), "shorter": None, "workers": 0} | changes)


def coco_settings(path: Path, **changes: Any) -> Coco:
    return Coco(**{"path": str(path), "shorter": None, "workers": 0, "drop_boxes": False} | changes)


@pytest.mark.parametrize("packed", [False, True])
def test_voc_gives_boxes_that_cover_their_pixels(voc: Path, tmp_path: Path, packed: bool) -> None:
    path = voc.parent
    if packed:
        path = tmp_path / "voc.tar"
        with tarfile.open(path, "w") as archive:
            archive.add(voc.parent, "data")
    splits = LoadedObjects(voc_settings(path), masks=False).splits(0)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (3, 0, 1)
    batch = next(splits.train.batches(torch.arange(3), 3))
    assert batch.labels.classes == ("cat", "dog")
    assert batch.labels.boxes[0].tolist() == [[10, 5, 30, 25], [0, 0, 60, 40]]  # VOC counts from 1, both ends included
    assert batch.labels.labels.tolist() == [[0, 1]] * 3
    zero_based = LoadedObjects(voc_settings(path, first_pixel=0), masks=False).splits(0)
    assert next(zero_based.test.batches(torch.arange(1), 1)).labels.boxes[0].tolist() == [[11, 6, 31, 26]]


def test_coco_gives_boxes_and_masks_at_the_size_that_is_trained_on(coco: Path) -> None:
    splits = LoadedObjects(coco_settings(coco, shorter=20), masks=True).splits(0)
    batch = next(splits.train.batches(torch.arange(3), 3))
    assert batch.labels.classes == ("cat", "dog")  # by the ids of their categories
    assert batch.images.pixels.shape == (3, 3, 20, 30)
    assert batch.labels.boxes[0].tolist() == [[5, 2.5, 15, 12.5], [0, 0, 30, 20]]
    cat, dog = batch.labels.masks[0]
    assert dog.all()
    assert cat[3:12, 5:15].all()
    assert 90 <= int(cat.sum()) <= 110
    without = next(LoadedObjects(coco_settings(coco), masks=False).splits(0).train.batches(torch.arange(1), 1))
    assert without.labels.masks is None


def test_difficult_and_crowd_objects_are_kept_apart(voc: Path, coco: Path) -> None:
    (voc / "Annotations/one.xml").write_text(
        VOC.format(name="one", objects=voc_object(difficult=1) + voc_object("dog"))
    )
    document = coco_document(("one", "two", "three"))
    document["annotations"][0]["iscrowd"] = 1
    (coco / TRAIN).write_text(json.dumps(document))
    for settings in (voc_settings(voc), coco_settings(coco)):
        batch = next(LoadedObjects(settings, masks=False).splits(0).train.batches(torch.arange(1), 1))
        assert batch.labels.labels.tolist() == [[1]]
        assert batch.labels.annotations[0].crowd.tolist() == [True, False]
        told = [str(finding) for finding in check_data(settings) if finding.severity == "warning"]
        assert any("has 1 object marked as crowd or difficult" in line for line in told)


def rewrite(name: str, text: str | bytes) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())

    return damage


def xml(**changes: Any) -> Callable[[Path], None]:
    return rewrite("Annotations/two.xml", VOC.format(name="two", objects=voc_object(**changes)))


def in_xml(before: str, after: str) -> Callable[[Path], None]:
    return rewrite("Annotations/two.xml", VOC.format(name="two", objects=voc_object()).replace(before, after))


def remove(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).unlink()


BAD_VOC: dict[str, tuple[Callable[[Path], None], str]] = {
    "no size": (
        xml(box=(11, 6, 11, 25)),
        r"two\.xml, object 1, the box \[11, 6, 11, 25\] has no size; mend",
    ),
    "inverted": (xml(box=(30, 6, 11, 25)), "has no size"),
    "outside": (xml(box=(70, 6, 90, 25)), "lies outside of its image of 60x40; mend"),
    "not a number": (xml(box=("left", 6, 30, 25)), "has no number in <bndbox><xmin> but left; mend it"),
    "not finite": (xml(box=("nan", 6, 30, 25)), "has no number in <bndbox><xmin>"),
    "no name": (xml(label=""), "has an object without a <name>, number 1; give its class"),
    "no box": (in_xml("bndbox", "polygon"), "has an object without a <bndbox>, number 1; give its box"),
    "no image size": (in_xml("size>", "sizes>"), "has no <size>; write the image's width and height"),
    "empty image size": (in_xml("<width>60", "<width>0"), "says that its image has 0x40 pixels; correct <size>"),
    "other image size": (
        rewrite("JPEGImages/two.png", photo(0, (30, 20))),
        "30x20 pixels and its annotation says 60x40",
    ),
    "no xml": (rewrite("Annotations/two.xml", "<annotation><size>"), "is no XML .*; mend it"),
    "not text": (rewrite("Annotations/two.xml", b"\xff\xfe\x00\x01"), "is no XML"),
    "entities": (in_xml("<annotation>", '<!DOCTYPE a [<!ENTITY x "y">]><annotation>'), "declares a document type"),
    "annotation missing": (remove("Annotations/two.xml"), r"two\.xml is not there, and trainval\.txt names its image"),
    "image missing": (remove("JPEGImages/two.png"), r"JPEGImages/two is named in trainval\.txt and not there"),
    "image damaged": (rewrite("JPEGImages/two.png", photo(0)[:300]), r"two\.xml is cut off or damaged"),
    "list missing": (
        remove("ImageSets/Main/test.txt"),
        "test.txt is not there; the lists in .* are: trainval",
    ),
    "list empty": (rewrite("ImageSets/Main/trainval.txt", "\n"), "names no image; give some"),
    "named twice": (rewrite("ImageSets/Main/trainval.txt", "one\none\n"), "names one twice; name it once"),
    "twin": (rewrite("JPEGImages/two.jpg", photo(1)), r"two\.png has a twin with another suffix; keep one"),
    "unknown class": (
        rewrite("Annotations/four.xml", VOC.format(name="four", objects=voc_object("hen"))),
        "is of the class hen, which no training image has; rename it or add images of it",
    ),
}


def change(place: int, **fields: Any) -> Callable[[Path], None]:
    """Another annotation; a value of ... removes it."""

    def damage(root: Path) -> None:
        document = coco_document(("one", "two", "three"))
        marked = {**document["annotations"][place], **fields}
        document["annotations"][place] = {key: value for key, value in marked.items() if value is not ...}
        (root / TRAIN).write_text(json.dumps(document))

    return damage


def whole(**parts: Any) -> Callable[[Path], None]:
    return lambda root: (root / TRAIN).write_text(json.dumps({**coco_document(("one", "two", "three")), **parts}))


RUNS = {"size": [40, 60], "counts": [0, 17]}
BAD_COCO: dict[str, tuple[Callable[[Path], None], str]] = {
    "no size": (
        change(0, bbox=[10, 5, 0, 20]),
        r"annotation 0, the box \[10, 5, 10, 25\] has no size; mend",
    ),
    "outside": (change(0, bbox=[10, 50, 5, 20]), "lies outside of its image of 60x40"),
    "three numbers": (change(0, bbox=[10, 5, 20]), r"annotation 0, has the bbox \[10, 5, 20\]; wanted four numbers"),
    "a word": (change(0, bbox=["10", 5, 20, 20]), "wanted four numbers, x y width height"),
    "no bbox": (change(0, bbox=...), "has the bbox None; wanted four numbers"),
    "unknown category": (change(0, category_id=9), "is of the category 9, which no category has as its id; correct it"),
    "unknown image": (change(0, image_id=9), "annotation 0, is of the image 9, which is not among images"),
    "crowd": (change(0, iscrowd=2), "has iscrowd=2; wanted 0 or 1"),
    "area": (change(0, area=-1), "has the area -1; wanted a number of pixels"),
    "no mask": (change(0, segmentation=...), "has no segmentation, and masks are wanted; add it, or choose a detector"),
    "open polygon": (change(0, segmentation=[[1, 2, 3, 4]]), "has a polygon that is not x y of three points or more"),
    "other mask": (change(0, segmentation="x"), "has a segmentation that is neither polygons nor run lengths"),
    "mask of another size": (change(0, segmentation={**RUNS, "size": [4, 6]}), r"size \[4, 6\]; wanted \[40, 60\]"),
    "letters as runs": (change(0, segmentation={**RUNS, "counts": "zzzz"}), "annotation 0, has a mask"),
    "words as runs": (change(0, segmentation={**RUNS, "counts": ["a", 2]}), "not whole numbers from 0 on"),
    "negative runs": (change(0, segmentation={**RUNS, "counts": [-5, 2405]}), "not whole numbers from 0 on"),
    "far polygon": (change(0, segmentation=[[1e6, 5, 1e6, 9, 30, 9]]), "far outside of its image of 60x40"),
    "list as category": (change(0, category_id=[1]), "is of the category"),
    "list as image": (change(0, image_id=[1]), "is of the image"),
    "file twice": (
        whole(images=[{"id": at, "file_name": "one.png", "width": 60, "height": 40} for at in (1, 2)], annotations=[]),
        "is the file of an earlier image too; keep one record of it",
    ),
    "short runs": (change(0, segmentation=RUNS), "has run lengths of 17 pixels; wanted 2400"),
    "no JSON": (rewrite(TRAIN, '{"images": ['), "is no JSON .*; mend it"),
    "not finite": (rewrite(TRAIN, '{"images": NaN}'), "is no JSON"),
    "deep": (rewrite(TRAIN, "[" * 200_000), "is no JSON"),
    "no list": (whole(images={}), "has no list of images; wanted images, annotations, categories"),
    "no categories": (whole(categories=[]), "has no categories; name at least one"),
    "category twice": (
        whole(categories=[{"id": 3, "name": "cat"}, {"id": 7, "name": "cat"}]),
        "each needs an id and a name of its own",
    ),
    "image twice": (whole(images=[{"id": 1}, {"id": 1}]), "has the image id 1 twice"),
    "no image size": (
        whole(images=[{"id": 100, "file_name": "one.png", "width": 60}], annotations=[]),
        "has the size 60xNone; give its width and height",
    ),
    "image missing": (remove("train2017/two.png"), r"image two\.png, is not in train2017; put the file there"),
    "outside the folder": (
        whole(images=[{"id": 100, "file_name": "../../x.png", "width": 60, "height": 40}], annotations=[]),
        "is not in train2017",
    ),
    "file missing": (remove(TRAIN), r"is not there; the JSON files are: annotations/instances_val2017\.json"),
    "other categories": (whole(categories=[{"id": 3, "name": "hen"}], annotations=[]), "has other categories than"),
}


def refused(settings: Voc | Coco, masks: bool) -> str:
    """The one line of what is wrong, at the latest when the images are read."""
    with pytest.raises(InputError) as caught:
        LoadedObjects(settings, masks).splits(0)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", BAD_VOC)
def test_a_bad_voc_set_is_one_line_with_the_remedy(kind: str, voc: Path) -> None:
    damage, told = BAD_VOC[kind]
    damage(voc)
    message = refused(voc_settings(voc), False)
    assert re.search(told, message), message
    listed = [finding for finding in check_data(voc_settings(voc)) if finding.severity == "error"]
    assert any(re.search(told, str(finding)) for finding in listed)


@pytest.mark.parametrize("kind", BAD_COCO)
def test_a_bad_coco_set_is_one_line_with_the_remedy(kind: str, coco: Path) -> None:
    damage, told = BAD_COCO[kind]
    damage(coco)
    message = refused(coco_settings(coco), True)
    assert re.search(told, message), message
    listed = check_data(coco_settings(coco))
    assert any(re.search(told, str(finding)) for finding in listed)


def test_boxes_without_size_are_left_out_where_that_is_asked_for_and_told(voc: Path) -> None:
    xml(box=(11, 6, 11, 25))(voc)
    loaded = LoadedObjects(voc_settings(voc, drop_boxes=True), masks=False)
    assert [len(one.labels) for one in loaded.splits(0).train.annotations] == [2, 0, 2]
    assert [str(one) for one in loaded.found.warnings] == [
        f"{voc}/Annotations/two.xml, object 1, the box [11, 6, 11, 25] has no size; left out"
    ]


def test_a_box_that_sticks_out_is_cut_off_and_told(voc: Path) -> None:
    xml(box=(41, 6, 90, 25))(voc)
    loaded = LoadedObjects(voc_settings(voc), masks=False)
    assert loaded.splits(0).train.annotations[1].boxes.tolist() == [[40, 5, 60, 25]]
    assert "sticks out of its image of 60x40; it is cut off" in str(loaded.found.warnings[0])


def test_masks_of_a_set_without_any_are_refused_with_the_detectors_to_choose(voc: Path) -> None:
    message = refused(voc_settings(voc), True)
    assert message == "dataset=voc has boxes and no masks; choose detector=faster_rcnn or detector=retinanet"


def test_the_command_lists_everything_and_exits_with_2(voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    xml(box=(11, 6, 11, 25))(voc)
    (voc / "JPEGImages/three.png").write_bytes((voc / "JPEGImages/one.png").read_bytes())
    assert run_script("check_data", "dataset=voc", f"dataset.path={voc}") == 2
    printed = capsys.readouterr().out
    assert "error: " in printed
    assert f"three.xml has the same pixels as {voc}/Annotations/one.xml" in printed
    assert "split test has no object of class dog" in printed
    assert "\n1 error, " in printed


def test_training_on_a_bad_set_exits_with_2_and_writes_nothing(
    voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    remove("Annotations/two.xml")(voc)
    remove("Annotations/three.xml")(voc)
    assert run_script("detect", "dataset=voc", f"dataset.path={voc}", f"run={tmp_path / 'run'}") == 2
    told = capsys.readouterr().err
    assert "(and 1 more, listed by scripts/check_data.py)" in told
    assert not (tmp_path / "run").exists()


def test_a_set_without_test_images_holds_some_out_the_same_for_every_seed(voc: Path, coco: Path) -> None:
    (voc / "ImageSets/Main/trainval.txt").unlink()
    all_of_voc = voc_settings(voc, train=None, test=None, test_share=0.25)
    one_file = coco_settings(coco, test=None, test_share=0.34)
    for settings, sizes in ((all_of_voc, (3, 1)), (one_file, (2, 1))):
        loaded = LoadedObjects(settings, masks=False)
        first, second = (loaded.splits(seed) for seed in (0, 1))
        assert (len(first.train), len(first.test)) == sizes
        assert torch.equal(first.test.rows, second.test.rows)
        assert not set(first.train.rows.tolist()) & set(first.test.rows.tolist())
    few = LoadedObjects(coco_settings(coco, test=None, test_share=0.01), masks=False)
    with pytest.raises(InputError, match=r"test_share holds out 0 of 3 images; give more images"):
        few.splits(0)


def test_a_large_annotation_file_and_files_beside_it_are_no_error(coco: Path) -> None:
    with (coco / TRAIN).open("ab") as file:
        file.truncate(2**28 + 1)  # COCO's own has 450 MB; what was added is empty
    with (coco / "train2017.zip").open("wb") as file:
        file.truncate(2**28 + 1)
    message = refused(coco_settings(coco), False)
    assert "is no JSON" in message


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_of_a_stream_is_one_line_too(voc: Path, workers: int) -> None:
    (voc / "JPEGImages/two.png").write_bytes(photo(0)[:300])
    splits = LoadedObjects(voc_settings(voc, in_memory="never", workers=workers), masks=False).splits(0)
    with pytest.raises(InputError, match=r"two\.xml is cut off or damaged"):
        list(splits.train.batches(torch.arange(3), 1))


@pytest.mark.slow
def test_many_images_are_read_with_few_open_files(coco: Path) -> None:
    document = coco_document(("one",))
    image = document["images"][0]
    document["images"] = [{**image, "id": at, "file_name": f"{at}.png"} for at in range(600)]
    for at in range(600):
        (coco / f"train2017/{at}.png").write_bytes(photo(0))
    (coco / TRAIN).write_text(json.dumps({**document, "annotations": []}))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        splits = LoadedObjects(coco_settings(coco, workers=2, in_memory="always"), masks=True).splits(0)
        stream = LoadedObjects(coco_settings(coco, workers=2, in_memory="never"), masks=True).splits(0).train
        assert len(list(stream.batches(torch.arange(600), 100))) == 6
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert len(splits.train) == 600


def test_an_image_that_is_stored_turned_is_told(voc: Path) -> None:
    for orientation, severity, told in (
        (3, "warning", "is stored turned"),
        (6, "error", "it is stored turned, by EXIF"),
    ):
        image = Image.open(io.BytesIO(photo(1)))
        image.getexif()[0x0112] = orientation
        image.save(voc / "JPEGImages/two.png", exif=image.getexif())
        findings = check_data(voc_settings(voc))
        assert any(one.severity == severity and told in str(one) for one in findings), list(map(str, findings))
