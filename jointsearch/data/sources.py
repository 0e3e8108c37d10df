"""Streams of decoded images of one shape, from encoded images in files, archives or tables."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from jointsearch.data.decode import Form, image_shape
from jointsearch.data.sets import FoundSplits, StreamSet
from search_spaces.errors import InputError


class EncodedImages(Protocol):
    """Numbered image files of any source. Worker processes get a copy, so it must support pickle."""

    def data(self, row: int) -> bytes:
        """The bytes of this image file."""

    def name(self, row: int) -> str:
        """This image file, as messages show it."""


@dataclass(frozen=True)
class FoundFiles:
    """One split of a data set before anything is decoded."""

    encoded: EncodedImages
    labels: tuple[int, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class DecodedImages:
    """Images decoded on demand. An image of another shape than the first one is an error."""

    encoded: EncodedImages
    form: Form
    first: str
    image_shape: tuple[int, int, int]

    def read(self, row: int) -> Tensor:
        """The image of this row."""
        name = self.encoded.name(row)
        image = self.form.decode(self.encoded.data(row), name)
        if image_shape(image) != self.image_shape:
            raise InputError(f"{name} {mixed_shapes(image_shape(image), self.first, self.image_shape)}")
        return image


def streamed(found: dict[str, FoundFiles], form: Form, workers: int) -> FoundSplits:
    """The splits as streams; the first training image gives the shape of all."""
    train = found["train"].encoded
    shape = image_shape(form.decode(train.data(0), train.name(0)))
    sets = {
        split: StreamSet(
            DecodedImages(files.encoded, form, train.name(0), shape),
            torch.arange(len(files.labels)),
            torch.tensor(files.labels, dtype=torch.int64),
            files.classes,
            shape,
            workers,
        )
        for split, files in found.items()
    }
    return FoundSplits(sets["train"], sets.get("validation"), sets.get("test"))


def mixed_shapes(shape: tuple[int, int, int], other: str, other_shape: tuple[int, int, int]) -> str:
    """The error text about an image that does not have the shape of another file's."""
    return (
        f"is {_shape_text(shape)} and {other} is {_shape_text(other_shape)}; "
        "set dataset.image_size (and dataset.channels) to bring all images to one form"
    )


def _shape_text(shape: tuple[int, int, int]) -> str:
    channels, height, width = shape
    return f"{width}x{height} px with {channels} channel{'s' if channels > 1 else ''}"
