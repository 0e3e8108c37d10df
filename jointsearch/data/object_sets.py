"""Sets of images with objects: read from files by workers, batch after batch, or kept decoded in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from jointsearch.data.files import Finding
from jointsearch.data.objects import Annotation, Picture, collate
from jointsearch.data.sets import Batch
from search_spaces.errors import InputError


class PictureSource(Protocol):
    """A source of pictures by row. Worker processes get a copy, so it must support pickle."""

    @property
    def annotations(self) -> tuple[Annotation, ...]:
        """What is marked in each picture."""

    def size(self, row: int) -> tuple[int, int]:
        """Height and width of this picture, without reading it."""

    def read(self, row: int) -> Picture:
        """The picture of this row; a file that cannot be used raises InputError."""


@dataclass(frozen=True)
class ObjectSplits:
    """What a data set brings along, as sources of pictures by split, and what is odd about it."""

    sources: dict[str, PictureSource]
    classes: tuple[str, ...]
    warnings: tuple[Finding, ...] = ()


@dataclass(frozen=True, eq=False)
class ObjectSet:
    """Images with objects. It has the interface of ImageSet and StreamSet."""

    source: PictureSource
    rows: Tensor  # (N,) of the source
    classes: tuple[str, ...]
    workers: int = 2
    device: torch.device | str = "cpu"
    decoded: dict[int, Picture] | None = None  # by row, where the set is in memory

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the smallest frame that holds every image."""
        sizes = [self.source.size(row) for row in self.rows.tolist()] or [(1, 1)]
        return 3, max(height for height, _ in sizes), max(width for _, width in sizes)

    @property
    def annotations(self) -> tuple[Annotation, ...]:
        """What is marked in each image."""
        return tuple(self.source.annotations[row] for row in self.rows.tolist())

    def subset(self, index: Tensor) -> ObjectSet:
        """The images at these positions, in this order."""
        return replace(self, rows=self.rows[index.cpu()])

    def to(self, device: torch.device | str) -> ObjectSet:
        """The same set with its batches on another device."""
        return replace(self, device=device)

    def in_memory(self, decoded: dict[int, Picture]) -> ObjectSet:
        """The set with its images decoded. `decoded` holds those that were read before and takes in the others."""
        rows = [row for row in self.rows.tolist() if row not in decoded]
        workers = self.workers if len(rows) > 500 else 0
        for pictures in _read(self.source, [rows[first : first + 32] for first in range(0, len(rows), 32)], workers):
            decoded.update(pictures)
        return replace(self, decoded=decoded)

    def batches(self, order: Tensor, batch_size: int) -> Iterator[Batch]:
        """The images in exactly this order; the last batch may be short."""
        parts = order.cpu().split(batch_size) if len(order) else ()
        rows = [self.rows[part].tolist() for part in parts]
        read: Iterator[list[tuple[int, Picture]]] = _read(self.source, rows, self.workers)
        if (decoded := self.decoded) is not None:
            read = ([(row, decoded[row]) for row in some] for some in rows)
        for part, pictures in zip(parts, read, strict=True):
            images, objects = collate([picture for _, picture in pictures], self.classes)
            yield Batch(images.to(self.device), objects.to(self.device), part.to(self.device))

    def blank(self, count: int) -> Batch:
        """A batch of the largest shape with an object in every image, to try a step on."""
        _, height, width = self.image_shape
        box = torch.tensor([[0.25 * width, 0.25 * height, 0.75 * width, 0.75 * height]], dtype=torch.float64)
        areas, label = (box[:, 2:] - box[:, :2]).prod(1), torch.zeros(1, dtype=torch.int64)
        marked = Annotation("a blank image", "blank", (height, width), box, label, label > 0, areas)
        has_masks = self.source.annotations[0].outlines is not None
        masks = torch.ones(1, height, width, dtype=torch.bool) if has_masks else None
        picture = Picture(torch.zeros(3, height, width, dtype=torch.uint8), marked, masks)
        return Batch(*collate([picture] * count, self.classes), torch.arange(count)).to(self.device)

    def fingerprint(self) -> Iterator[bytes]:
        """What tells this set from others: classes, rows, names of files and all that is marked."""
        yield "\n".join(self.classes).encode()
        yield self.rows.numpy().tobytes()
        for annotation in self.annotations:
            yield annotation.file.encode(errors="surrogateescape")
            for marks in (annotation.boxes, annotation.labels, annotation.crowd, annotation.areas):
                yield marks.numpy().tobytes()
            yield json.dumps(annotation.outlines, default=str).encode()


def _read(source: PictureSource, rows: list[list[int]], workers: int) -> Iterator[list[tuple[int, Picture]]]:
    """The pictures of each list of rows, read by worker processes."""
    loader = DataLoader(
        _Pictures(source),
        batch_sampler=rows,
        num_workers=workers,
        collate_fn=_as_they_are,
        # Without a generator of its own the loader draws a seed from the global one.
        generator=torch.Generator(),
    )
    for read in loader:
        pictures = []
        for row, pixels, masks in read:
            if isinstance(pixels, InputError):
                raise pixels
            drawn = None if masks is None else torch.from_numpy(masks)
            pictures.append((row, Picture(torch.from_numpy(pixels), source.annotations[row], drawn)))
        yield pictures


@dataclass(frozen=True)
class _Pictures(Dataset):
    source: PictureSource

    def __getitem__(self, row: int) -> tuple[int, Any, Any]:
        # A loader wraps an exception of a worker into a traceback of many lines; a returned value arrives unchanged.
        # Arrays, because each tensor of a worker keeps a file open for as long as it is kept.
        try:
            picture = self.source.read(row)
        except InputError as error:
            return row, error, None
        masks = None if picture.masks is None else picture.masks.numpy()
        return row, picture.pixels.numpy(), masks


def _as_they_are(pictures: list) -> list:
    return pictures
