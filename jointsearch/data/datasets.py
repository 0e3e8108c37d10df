"""The data sets by name: one class of settings for each, with the augmentation that is always on as its default.

    Folder(path="photos", image_size=64)     # class folders, a .tar, .tar.gz or .zip
    Cifar10(reduced=1000)                    # downloaded to data/cifar10 when it is not there

Every class finds its images by `find()`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from jointsearch.data.cifar import read_cifar
from jointsearch.data.dataset_words import (
    BACKGROUND,
    BALANCED,
    CHANNELS,
    DOWNLOAD,
    FIT,
    IN_MEMORY,
    REDUCED,
    SIZE,
    SKIP,
    STANDARD,
    VALIDATION,
    Count,
    decoded,
    place,
)
from jointsearch.data.decode import FITS
from jointsearch.data.digits import read_digits
from jointsearch.data.files import Finding
from jointsearch.data.folder import find_folder
from jointsearch.data.group_datasets import ColoredDigits, Listed, ZigzagDigits
from jointsearch.data.hf import Columns, find_hf
from jointsearch.data.object_sets import ObjectSplits
from jointsearch.data.object_shapes import read_object_shapes
from jointsearch.data.sets import FoundSplits
from jointsearch.data.shapes import read_shapes
from jointsearch.data.sources import FoundFiles, without
from jointsearch.data.standard import PhotoStandard, Standard
from jointsearch.data.svhn import read_svhn
from jointsearch.settings import bounded, check_fields, choice, group, setting
from search_spaces.errors import InputError


class DataSettings(Protocol):
    """Settings of a data set: a frozen dataclass that finds its images."""

    @property
    def name(self) -> str:
        """How the command line calls it."""

    @property
    def standard(self) -> Standard:
        """The augmentation that is always on."""

    @property
    def reduced(self) -> int | None:
        """So many training images are kept; None keeps all."""

    @property
    def validation(self) -> Count:
        """How many training images are held out, where it has no validation split of its own."""

    @property
    def test_share(self) -> float | None:
        """The share of the images that is held out as test images, where it has none of its own."""

    def find(self) -> FoundSplits:
        """What the data set brings along."""


@dataclass(frozen=True)
class Digits:
    """1,797 real digits of 8x8 pixels out of scikit-learn: 749 test, 748 validation, and 300 left for training."""

    name: ClassVar[str] = "digits"
    test_share: ClassVar[float] = 0.4167
    channels: ClassVar[int] = 1

    reduced: int | None = bounded(None, 1, help=REDUCED)
    validation: Count = bounded(748, 0, help=VALIDATION)
    # A mirrored digit is not a digit.
    standard: Standard = group(lambda: Standard(crop_padding=1, mean=(0.3,), std=(0.38,)), help=STANDARD)

    def __post_init__(self) -> None:
        check_fields(self)

    def find(self) -> FoundSplits:
        """All digits as one split."""
        return FoundSplits(read_digits())


@dataclass(frozen=True)
class Shapes:
    """Drawn RGB images of 32x32 with a known right answer: which ops help and which destroy the label."""

    name: ClassVar[str] = "shapes"
    test_share: ClassVar[None] = None
    validation: ClassVar[None] = None  # it has validation images with the variations that training images lack

    reduced: int | None = bounded(None, 1, help=REDUCED)
    # Left and right are classes of their own.
    standard: Standard = group(lambda: Standard(mean=(0.41,), std=(0.21,)), help=STANDARD)

    def __post_init__(self) -> None:
        check_fields(self)

    def find(self) -> FoundSplits:
        """The three splits."""
        return read_shapes()

    def find_objects(self, masks: bool) -> ObjectSplits:
        """For detectors: other images, of 64x64, with one to four of the shapes."""
        return read_object_shapes(masks)


@dataclass(frozen=True)
class Cifar10:
    """50,000 training and 10,000 test images of 10 classes, 32x32."""

    name: ClassVar[str] = "cifar10"
    test_share: ClassVar[None] = None

    path: str | None = setting(None, help="its archive or folder; null for data/cifar10")
    download: bool = setting(True, help=DOWNLOAD)
    reduced: int | None = bounded(None, 1, help=REDUCED)
    validation: Count = bounded(5000, 0, help=VALIDATION)
    standard: Standard = group(
        lambda: Standard(4, True, 16, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)), help=STANDARD
    )

    def __post_init__(self) -> None:
        check_fields(self)

    def find(self) -> FoundSplits:
        """The published training and test images."""
        return read_cifar(self.name, place(self.path), self.download)


@dataclass(frozen=True)
class Cifar100:
    """50,000 training and 10,000 test images of 100 classes, 32x32."""

    name: ClassVar[str] = "cifar100"
    test_share: ClassVar[None] = None

    path: str | None = setting(None, help="its archive or folder; null for data/cifar100")
    download: bool = setting(True, help=DOWNLOAD)
    reduced: int | None = bounded(None, 1, help=REDUCED)
    validation: Count = bounded(5000, 0, help=VALIDATION)
    standard: Standard = group(
        lambda: Standard(4, True, 16, (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)), help=STANDARD
    )

    def __post_init__(self) -> None:
        check_fields(self)

    def find(self) -> FoundSplits:
        """The published training and test images."""
        return read_cifar(self.name, place(self.path), self.download)


@dataclass(frozen=True)
class Svhn:
    """73,257 training and 26,032 test images of house numbers, 32x32."""

    name: ClassVar[str] = "svhn"
    test_share: ClassVar[None] = None

    path: str | None = setting(None, help="the folder of its .mat files; null for data/svhn")
    download: bool = setting(True, help=DOWNLOAD)
    extra: bool = setting(False, help="add the 531,131 easier training images")
    reduced: int | None = bounded(None, 1, help=REDUCED)
    validation: Count = bounded(5000, 0, help=VALIDATION)
    # A mirrored digit is not a digit.
    standard: Standard = group(
        lambda: Standard(4, False, 20, (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)), help=STANDARD
    )

    def __post_init__(self) -> None:
        check_fields(self)

    def find(self) -> FoundSplits:
        """The published training and test images."""
        return read_svhn(place(self.path), self.download, self.extra)


@dataclass(frozen=True)
class Folder:
    """Class folders <class>/<image>, in a folder, .tar, .tar.gz or .zip; also in train/, validation/ and test/."""

    name: ClassVar[str] = "folder"

    path: str | None = setting(None, help="a folder of class folders, or an archive of one")
    test_path: str | None = setting(None, help="a second folder or archive, with the test images")
    image_size: int | None = bounded(None, 1, 4096, help=SIZE)
    fit: str = choice(FITS[0], *FITS, help=FIT)
    channels: int | None = choice(3, None, 1, 3, help=CHANNELS)
    background: int = bounded(255, 0, 255, help=BACKGROUND)
    skip: tuple[str, ...] = setting((), help=SKIP)
    balanced: bool = setting(False, help=BALANCED)
    reduced: int | None = bounded(None, 1, help=REDUCED)
    validation: Count = bounded(0.1, 0, help=VALIDATION)
    test_share: float | None = bounded(0.2, 0, 1, help="held out as test images, where there is no test folder")
    in_memory: str = choice("auto", "auto", "always", "never", help=IN_MEMORY)
    workers: int = bounded(2, 0, 64, help="processes that decode images")
    # Not mirrored: photos may be of letters, of left and right hands, of arrows.
    standard: Standard = group(lambda: PhotoStandard(crop_padding=4), help=STANDARD)

    def __post_init__(self) -> None:
        check_fields(self)

    def find(self) -> FoundSplits:
        """The splits, as streams."""
        return decoded(self)

    def files(self) -> tuple[dict[str, FoundFiles], tuple[Finding, ...]]:
        """The encoded images by split, and everything that does not fit."""
        if self.path is None:
            raise InputError(
                "dataset=folder needs a place; set dataset.path to a folder of class folders or an archive"
            )
        files, problems = find_folder(Path(self.path).expanduser(), place(self.test_path))
        return without(files, self.skip), problems


@dataclass(frozen=True)
class HuggingFace:
    """A folder of parquet files, or a name on the hub. Needs the extra: pip install "jointsearch[hf]"."""

    name: ClassVar[str] = "hf"

    path: str | None = setting(None, help="a folder of parquet files, or a name on the hub")
    download: bool = setting(False, help="true allows a name on the hub")
    image_column: str = setting("image", help="that holds the images")
    label_column: str = setting("label", help="that holds the labels")
    image_size: int | None = bounded(None, 1, 4096, help=SIZE)
    fit: str = choice(FITS[0], *FITS, help=FIT)
    channels: int | None = choice(3, None, 1, 3, help=CHANNELS)
    background: int = bounded(255, 0, 255, help=BACKGROUND)
    skip: tuple[str, ...] = setting((), help=SKIP)
    balanced: bool = setting(False, help=BALANCED)
    reduced: int | None = bounded(None, 1, help=REDUCED)
    validation: Count = bounded(0.1, 0, help=VALIDATION)
    test_share: float | None = bounded(0.2, 0, 1, help="held out as test images, where there is no test split")
    in_memory: str = choice("auto", "auto", "always", "never", help=IN_MEMORY)
    workers: int = bounded(2, 0, 64, help="processes that decode images")
    # Not mirrored: photos may be of letters, of left and right hands, of arrows.
    standard: Standard = group(lambda: PhotoStandard(crop_padding=4), help=STANDARD)

    def __post_init__(self) -> None:
        check_fields(self)

    def find(self) -> FoundSplits:
        """The splits, as streams."""
        return decoded(self)

    def files(self) -> tuple[dict[str, FoundFiles], tuple[Finding, ...]]:
        """The encoded images by split."""
        found = find_hf(self.path, self.download, Columns(self.image_column, self.label_column))
        return without(found, self.skip), ()


FILES: tuple[type[Folder] | type[HuggingFace] | type[Listed], ...] = (Folder, HuggingFace, Listed)
DATASETS: dict[str, type] = {
    cls.name: cls for cls in (Digits, ColoredDigits, ZigzagDigits, Shapes, Cifar10, Cifar100, Svhn, *FILES)
}
