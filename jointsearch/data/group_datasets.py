"""The data sets whose images have groups, by name; every class finds its images by `find()`."""

from dataclasses import dataclass
from typing import ClassVar

from jointsearch.data.dataset_words import REDUCED, STANDARD
from jointsearch.data.group_digits import colored_digits, zigzag_digits
from jointsearch.data.sets import FoundSplits
from jointsearch.data.standard import Standard
from jointsearch.settings import bounded, check_fields, group, setting

CORRELATION = "share of the training images of a class that have the attribute which goes with it"
BALANCED_GROUPS = "training images of an epoch: as many of every group, so that small groups repeat theirs"


@dataclass(frozen=True)
class ColoredDigits:
    """Real 8x8 digits, even or odd, in red or green: 797 train, 400 validate and 600 test, half in each color."""

    name: ClassVar[str] = "colored_digits"
    test_share: ClassVar[None] = None
    validation: ClassVar[None] = None
    balances: ClassVar[str] = "group"

    correlation: float = bounded(0.95, 0.5, 1.0, help=CORRELATION)
    balanced: bool = setting(False, help=BALANCED_GROUPS)
    reduced: int | None = bounded(None, 1, help=REDUCED)
    # A mirrored digit is not a digit.
    standard: Standard = group(lambda: Standard(crop_padding=1, mean=(0.1,), std=(0.26,)), help=STANDARD)

    def __post_init__(self) -> None:
        check_fields(self)

    def find(self) -> FoundSplits:
        """The three splits."""
        return colored_digits(self.correlation, self.balanced)


@dataclass(frozen=True)
class ZigzagDigits:
    """Real 8x8 digits, even or odd, plain or with a zigzag line across; split as colored digits are."""

    name: ClassVar[str] = "zigzag_digits"
    test_share: ClassVar[None] = None
    validation: ClassVar[None] = None
    balances: ClassVar[str] = "group"

    correlation: float = bounded(0.95, 0.5, 1.0, help=CORRELATION)
    balanced: bool = setting(False, help=BALANCED_GROUPS)
    reduced: int | None = bounded(None, 1, help=REDUCED)
    standard: Standard = group(lambda: Standard(crop_padding=1, mean=(0.35,), std=(0.4,)), help=STANDARD)

    def __post_init__(self) -> None:
        check_fields(self)

    def find(self) -> FoundSplits:
        """The three splits."""
        return zigzag_digits(self.correlation, self.balanced)
