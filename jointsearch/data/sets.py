"""Labelled images with one interface, in memory on the device or streamed from workers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from jointsearch.data.groups import Grouped, Groups
from search_spaces.errors import InputError


@dataclass(frozen=True, eq=False)
class Batch:
    """Images (B,C,H,W) uint8 or float in [0,1], with their labels (B,) and their positions in the set (B,).

    In a set of images with objects they are `Padded` and `Objects`, of data/objects.py.
    """

    images: Any
    labels: Any
    index: Tensor
    groups: Groups | None = None  # where the set has any

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        groups = None if self.groups is None else self.groups.to(device)
        return Batch(self.images.to(device), self.labels.to(device), self.index.to(device), groups)

    @property
    def targets(self) -> Any:
        """The labels, with the groups where there are any."""
        return self.labels if self.groups is None else Grouped(self.labels, self.groups)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A set with all images in memory, on the device that uses them."""

    images: Tensor  # (N, C, H, W) uint8
    labels: Tensor  # (N,) int64
    classes: tuple[str, ...]
    boxes: Tensor | None = None  # (N, 4) float, x1 y1 x2 y2 in pixels
    balanced: bool = False  # whether a training sees as many images of every class, or group where there are any
    groups: Groups | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @property
    def strata(self) -> Tensor:
        """What every part of the set keeps its share of (N,): groups, or classes."""
        return self.labels if self.groups is None else self.groups.numbers

    def subset(self, index: Tensor) -> ImageSet:
        """The images at these positions, in this order."""
        index = index.to(self.images.device)
        boxes = None if self.boxes is None else self.boxes[index]
        groups = None if self.groups is None else self.groups.at(index)
        return replace(self, images=self.images[index], labels=self.labels[index], boxes=boxes, groups=groups)

    def to(self, device: torch.device | str) -> ImageSet:
        """The same set on another device."""
        boxes = None if self.boxes is None else self.boxes.to(device)
        groups = None if self.groups is None else self.groups.to(device)
        return replace(self, images=self.images.to(device), labels=self.labels.to(device), boxes=boxes, groups=groups)

    def blank(self, count: int) -> Batch:
        """A batch of black images of every class in turn, to try a step on."""
        return _blank(self, count, self.images.device)

    def fingerprint(self) -> Iterator[bytes]:
        """What tells this set from others: classes, labels, groups and pixels."""
        yield "\n".join(self.classes).encode()
        yield from (_bytes(self.labels), _bytes(self.images), *_of_groups(self.groups))

    def batches(self, order: Tensor, batch_size: int) -> Iterator[Batch]:
        """The images in exactly this order; the last batch may be short."""
        for index in _parts(order.to(self.images.device), batch_size):
            groups = None if self.groups is None else self.groups.at(index)
            yield Batch(self.images[index], self.labels[index], index, groups)


class ImageSource(Protocol):
    """A source of uint8 images (C,H,W) by row. Worker processes get a copy, so it must support pickle."""

    def read(self, row: int) -> Tensor:
        """The image of this row; a file that cannot be used raises InputError."""


