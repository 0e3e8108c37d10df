"""The data sets with objects by name: one class of settings for each.

    Voc(path="bccd_voc.tar", train="train", test="test")
    Coco(path="coco2017")

Every class finds its images by `find_objects(masks)`; masks are read only where a detector wants them.
"""

import posixpath
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from jointsearch.data.coco import Place, find_coco
from jointsearch.data.dataset_words import REDUCED
from jointsearch.data.marked import FileSource, FoundObjects
from jointsearch.data.object_sets import ObjectSplits, PictureSource
from jointsearch.data.standard import IMAGENET, Standard
from jointsearch.data.voc import find_voc
from jointsearch.settings import bounded, check_fields, choice, group, setting
from search_spaces.errors import InputError

SHORTER = "pixels of the shorter side, to which each image is scaled; null keeps their size"
LONGER = "pixels that the longer side has at most"
DROP = "leave out boxes that have no size or lie outside; false refuses them"
STANDARD = "flip and normalization"
TEST_SHARE = "held out of the training images where test is null"


class ObjectSettings(Protocol):
    """Settings of a data set with objects: a frozen dataclass that finds its images."""

    @property
    def name(self) -> str:
        """How the command line calls it."""

    @property
    def standard(self) -> Standard:
        """The augmentation that is always on."""

    @property
    def reduced(self) -> int | None:
        """So many training images are kept; None keeps all."""

    def find_objects(self, masks: bool) -> ObjectSplits:
        """What the data set brings along; the first error is raised."""


class AnyData(Protocol):
    """Settings of any data set, with classes or with objects."""

    @property
    def name(self) -> str:
        """How the command line calls it."""

    @property
    def standard(self) -> Standard:
        """The augmentation that is always on."""


@dataclass(frozen=True)
class Voc:
    """Boxes in the form of Pascal VOC, in a folder or an archive."""

    name: str = setting("voc", help="how the data set is called")
    path: str | None = setting(None, help="the folder or archive with Annotations, JPEGImages and ImageSets/Main")
    train: str | None = setting("trainval", help="list of ImageSets/Main with the training images; null: all images")
    validation: str | None = setting(None, help="list of ImageSets/Main with validation images")
    test: str | None = setting("test", help="list of ImageSets/Main with the test images; null: test_share")
    test_share: float = bounded(0.2, 0.001, 0.999, help=TEST_SHARE)
    first_pixel: int = bounded(1, 0, 1, help="coordinate of the first pixel of a row: 1 in VOC, 0 where tools count so")
    shorter: int | None = bounded(600, 16, 4096, help=SHORTER)
    longer: int | None = bounded(1000, 16, 8192, help=LONGER)
    drop_boxes: bool = setting(False, help=DROP)
    reduced: int | None = bounded(None, 1, help=REDUCED)
    in_memory: str = choice("auto", "auto", "always", "never", help="auto: up to 1 GiB of pixels stay decoded")
    workers: int = bounded(2, 0, 64, help="processes that decode images")
    standard: Standard = group(lambda: Standard(flip=True, mean=IMAGENET[0], std=IMAGENET[1]), help=STANDARD)

    def __post_init__(self) -> None:
        check_fields(self)

    def find_objects(self, masks: bool) -> ObjectSplits:
        """The splits; boxes only."""
        return usable(self.marked_files(masks), self)

    def marked_files(self, masks: bool) -> FoundObjects:
        """The annotations and files, with everything that does not fit."""
        if masks:
            raise InputError(
                f"dataset={self.name} has boxes and no masks; choose detector=faster_rcnn or detector=retinanet"
            )
        lists = {"train": self.train, "validation": self.validation, "test": self.test}
        named = {split: name for split, name in lists.items() if name is not None or split == "train"}
        return find_voc(place(self), named, self.first_pixel, self.drop_boxes)


@dataclass(frozen=True)
class Coco:
    """Boxes and masks in the form of COCO, in a folder or an archive."""

    name: str = setting("coco", help="how the data set is called")
    path: str | None = setting(None, help="the folder or archive with the JSON files and the images")
    train: str = setting("annotations/instances_train2017.json", help="JSON file of the training images")
    train_images: str = setting("train2017", help="folder of the training images")
    validation: str | None = setting(None, help="JSON file of validation images")
    validation_images: str = setting("train2017", help="folder of the validation images")
    test: str | None = setting("annotations/instances_val2017.json", help="JSON file of test images; null: test_share")
    test_images: str = setting("val2017", help="folder of the test images")
    test_share: float = bounded(0.2, 0.001, 0.999, help=TEST_SHARE)
    shorter: int | None = bounded(800, 16, 4096, help=SHORTER)
    longer: int | None = bounded(1333, 16, 8192, help=LONGER)
    drop_boxes: bool = setting(True, help=DROP)  # two of COCO's own have no size
    reduced: int | None = bounded(None, 1, help=REDUCED)
    in_memory: str = choice("auto", "auto", "always", "never", help="auto: up to 1 GiB of pixels stay decoded")
    workers: int = bounded(4, 0, 64, help="processes that decode images")
    standard: Standard = group(lambda: Standard(flip=True, mean=IMAGENET[0], std=IMAGENET[1]), help=STANDARD)

    def __post_init__(self) -> None:
        check_fields(self)

    def find_objects(self, masks: bool) -> ObjectSplits:
        """The splits."""
        return usable(self.marked_files(masks), self)

    def marked_files(self, masks: bool) -> FoundObjects:
        """The annotations and files, with everything that does not fit."""
        files = {"train": self.train, "validation": self.validation, "test": self.test}
        folders = {"train": self.train_images, "validation": self.validation_images, "test": self.test_images}
        places = {
            split: Place(file, posixpath.normpath(folders[split])) for split, file in files.items() if file is not None
        }
        return find_coco(place(self), places, masks, self.drop_boxes)


OBJECT_FILES: tuple[type[Voc] | type[Coco], ...] = (Voc, Coco)


def place(settings: Voc | Coco) -> Path:
    """Where the data lie."""
    if settings.path is None:
        raise InputError(f"dataset={settings.name} needs a place; set dataset.path to its folder or archive")
    return Path(settings.path).expanduser()


def usable(found: FoundObjects, settings: Voc | Coco) -> ObjectSplits:
    """The files as sources; the first error is raised."""
    errors = [problem for problem in found.problems if problem.severity == "error"]
    if errors:
        more = f" (and {len(errors) - 1} more, listed by scripts/check_data.py)" if len(errors) > 1 else ""
        raise InputError(f"{errors[0]}{more}")
    sources: dict[str, PictureSource] = {
        split: FileSource(files.entries, files.annotations, settings.shorter, settings.longer)
        for split, files in found.splits.items()
    }
    return ObjectSplits(sources, found.classes, found.problems)
