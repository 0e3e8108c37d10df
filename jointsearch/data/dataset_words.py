"""What the settings of several data sets share: the words of their help, and how files become streams of images."""

from pathlib import Path
from typing import Any, TypeAlias

from jointsearch.data.decode import Form
from jointsearch.data.sets import FoundSplits
from jointsearch.data.sources import streamed
from search_spaces.errors import InputError

Count: TypeAlias = int | float | None

REDUCED = "number of training images that are kept; null for all"
VALIDATION = "images held out of the training images: a number, or a share below 1"
STANDARD = "crop, flip, cutout and normalization"
DOWNLOAD = "fetch what is not there"
SIZE = "pixels of a side; null keeps the size, which must be one"
CHANNELS = "null keeps them as found, which must be the same everywhere"
FIT = "to a square: crop keeps its middle, pad all of it on a background, stretch distorts it"
BACKGROUND = "gray level where an image is transparent, or padded"
SKIP = "image files to leave out; check_data lists the broken ones"
BALANCED = "training images of an epoch: as many of every class, so that small classes repeat theirs"
IN_MEMORY = "auto: up to 1 GiB of pixels lie on the device"


def form_of(settings: Any) -> Form:
    """What the decoded images of these settings are brought to."""
    return Form(settings.image_size, settings.channels, settings.background, settings.fit)


def decoded(settings: Any) -> FoundSplits:
    """Files as streams of decoded images; the first file that does not fit is an error."""
    files, problems = settings.files()
    if problems:
        more = f" (and {len(problems) - 1} more, listed by scripts/check_data.py)" if len(problems) > 1 else ""
        raise InputError(f"{problems[0]}{more}")
    return streamed(files, form_of(settings), settings.workers, settings.balanced)


def place(path: str | None) -> Path | None:
    """A path as it was typed."""
    return Path(path).expanduser() if path else None
