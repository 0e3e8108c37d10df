"""One door to every data set: settings in, three splits out."""

from dataclasses import dataclass, field, fields
from pathlib import Path

import torch

from jointsearch.data.cifar import read_cifar
from jointsearch.data.decode import Form
from jointsearch.data.digits import read_digits
from jointsearch.data.files import Finding, shown
from jointsearch.data.folder import find_folder
from jointsearch.data.hf import Columns, find_hf
from jointsearch.data.sets import AnySet, DataSplits, FoundSplits, ImageSet
from jointsearch.data.shapes import read_shapes
from jointsearch.data.sources import FoundFiles, streamed
from jointsearch.data.splits import search_halves, stratified_split
from jointsearch.data.standard import Standard
from jointsearch.data.svhn import read_svhn
from jointsearch.settings import bounded, check_fields, choice
from search_spaces.errors import InputError

# Where a set has no test split of its own, its test images are the same for every seed, so that figures of
# different seeds are measured on the same images.
TEST_SEED = 0
MAX_AUTO_BYTES = 2**30  # in_memory=auto holds up to 1 GiB of pixels on the device
FILES = ("folder", "hf")
NAMES = ("digits", "shapes", "cifar10", "cifar100", "svhn", *FILES)
# Fields that only some data sets read; setting one for another set is a mistake and not ignored.
READ_BY = {
    "validation": ("digits", "cifar10", "cifar100", "svhn", *FILES),
    "path": ("cifar10", "cifar100", "svhn", *FILES),
    "test_path": ("folder",),
    "image_size": FILES,
    "channels": FILES,
    "test_share": ("digits", *FILES),
    "download": ("cifar10", "cifar100", "svhn", "hf"),
    "in_memory": FILES,
    "workers": FILES,
    "extra": ("svhn",),
    "image_column": ("hf",),
    "label_column": ("hf",),
    "background": FILES,
}


@dataclass(frozen=True)
class DataSettings:
    """Which data set, which part of it, and in which form."""

    name: str = choice("digits", *NAMES)
    path: str | None = None
    test_path: str | None = None
    image_size: int | None = bounded(None, 1, 4096)
    channels: int | None = choice(None, 1, 3)
    reduced: int | None = bounded(None, 1)
    validation: int | float | None = bounded(None, 0)
    test_share: float | None = bounded(None, 0, 1)
    download: bool = False
    in_memory: str = choice("auto", "auto", "always", "never")
    workers: int = bounded(2, 0, 64)
    extra: bool = False
    image_column: str = "image"
    label_column: str = "label"
    background: int = bounded(255, 0, 255)
    standard: Standard = field(default_factory=Standard)

    def __post_init__(self) -> None:
        check_fields(self)


def load_splits(settings: DataSettings, seed: int) -> DataSplits:
    """The training, validation and test images; the seed chooses what is held out and what a reduced set keeps."""
    check_fields_are_read(settings)
    return _loaded(_found(settings), settings, seed)


def _loaded(found: FoundSplits, settings: DataSettings, seed: int) -> DataSplits:
    parts = divided(found, settings, seed)
    in_memory = settings.in_memory == "always" or _pixel_bytes(parts) <= MAX_AUTO_BYTES
    if settings.in_memory == "never" or not in_memory:
        return DataSplits(*parts)
    return DataSplits(*(part if isinstance(part, ImageSet) else part.in_memory() for part in parts))


def load_search_splits(settings: DataSettings, seed: int) -> DataSplits:
    """What a search trains its weights on, what judges, and no test images at all.

    The judges are the validation images that a data set brings along, as a folder may; where it has none of its own,
    they are half of the training images.
    """
    check_fields_are_read(settings)
    found = _found(settings)
    splits = _loaded(found, settings, seed)
    train, judges = splits.train, splits.validation
    if found.validation is None:
        train, judges = search_halves(train, seed)
        _check_every_class_is_trained(train, settings.name)
    return DataSplits(train, judges, splits.test.subset(splits.test.labels[:0]))