@dataclass(frozen=True, eq=False)
class StreamSet:
    """A set whose images are read, decoded and resized by worker processes, batch after batch."""

    source: ImageSource
    rows: Tensor  # (N,) where each image lies in the source
    labels: Tensor  # (N,) int64
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    workers: int = 2
    device: torch.device | str = "cpu"
    balanced: bool = False  # whether a training sees as many images of every class, or group where there are any
    groups: Groups | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def strata(self) -> Tensor:
        """What every part of the set keeps its share of (N,): groups, or classes."""
        return self.labels if self.groups is None else self.groups.numbers

    def subset(self, index: Tensor) -> StreamSet:
        """The images at these positions, in this order."""
        rows, labels = self.rows[index.to(self.rows.device)], self.labels[index.to(self.labels.device)]
        return replace(self, rows=rows, labels=labels, groups=None if self.groups is None else self.groups.at(index))

    def to(self, device: torch.device | str) -> StreamSet:
        """The same set with its batches on another device."""
        groups = None if self.groups is None else self.groups.to(device)
        return replace(self, labels=self.labels.to(device), groups=groups, device=device)

    def blank(self, count: int) -> Batch:
        """A batch of black images of every class in turn, to try a step on."""
        return _blank(self, count, self.device)

    def fingerprint(self) -> Iterator[bytes]:
        """What tells this set from others: classes, labels, groups and rows."""
        yield "\n".join(self.classes).encode()
        yield from (_bytes(self.labels), _bytes(self.rows), *_of_groups(self.groups))

    def batches(self, order: Tensor, batch_size: int) -> Iterator[Batch]:
        """The images in exactly this order; the last batch may be short."""
        parts = _parts(order.cpu(), batch_size)
        loader = DataLoader(
            _Rows(self.source),
            batch_sampler=[self.rows[part].tolist() for part in parts],
            num_workers=self.workers,
            collate_fn=_stack,
            pin_memory=torch.device(self.device).type == "cuda",
            # Without a generator of its own the loader draws a seed from the global one.
            generator=torch.Generator(),
        )
        for part, images in zip(parts, loader, strict=True):
            if isinstance(images, InputError):
                raise images
            index = part.to(self.device)
            groups = None if self.groups is None else self.groups.at(index)
            yield Batch(images.to(self.device, non_blocking=True), self.labels[index], index, groups)

    def in_memory(self, decoded: dict[int, Tensor] | None = None) -> ImageSet:
        """The set in memory. `decoded` holds images that were read before, by row, and takes in the others."""
        decoded = {} if decoded is None else decoded
        rows = self.rows.tolist()
        missing = torch.tensor([place for place, row in enumerate(rows) if row not in decoded], dtype=torch.int64)
        # Starting two workers costs about 0.1 s; decoding 500 small images costs less.
        stream = replace(self, workers=self.workers if len(missing) > 500 else 0, device="cpu")
        for batch in stream.batches(missing, 128):
            decoded.update(zip((rows[place] for place in batch.index.tolist()), batch.images, strict=True))
        images = [decoded[row] for row in rows]
        stacked = torch.stack(images) if images else torch.empty(0, *self.image_shape, dtype=torch.uint8)
        return ImageSet(stacked.to(self.device), self.labels, self.classes, balanced=self.balanced, groups=self.groups)


AnySet: TypeAlias = ImageSet | StreamSet


@dataclass(frozen=True, eq=False)
class DataSplits:
    """The three parts of a data set: ImageSet, StreamSet or ObjectSet. Validation is empty if nothing is held out."""

    train: Any
    validation: Any
    test: Any

    @cached_property
    def digest(self) -> str:
        """A fingerprint of classes, labels and images, or rows of a stream: equal sizes may hide other images."""
        digest = hashlib.sha256()
        for part in (self.train, self.validation, self.test):
            for content in part.fingerprint():
                digest.update(content)
        return digest.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class FoundSplits:
    """The splits that a data set itself provides; None if it has no such split."""

    train: AnySet
    validation: AnySet | None = None
    test: AnySet | None = None


@dataclass(frozen=True)
class _Rows(Dataset):
    source: ImageSource

    def __getitem__(self, row: int) -> Tensor | InputError:
        # A loader wraps an exception of a worker into a traceback of many lines; a returned value arrives unchanged.
        try:
            return self.source.read(row)
        except InputError as error:
            return error


def _stack(images: list[Tensor | InputError]) -> Tensor | InputError:
    for image in images:
        if isinstance(image, InputError):
            return image
    return torch.stack([image for image in images if isinstance(image, Tensor)])


def _blank(images: ImageSet | StreamSet, count: int, device: torch.device | str) -> Batch:
    pixels, places = torch.zeros(count, *images.image_shape, dtype=torch.uint8), torch.arange(count)
    labels, groups = places % len(images.classes), images.groups
    if groups is not None:
        values = places // len(images.classes) % len(groups.attributes)
        groups = Groups.of(labels, values, groups.attributes, groups.translate)
    return Batch(pixels, labels, places, groups).to(device)


def _of_groups(groups: Groups | None) -> Iterator[bytes]:
    if groups is not None:
        yield "\n".join(groups.attributes).encode()
        yield _bytes(groups.numbers)


def _bytes(values: Tensor) -> bytes:
    return values.cpu().contiguous().numpy().tobytes()


def _parts(order: Tensor, batch_size: int) -> tuple[Tensor, ...]:
    return order.split(batch_size) if len(order) else ()
