"""Images with objects in them: what is marked in an image, and batches of images of different sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

# Of an object: polygons [[x, y, x, y, ...], ...] in pixels, or run lengths {"size": [h, w], "counts": ...} as COCO has.
Outline = list[list[float]] | dict[str, Any]


@dataclass(frozen=True, eq=False)
class Annotation:
    """What is marked in one image, in pixels of its file."""

    name: str  # where it is marked, as messages show it
    file: str  # the image, without the folder of its data set
    size: tuple[int, int]  # height, width
    boxes: Tensor  # (n, 4) float64 as x0 y0 x1 y1
    labels: Tensor  # (n,) int64
    crowd: Tensor  # (n,) bool: a group, or too difficult: it is not trained on, and nobody is asked to find it
    areas: Tensor  # (n,) float64
    outlines: tuple[Outline, ...] | None = None  # of the masks, where they are read


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded image with what is marked in it, both at the size at which it is trained on."""

    pixels: Tensor  # (C, h, w) uint8
    annotation: Annotation
    masks: Tensor | None = None  # (n, h, w) bool


@dataclass(frozen=True, eq=False)
class Padded:
    """Images of different sizes in one tensor: each at the top left of (B, C, H, W), zeros beside and below it."""

    pixels: Tensor
    sizes: Tensor  # (B, 2) height and width of each, on the CPU

    def __len__(self) -> int:
        return len(self.pixels)

    def rows(self, places: slice) -> Padded:
        """Some of the images."""
        return Padded(self.pixels[places], self.sizes[places])

    def each(self) -> list[Tensor]:
        """The images without what was added to them, (C, h, w) each."""
        return [image[:, :h, :w] for image, (h, w) in zip(self.pixels, self.sizes.tolist(), strict=True)]

    def groups(self) -> list[tuple[tuple[int, int], Tensor]]:
        """Each size (h, w) once, with the places of its images."""
        sizes, member = self.sizes.unique(dim=0, return_inverse=True)
        return [((h, w), (member == group).nonzero().flatten()) for group, (h, w) in enumerate(sizes.tolist())]

    def map(self, change: Callable[[Tensor], Tensor]) -> Padded:
        """The images after a change (B, C, h, w) -> (B, C, h, w) that is applied to all of one size together."""
        changed = None
        for (h, w), places in self.groups():
            part = change(self.pixels[places, :, :h, :w])
            if changed is None:
                changed = torch.zeros_like(self.pixels, dtype=part.dtype)
            changed[places, :, :h, :w] = part
        return self if changed is None else replace(self, pixels=changed)

    def to(self, device: torch.device | str) -> Padded:
        """The same images on another device."""
        return replace(self, pixels=self.pixels.to(device, non_blocking=True))

    def contiguous(self, memory_format: torch.memory_format = torch.contiguous_format) -> Padded:
        """The same images, laid out in memory as torch's method of this name does it."""
        return replace(self, pixels=self.pixels.contiguous(memory_format=memory_format))


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of a batch of images, in pixels of the batch; label -1 stands where an image has fewer than M."""

    boxes: Tensor  # (B, M, 4) as x0 y0 x1 y1
    labels: Tensor  # (B, M) int64
    sizes: Tensor  # (B, 2) height and width of each image, on the CPU
    masks: Tensor | None  # (B, M, H, W) bool
    annotations: tuple[Annotation, ...]  # the same as they are marked in the files, with crowds
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.boxes)

    def to(self, device: torch.device | str) -> Objects:
        """The same objects on another device."""
        masks = None if self.masks is None else self.masks.to(device, non_blocking=True)
        return replace(self, boxes=self.boxes.to(device), labels=self.labels.to(device), masks=masks)

    def rows(self, places: slice) -> Objects:
        """The objects of some of the images."""
        masks = None if self.masks is None else self.masks[places]
        parts = {name: getattr(self, name)[places] for name in ("boxes", "labels", "sizes", "annotations")}
        return replace(self, masks=masks, **parts)


def size_within(size: tuple[int, int], shorter: int | None, longer: int | None) -> tuple[int, int]:
    """Height and width after scaling: the shorter side gets `shorter` pixels, unless the other exceeded `longer`."""
    if shorter is None:
        return size
    scale = shorter / min(size)
    if longer is not None:
        scale = min(scale, longer / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def scaled(picture: Picture, size: tuple[int, int]) -> Picture:
    """A picture at another size (h, w)."""
    if picture.pixels.shape[1:] == size:
        return picture
    pixels = interpolate(picture.pixels[None], size, mode="bilinear", antialias=True)[0]
    masks = picture.masks
    if masks is not None and len(masks):
        masks = interpolate(masks[None].float(), size, mode="bilinear", antialias=True)[0] >= 0.5
    elif masks is not None:
        masks = masks.new_zeros(0, *size)
    return replace(picture, pixels=pixels, masks=masks)


def tight_boxes(masks: Tensor) -> tuple[Tensor, Tensor]:
    """The tightest boxes (..., 4) of masks (..., H, W), and which masks are empty (...)."""
    height, width = masks.shape[-2:]
    columns, rows = masks.any(-2).int(), masks.any(-1).int()
    edges = (
        columns.argmax(-1),
        rows.argmax(-1),
        width - columns.flip(-1).argmax(-1),
        height - rows.flip(-1).argmax(-1),
    )
    return torch.stack(edges, -1).float(), ~columns.any(-1)


def collate(pictures: Sequence[Picture], classes: tuple[str, ...]) -> tuple[Padded, Objects]:
    """Pictures as a batch. Crowds are left out of the boxes: no detector is trained on them."""
    sizes = torch.tensor([picture.pixels.shape[1:] for picture in pictures])
    height, width = sizes.amax(0).tolist()
    kept = [~picture.annotation.crowd for picture in pictures]
    most = max(int(keep.sum()) for keep in kept)
    count, channels = len(pictures), pictures[0].pixels.shape[0]
    pixels = torch.zeros(count, channels, height, width, dtype=torch.uint8)
    boxes, labels = torch.zeros(count, most, 4), torch.full((count, most), -1)
    masks = None if pictures[0].masks is None else torch.zeros(count, most, height, width, dtype=torch.bool)
    for row, (picture, keep) in enumerate(zip(pictures, kept, strict=True)):
        h, w = picture.pixels.shape[1:]
        pixels[row, :, :h, :w] = picture.pixels
        whole, here = picture.annotation.size, int(keep.sum())
        scale = torch.tensor([w / whole[1], h / whole[0]]).repeat(2)
        boxes[row, :here] = picture.annotation.boxes[keep].float() * scale
        labels[row, :here] = picture.annotation.labels[keep]
        if masks is not None and picture.masks is not None:
            masks[row, :here, :h, :w] = picture.masks[keep]
    annotations = tuple(picture.annotation for picture in pictures)
    return Padded(pixels, sizes), Objects(boxes, labels, sizes, masks, annotations, classes)
