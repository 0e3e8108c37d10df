"""Streams of decoded images of one shape, from encoded images in files, archives or tables."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from jointsearch.data.decode import Form, image_shape
from jointsearch.data.files import shown
from jointsearch.data.groups import Groups
from jointsearch.data.sets import FoundSplits, StreamSet
from search_spaces.errors import InputError, nearest


class EncodedImages(Protocol):
    """Numbered image files of any source. Worker processes get a copy, so it must support pickle."""

    def data(self, row: int) -> bytes:
        """The bytes of this image file."""

    def name(self, row: int) -> str:
        """This image file, as messages show it."""

    def key(self, row: int) -> str:
        """This image file, as dataset.skip names it."""


@dataclass(frozen=True)
class Kept:
    """The image files that dataset.skip does not name."""

    encoded: EncodedImages
    rows: tuple[int, ...]

    def data(self, row: int) -> bytes:
        """The bytes of this image file."""
        return self.encoded.data(self.rows[row])

    def name(self, row: int) -> str:
        """This image file, as messages show it."""
        return self.encoded.name(self.rows[row])

    def key(self, row: int) -> str:
        """This image file, as dataset.skip names it."""
        return self.encoded.key(self.rows[row])


@dataclass(frozen=True)
class FoundFiles:
    """One split of a data set before anything is decoded."""

    encoded: EncodedImages
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    values: tuple[int, ...] = ()  # the place of each image's attribute, where any are told
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DecodedImages:
    """Images decoded on demand. An image of another shape than the first one is an error."""

    encoded: EncodedImages
    form: Form
    first: str
    image_shape: tuple[int, int, int]

    def read(self, row: int) -> Tensor:
        """The image of this row."""
        image = self.decoded(row)
        if image_shape(image) != self.image_shape:
            name = self.encoded.name(row)
            raise InputError(f"{name} {mixed_shapes(image_shape(image), self.first, self.image_shape)}")
        return image

    def decoded(self, row: int) -> Tensor:
        """The image of this row, of whatever shape it is."""
        try:
            return self.form.decode(self.encoded.data(row), self.encoded.name(row))
        except InputError as error:
            raise InputError(f"{error}, or leave it out: {skip_word([self.encoded.key(row)])}") from None


def without(found: dict[str, FoundFiles], skip: Collection[str]) -> dict[str, FoundFiles]:
    """The splits without the image files that `skip` names."""
    if not skip:
        return found
    kept, left = {}, set(skip)
    for split, files in found.items():
        keys = [files.encoded.key(row) for row in range(len(files.labels))]
        rows = tuple(row for row, key in enumerate(keys) if key not in skip)
        labels = tuple(files.labels[row] for row in rows)
        values = tuple(files.values[row] for row in rows) if files.attributes else ()
        kept[split] = FoundFiles(Kept(files.encoded, rows), labels, files.classes, values, files.attributes)
        left.difference_update(keys)
    if left:
        known = [files.encoded.key(row) for files in found.values() for row in range(min(len(files.labels), 1000))]
        raise InputError(f"dataset.skip names {shown(min(left))}, which is not there; {nearest(min(left), known)}")
    return kept


def skip_word(keys: Sequence[str]) -> str:
    """The word of a command line that leaves these image files out."""
    if all(re.fullmatch(r"[A-Za-z0-9_./-]+", key) for key in keys):
        return f"dataset.skip=[{','.join(keys)}]"
    quoted = ",".join("'" + key.replace("\\", "\\\\").replace("'", "\\'") + "'" for key in keys)
    return f'"dataset.skip=[{quoted}]"'


def streamed(found: dict[str, FoundFiles], form: Form, workers: int, balanced: bool = False) -> FoundSplits:
    """The splits as streams; the first training image gives the shape of all."""
    train = found["train"].encoded
    if not found["train"].labels:
        raise InputError("no training image is left; name fewer in dataset.skip")
    first = DecodedImages(train, form, train.name(0), (0, 0, 0))
    shape = image_shape(first.decoded(0))
    sets = {
        split: StreamSet(
            DecodedImages(files.encoded, form, train.name(0), shape),
            torch.arange(len(files.labels)),
            torch.tensor(files.labels, dtype=torch.int64),
            files.classes,
            shape,
            workers,
            balanced=balanced,
            groups=_groups(files),
        )
        for split, files in found.items()
    }
    return FoundSplits(sets["train"], sets.get("validation"), sets.get("test"))


def _groups(files: FoundFiles) -> Groups | None:
    if not files.attributes:
        return None
    return Groups.of(torch.tensor(files.labels), torch.tensor(files.values), files.attributes)


def mixed_shapes(shape: tuple[int, int, int], other: str, other_shape: tuple[int, int, int]) -> str:
    """The error text about an image that does not have the shape of another file's."""
    return (
        f"is {shape_text(shape)} and {other} is {shape_text(other_shape)}; "
        "set dataset.image_size (and dataset.channels) to bring all images to one form"
    )


def shape_text(shape: tuple[int, int, int]) -> str:
    """A shape in words."""
    channels, height, width = shape
    return f"{width}x{height} px with {channels} channel{'s' if channels > 1 else ''}"
