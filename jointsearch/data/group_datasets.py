"""The data sets whose images have groups, by name; every class finds its images by `find()`."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from jointsearch.data.dataset_words import (
    BACKGROUND,
    CHANNELS,
    FIT,
    IN_MEMORY,
    REDUCED,
    SIZE,
    SKIP,
    STANDARD,
    VALIDATION,
    Count,
    decoded,
)
from jointsearch.data.decode import FITS
from jointsearch.data.files import Finding
from jointsearch.data.group_digits import colored_digits, zigzag_digits
from jointsearch.data.listed import Columns, find_listed, read_table
from jointsearch.data.sets import FoundSplits
from jointsearch.data.sources import FoundFiles, without
from jointsearch.data.standard import PhotoStandard, Standard
from jointsearch.settings import bounded, check_fields, choice, group, setting
from search_spaces.errors import InputError

CORRELATION = "share of the training images of a class that have the attribute which goes with it"
BALANCED_GROUPS = "training images of an epoch: as many of every group, so that small groups repeat theirs"


@dataclass(frozen=True)
class _DrawnOnDigits:
    """What digits with a drawn attribute have in common. A mirrored digit is not a digit, so none is mirrored."""

    test_share: ClassVar[None] = None
    validation: ClassVar[None] = None
    balances: ClassVar[str] = "group"

    correlation: float = bounded(0.95, 0.5, 1.0, help=CORRELATION)
    balanced: bool = setting(False, help=BALANCED_GROUPS)
    reduced: int | None = bounded(None, 1, help=REDUCED)

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class ColoredDigits(_DrawnOnDigits):
    """Real 8x8 digits, even or odd, in red or green: 797 train, 400 validate and 600 test, half in each color."""

    name: ClassVar[str] = "colored_digits"

    standard: Standard = group(lambda: Standard(crop_padding=1, mean=(0.1,), std=(0.26,)), help=STANDARD)

    def find(self) -> FoundSplits:
        """The three splits."""
        return colored_digits(self.correlation, self.balanced)


@dataclass(frozen=True)
class ZigzagDigits(_DrawnOnDigits):
    """Real 8x8 digits, even or odd, plain or with a zigzag line across; split as colored digits are."""

    name: ClassVar[str] = "zigzag_digits"

    standard: Standard = group(lambda: Standard(crop_padding=1, mean=(0.35,), std=(0.4,)), help=STANDARD)

    def find(self) -> FoundSplits:
        """The three splits."""
        return zigzag_digits(self.correlation, self.balanced)


@dataclass(frozen=True)
class Listed:
    """Images in a folder, with their classes and attributes in a table."""

    name: ClassVar[str] = "listed"
    balances: ClassVar[str] = "group"

    path: str | None = setting(None, help="the folder of the table")
    table: str = setting(
        "metadata.csv", help="in that folder, a line for each image: .csv with a head, or CelebA's .txt"
    )
    images: str = setting(".", help="in that folder, the folder that the table's names begin in")
    image_column: str = setting("image", help="that names the images")
    label_column: str = setting("label", help="that holds the classes")
    attribute_column: str = setting("attribute", help="that holds what divides classes into groups")
    split_column: str | None = setting(None, help="that holds train, val, test, or 0, 1, 2; null: all are of one split")
    split_table: str | None = setting(None, help="where the splits stand, if that is another file")
    classes: tuple[str, ...] = setting((), help="names of the classes, in the order of their values; empty: the values")
    attributes: tuple[str, ...] = setting((), help="names of the attributes, in the order of their values")
    image_size: int | None = bounded(None, 1, 4096, help=SIZE)
    fit: str = choice(FITS[0], *FITS, help=FIT)
    channels: int | None = choice(3, None, 1, 3, help=CHANNELS)
    background: int = bounded(255, 0, 255, help=BACKGROUND)
    skip: tuple[str, ...] = setting((), help=SKIP)
    balanced: bool = setting(False, help=BALANCED_GROUPS)
    reduced: int | None = bounded(None, 1, help=REDUCED)
    validation: Count = bounded(0.1, 0, help=VALIDATION)
    test_share: float | None = bounded(0.2, 0, 1, help="held out as test images, where there is no test split")
    in_memory: str = choice("auto", "auto", "always", "never", help=IN_MEMORY)
    workers: int = bounded(2, 0, 64, help="processes that decode images")
    standard: Standard = group(lambda: PhotoStandard(crop_padding=4), help=STANDARD)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.split_table is not None and self.split_column is None:
            raise InputError("dataset.split_table needs the column of its splits; set dataset.split_column")

    def find(self) -> FoundSplits:
        """The splits, as streams."""
        return decoded(self)

    def files(self) -> tuple[dict[str, FoundFiles], tuple[Finding, ...]]:
        """The encoded images by split."""
        if self.path is None:
            raise InputError("dataset=listed needs a place; set dataset.path to the folder of its table")
        folder = Path(self.path).expanduser()
        columns = Columns(self.image_column, self.label_column, self.attribute_column, self.split_column)
        splits = None if self.split_table is None else read_table(folder / self.split_table)
        names = (self.classes, self.attributes)
        found = find_listed(read_table(folder / self.table), columns, folder / self.images, names, splits)
        return without(found, self.skip), ()
