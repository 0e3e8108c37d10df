"""From the settings of a data set to its three splits."""

from typing import Any

import torch
from torch import Tensor

from jointsearch.data.datasets import DataSettings
from jointsearch.data.files import shown
from jointsearch.data.sets import AnySet, DataSplits, FoundSplits, ImageSet
from jointsearch.data.splits import of_classes, search_halves, stratified_folds, stratified_split
from search_spaces.errors import InputError

# Where a set has no test split of its own, its test images are the same for every seed, so that figures of
# different seeds are measured on the same images.
TEST_SEED = 0
FEW = 3  # images of a class, one for each part
MAX_AUTO_BYTES = 2**30  # in_memory=auto holds up to 1 GiB of pixels on the device


class Loaded:
    """A data set that is read once: every file is decoded once, whatever seeds and searches ask for it."""

    def __init__(self, settings: DataSettings) -> None:
        self.settings = settings
        self.found = settings.find()
        self._decoded: dict[int, dict[int, Tensor]] = {}  # images by row, of each source
        self._splits: dict[int, DataSplits] = {}

    def splits(self, seed: int) -> DataSplits:
        """The training, validation and test images; the seed chooses what is held out and what a reduced set keeps."""
        if seed not in self._splits:
            self._splits = {seed: self._held(self.listed(seed))}  # of one seed at a time: each holds its own pixels
        return self._splits[seed]

    def listed(self, seed: int) -> DataSplits:
        """The same images before any is decoded, where they lie in files."""
        return DataSplits(*divided(self.found, self.settings, seed))

    def search_splits(self, seed: int, images: int | None = None, classes: int | None = None) -> DataSplits:
        """What a search trains its weights on, what validates, and no test images at all.

        Validation images are those that a data set brings along, as a folder may. A data set without any is searched on
        two halves of its training images, or of so many `images` of them, of so many `classes`. Only these are decoded.
        """
        every, reduced = self.found.train, images is not None or classes is not None
        splits = self.listed(seed) if reduced else self.splits(seed)
        train, validation, test = splits.train, splits.validation, splits.test
        if classes is not None:
            every, train, validation, test = (of_classes(part, classes) for part in (every, train, validation, test))
        if images is not None:
            train = train.subset(*stratified_split(train.strata, (min(images, len(train)),), seed))
        if self.found.validation is None:
            train, validation = search_halves(train, seed)
        _check_every_class_is_trained(train, every, self.settings)
        found = DataSplits(train, validation, test.subset(test.labels[:0]))
        return self._held(found) if reduced else found

    def fold_splits(self, seed: int, fold: int, folds: int) -> DataSplits:
        """What a whole training of a search trains on, what judges it, and no test images at all.

        The training images are divided into folds; one of them judges, the others train. Validation images that a data
        set brings along judge in their place, and all training images train.
        """
        splits = self.splits(seed)
        train, validation = splits.train, splits.validation
        if self.found.validation is None:
            parts = stratified_folds(train.strata, folds, seed)
            others = torch.cat([part for place, part in enumerate(parts) if place != fold]).sort().values
            train, validation = train.subset(others), train.subset(parts[fold])
        _check_every_class_is_trained(train, self.found.train, self.settings)
        return DataSplits(train, validation, splits.test.subset(splits.test.labels[:0]))

    def __getstate__(self) -> dict[str, Any]:
        """For another process: what was decoded as one tensor of each source, which the processes share."""
        kept = {}
        for name in ("train", "validation", "test"):
            source = getattr(getattr(self.found, name), "source", None)
            if decoded := self._decoded.get(id(source)):
                kept[name] = (list(decoded), torch.stack(list(decoded.values())))
        return {"settings": self.settings, "found": self.found, "decoded": kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.settings, self.found = state["settings"], state["found"]
        self._splits = {}
        self._decoded = {
            id(getattr(self.found, name).source): dict(zip(rows, images, strict=True))
            for name, (rows, images) in state["decoded"].items()
        }

    def _held(self, splits: DataSplits) -> DataSplits:
        """The splits in memory, as far as the settings want them there."""
        parts = splits.train, splits.validation, splits.test
        wanted = getattr(self.settings, "in_memory", "auto")
        if wanted == "always" or (wanted == "auto" and _pixel_bytes(parts) <= MAX_AUTO_BYTES):
            return DataSplits(*map(self._in_memory, parts))
        return splits

    def _in_memory(self, part: AnySet) -> ImageSet:
        return part if isinstance(part, ImageSet) else part.in_memory(self._decoded.setdefault(id(part.source), {}))


def load_splits(settings: DataSettings, seed: int) -> DataSplits:
    """The training, validation and test images of a seed."""
    return Loaded(settings).splits(seed)


def load_search_splits(settings: DataSettings, seed: int) -> DataSplits:
    """The training and validation images of a search."""
    return Loaded(settings).search_splits(seed)


def divided(found: FoundSplits, settings: DataSettings, seed: int) -> tuple[AnySet, AnySet, AnySet]:
    """The three parts; validation is drawn before `reduced`, so that it is the same for every reduced size."""
    train, validation, test = found.train, found.validation, found.test
    if test is None:
        count = _count("test_share", settings.test_share, len(train))
        if not count:
            raise InputError(f"dataset {settings.name} has no test split; set dataset.test_share, for example to 0.2")
        rest, held_out = stratified_split(train.strata, (len(train) - count, count), TEST_SEED)
        train, test = train.subset(rest), train.subset(held_out)
    held_out_count = 0 if validation is not None else _count("validation", settings.validation, len(train))
    room = len(train) - held_out_count
    kept_count = room if settings.reduced is None else settings.reduced
    if not 0 < kept_count <= room:
        raise InputError(
            f"dataset.reduced asks for {kept_count} images, and {len(train)} training images less {held_out_count} for "
            f"validation leave {room}; lower dataset.reduced or dataset.validation"
        )
    held_out, kept = stratified_split(train.strata, (held_out_count, kept_count), seed)
    parts = train.subset(kept), train.subset(held_out) if validation is None else validation, test
    _check_every_class_is_trained(parts[0], found.train, settings)
    return parts


def _check_every_class_is_trained(train: AnySet, every: AnySet, settings: DataSettings) -> None:
    """Refuse training images that lack a class; `every` has all that were not test images from the beginning."""
    missing = sorted(set(range(len(train.classes))) - set(train.labels.tolist()))
    if not missing:
        return
    count = int((every.labels == missing[0]).sum())
    more = f" (as have {len(missing) - 1} other classes)" if len(missing) > 1 else ""
    remedy = "lower dataset.validation or dataset.test_share, or add images of it"
    if count < FEW:
        remedy = (
            f"add images of it: there {'is' if count == 1 else 'are'} {count}, and it takes one for training, one for"
        )
        remedy += " validation and one for testing, twice as many for a search"
    elif settings.reduced is not None:
        remedy = (
            "raise dataset.reduced, lower dataset.validation, or add images of it (a search trains on half of them)"
        )
    name = shown(train.classes[missing[0]])
    raise InputError(f"dataset {settings.name}: class {name}{more} has no image left for training; {remedy}")


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
