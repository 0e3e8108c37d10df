"""Drawn images with one to four shapes each, with exact boxes and masks: for tests of detectors."""

import math
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from jointsearch.data.object_sets import ObjectSplits, PictureSource
from jointsearch.data.objects import Annotation, Picture, tight_boxes
from jointsearch.data.shapes import CLASSES, FINE, POLARITIES, tetromino_masks

SIDE = 64
COUNTS = {"train": 400, "test": 200}
MAX_TURN_DEGREES = 15.0
JITTER = 5.0  # pixels by which a shape lies off the middle of its quarter of the image
QUARTERS = 4


@dataclass(frozen=True)
class DrawnSource:
    """Pictures that were drawn."""

    pictures: tuple[Picture, ...]

    @property
    def annotations(self) -> tuple[Annotation, ...]:
        """What is marked in each."""
        return tuple(picture.annotation for picture in self.pictures)

    def size(self, row: int) -> tuple[int, int]:
        """Height and width of this picture."""
        return self.pictures[row].annotation.size

    def read(self, row: int) -> Picture:
        """The picture of this row."""
        return self.pictures[row]


@cache
def read_object_shapes(masks: bool) -> ObjectSplits:
    """The training and test images, the same on every call."""
    sources: dict[str, PictureSource] = {
        split: DrawnSource(draw_pictures(count, masks, torch.Generator().manual_seed(seed)))
        for seed, (split, count) in enumerate(COUNTS.items())
    }
    return ObjectSplits(sources, CLASSES)


def draw_pictures(count: int, masks: bool, generator: torch.Generator) -> tuple[Picture, ...]:
    """Pictures of SIDE x SIDE. Each quarter holds a shape of any class with probability 5/8, and one quarter always."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator) * (high - low) + low

    every = count * QUARTERS
    labels = torch.randint(len(CLASSES), (every,), generator=generator)
    turn = uniform(-1, 1, every) * math.radians(MAX_TURN_DEGREES)
    middle = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]).repeat(count, 1) * SIDE / 4
    shift = middle + uniform(-1, 1, every, 2) * JITTER
    fine = tetromino_masks(labels // len(POLARITIES), uniform(5.0, 7.0, every), turn, shift, SIDE)  # (4 B, 1, 128, 128)
    coverage = avg_pool2d(fine.float(), FINE)  # (4 B, 1, 64, 64)
    there = torch.rand(count, QUARTERS, generator=generator) < 0.625
    there |= torch.arange(QUARTERS) == torch.randint(QUARTERS, (count, 1), generator=generator)
    images = uniform(0.4, 0.6, count, 3, 1, 1).expand(-1, -1, SIDE, SIDE)
    sign = torch.where(labels % len(POLARITIES) == 1, -1.0, 1.0).view(-1, 1, 1, 1)
    color = sign * uniform(0.25, 0.4, every, 3, 1, 1)
    parts = (coverage * color).unflatten(0, (count, QUARTERS)) * there[:, :, None, None, None]
    images = images + parts.sum(1) + 0.04 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    pixels = images.clamp(0, 1).mul(255).round().to(torch.uint8)
    shapes = (coverage >= 0.5).unflatten(0, (count, QUARTERS)).squeeze(2)  # (B, 4, 64, 64)
    numbers = labels.view(count, QUARTERS)
    return tuple(
        _picture(place, pixels[place], numbers[place][here], shapes[place][here], masks)
        for place, here in enumerate(there)
    )


def _picture(place: int, pixels: Tensor, labels: Tensor, masks: Tensor, with_masks: bool) -> Picture:
    marked = Annotation(
        f"shapes image {place}",
        f"{place}.png",
        (SIDE, SIDE),
        tight_boxes(masks)[0].double(),
        labels,
        torch.zeros(len(labels), dtype=torch.bool),
        masks.sum((1, 2)).double(),
        tuple({"size": [SIDE, SIDE], "counts": _runs(mask)} for mask in masks) if with_masks else None,
    )
    return Picture(pixels, marked, masks if with_masks else None)


def _runs(mask: Tensor) -> list[int]:
    """Run lengths down the columns, beginning with pixels outside of the mask, as COCO writes them."""
    values = torch.cat([torch.zeros(1, dtype=torch.int8), mask.T.flatten().to(torch.int8)])
    changes = (values.diff() != 0).nonzero().flatten().tolist()
    bounds = [0, *changes, mask.numel()]
    return [end - start for start, end in pairwise(bounds)]
