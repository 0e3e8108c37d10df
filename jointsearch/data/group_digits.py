"""Digits with an attribute that goes with their class in training images and not in test images.

Classes are even and odd, as in MNIST-correlation of Goel et al. (ICLR 2021). Colored digits are red or green; of zigzag
digits some have a bright zigzag line across. Of every group the same digits are drawn on each call.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from jointsearch.data.digits import read_digits
from jointsearch.data.groups import Groups
from jointsearch.data.sets import FoundSplits, ImageSet
from jointsearch.data.splits import stratified_split

CLASSES = ("even", "odd")
COLORS, LINES = ("red", "green"), ("clean", "zigzag")
COUNTS = (400, 600)  # validation and test images, as many of every group; the others train
SPLIT_SEED = 0
RED, GREEN = 0, 1  # channels
TEETH = (0, 1, 2, 1)  # rows of the zigzag, column by column, below its highest one


def colored_digits(correlation: float, balanced: bool) -> FoundSplits:
    """Red and green digits; `correlation` of the even training digits are red, and of the odd ones green."""
    return _splits(correlation, balanced, COLORS, _colored, recolored)


def zigzag_digits(correlation: float, balanced: bool) -> FoundSplits:
    """Gray digits; `correlation` of the even training digits are clean, and of the odd ones crossed by a zigzag."""
    return _splits(correlation, balanced, LINES, _crossed, None)


def recolored(images: Tensor, groups: Tensor, to: int) -> Tensor:
    """The true translator of colored digits: those of the other color have red and green exchanged."""
    other = (groups % len(COLORS) != to).view(-1, 1, 1, 1)
    return torch.where(other, images[:, [GREEN, RED, 2]], images)


def _splits(
    correlation: float,
    balanced: bool,
    attributes: tuple[str, ...],
    draw: Callable[[Tensor, Tensor, torch.Generator], Tensor],
    translate: Callable[[Tensor, Tensor, int], Tensor] | None,
) -> FoundSplits:
    digits = read_digits()
    parity = digits.labels % 2
    held = stratified_split(digits.labels, COUNTS, SPLIT_SEED)
    left = torch.ones(len(digits), dtype=torch.bool)
    left[torch.cat(held)] = False
    sets = []
    for seed, rows in enumerate((torch.nonzero(left).flatten(), *held)):
        generator = torch.Generator().manual_seed(seed)
        labels = parity[rows]
        values = _attributes(labels, correlation if seed == 0 else 0.5, generator)
        images = draw(digits.images[rows], values, generator)
        groups = Groups.of(labels, values, attributes, translate)
        sets.append(ImageSet(images, labels, CLASSES, balanced=balanced and seed == 0, groups=groups))
    return FoundSplits(*sets)


def _attributes(labels: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """An attribute for each image (N,): of each class this share has the one at its own place, exactly."""
    values = labels.clone()
    for label in range(len(CLASSES)):
        rows = torch.nonzero(labels == label).flatten()
        others = rows[torch.randperm(len(rows), generator=generator)[round(share * len(rows)) :]]
        values[others] = 1 - label
    return values


def _colored(images: Tensor, colors: Tensor, generator: torch.Generator) -> Tensor:
    """Gray images (N, 1, 8, 8) on the channel of their color, (N, 3, 8, 8)."""
    channels = torch.zeros(len(images), 3, *images.shape[2:], dtype=images.dtype)
    channels[torch.arange(len(images)), colors] = images[:, 0]
    return channels


def _crossed(images: Tensor, lines: Tensor, generator: torch.Generator) -> Tensor:
    """Gray images (N, 1, 8, 8), some of them with a white zigzag that begins at a row and a tooth of its own."""
    count, _, height, width = images.shape
    teeth = torch.tensor(TEETH)
    first = torch.randint(len(TEETH), (count, 1), generator=generator)
    top = torch.randint(height - max(TEETH), (count, 1), generator=generator)
    rows = top + teeth[(first + torch.arange(width)) % len(TEETH)]  # (N, W)
    line = torch.arange(height).view(1, -1, 1) == rows.unsqueeze(1)  # (N, H, W)
    return images.masked_fill((line & lines.bool().view(-1, 1, 1)).unsqueeze(1), 255)