def find_files(settings: DataSettings) -> tuple[dict[str, FoundFiles], tuple[Finding, ...]]:
    """The encoded images of a folder or of the Hugging Face form, by split, and everything that does not fit."""
    if settings.name == "hf":
        return find_hf(settings.path, settings.download, Columns(settings.image_column, settings.label_column)), ()
    if settings.path is None:
        raise InputError("dataset=folder needs a place; set dataset.path to a folder of class folders or an archive")
    return find_folder(_place(settings.path), _place(settings.test_path) if settings.test_path else None)


def published(settings: DataSettings) -> FoundSplits:
    """A data set that comes as one block of pixels, before anything is held out."""
    path = _place(settings.path) if settings.path else None
    match settings.name:
        case "digits":
            return FoundSplits(read_digits())
        case "shapes":
            return read_shapes()
        case "cifar10" | "cifar100":
            return read_cifar(settings.name, path, settings.download)
        case "svhn":
            return read_svhn(path, settings.download, settings.extra)
    raise InputError(f"dataset.name is {shown(settings.name)}; wanted one of {', '.join(NAMES)}")


def form_of(settings: DataSettings) -> Form:
    """What the decoded images of these settings are brought to."""
    return Form(settings.image_size, settings.channels, settings.background)


def _found(settings: DataSettings) -> FoundSplits:
    if settings.name not in FILES:
        return published(settings)
    files, problems = find_files(settings)
    if problems:
        more = f" (and {len(problems) - 1} more, listed by scripts/check_data.py)" if len(problems) > 1 else ""
        raise InputError(f"{problems[0]}{more}")
    return streamed(files, form_of(settings), settings.workers)


def _place(path: str) -> Path:
    return Path(path).expanduser()


def divided(found: FoundSplits, settings: DataSettings, seed: int) -> tuple[AnySet, AnySet, AnySet]:
    """The three parts; validation is drawn before `reduced`, so that it is the same for every reduced size."""
    train, validation, test = found.train, found.validation, found.test
    if test is None:
        count = _count("test_share", settings.test_share, len(train))
        if not count:
            raise InputError(f"dataset {settings.name} has no test split; set dataset.test_share, for example to 0.2")
        rest, held_out = stratified_split(train.labels, (len(train) - count, count), TEST_SEED)
        train, test = train.subset(rest), train.subset(held_out)
    held_out_count = 0 if validation is not None else _count("validation", settings.validation, len(train))
    room = len(train) - held_out_count
    kept_count = room if settings.reduced is None else settings.reduced
    if not 0 < kept_count <= room:
        raise InputError(
            f"dataset.reduced asks for {kept_count} images, and {len(train)} training images less {held_out_count} for "
            f"validation leave {room}; lower dataset.reduced or dataset.validation"
        )
    held_out, kept = stratified_split(train.labels, (held_out_count, kept_count), seed)
    parts = train.subset(kept), train.subset(held_out) if validation is None else validation, test
    _check_every_class_is_trained(parts[0], settings.name)
    return parts


def _check_every_class_is_trained(train: AnySet, name: str) -> None:
    missing = sorted(set(range(len(train.classes))) - set(train.labels.tolist()))
    if missing:
        raise InputError(
            f"dataset {name}: class {shown(train.classes[missing[0]])} has no image left for training; "
            "raise dataset.reduced, lower dataset.validation and dataset.test_share, or add images of it (a search "
            "trains on half of them)"
        )


def _count(field: str, wanted: int | float | None, total: int) -> int:
    """A number of images, or a share below 1 of them, as a number."""
    if not wanted:
        return 0
    count = round(wanted * total) if isinstance(wanted, float) else wanted
    if not 0 < count < total:
        raise InputError(
            f"dataset.{field} is {wanted}, which is {count} of {total} images; "
            "give a share between 0 and 1, or a number of images"
        )
    return count


def _pixel_bytes(parts: tuple[AnySet, ...]) -> int:
    return sum(len(part) * int(torch.tensor(part.image_shape).prod()) for part in parts)


def check_fields_are_read(settings: DataSettings) -> None:
    """A setting that this data set would not look at is an error, not a silent wish."""
    for setting in fields(settings):
        names = READ_BY.get(setting.name)
        if names and settings.name not in names and getattr(settings, setting.name) != setting.default:
            raise InputError(
                f"dataset.{setting.name} is {getattr(settings, setting.name)}, and dataset={settings.name} does not "
                f"read it (only {', '.join(names)} do); leave it out"
            )
