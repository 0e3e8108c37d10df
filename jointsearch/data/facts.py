"""What a data set holds, in lines for a person: classes, splits, sizes, colors, and what one may want to set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jointsearch.data.always_on import always_on
from jointsearch.data.check_text import counted
from jointsearch.data.files import shown
from jointsearch.data.load import divided
from jointsearch.data.sets import FoundSplits

SIZES = (224, 192, 160, 128, 96, 64, 48, 32)  # that are suggested; networks halve them several times
ENLARGED = 0.1  # share of the images that a suggested size may enlarge
LISTED = 12  # classes that are listed one by one
CLOSE = 0.05  # of mean or std, from the measured one, that makes no difference


@dataclass(frozen=True)
class Photo:
    """The facts about one image: its size in the file, whether it trains, and the mean of its pixels and squares."""

    height: int
    width: int
    trains: bool
    mean: Tensor  # (C,)
    square: Tensor  # (C,)

    @classmethod
    def of(cls, whole: Tensor, image: Tensor, trains: bool) -> Photo:
        """Of an image as it is in the file (C, H, W), and as it is trained on."""
        pixels = image.float().flatten(1) / 255
        return cls(whole.shape[1], whole.shape[2], trains, pixels.mean(1), pixels.square().mean(1))

    @property
    def side(self) -> int:
        """Its shorter side."""
        return min(self.height, self.width)


def class_facts(classes: Sequence[str], labels: Sequence[int]) -> str:
    """How many images there are, of which classes."""
    count_of = Counter(labels)
    pairs = [(f"{shown(name)} ({count_of[label]:,})", count_of[label]) for label, name in enumerate(classes)]
    by_size = sorted(pairs, key=lambda pair: pair[1])
    text = f"{counted(len(labels), 'image')} in {counted(len(classes), 'class')}: "
    if len(classes) > LISTED:
        few, most = (", ".join(name for name, _ in some) for some in (by_size[:3], by_size[:-4:-1]))
        return f"{text}the smallest {few}; the largest {most}"
    text += ", ".join(name for name, _ in pairs)
    even = not classes or by_size[0][1] == by_size[-1][1]
    return text if even else f"{text}; the smallest {by_size[0][0]}, the largest {by_size[-1][0]}"


def split_facts(found: FoundSplits, settings: Any) -> str:
    """How many images train, validate and test, and where that is said."""
    train, validation, test = divided(found, settings, 0)
    held = [
        f"dataset.{name}={getattr(settings, name)}"
        for name, own in (("test_share", found.test), ("validation", found.validation))
        if own is None and name in vars(settings) and getattr(settings, name)
    ]
    how = f" (held out: {', '.join(held)})" if held else ""
    halves = "" if found.validation is not None else "; a search inside one training trains on half of them"
    return f"training {len(train):,}, validation {len(validation):,}, test {len(test):,}{how}{halves}"


def photo_facts(photos: list[Photo], settings: Any) -> list[str]:
    """Sizes of images in files, how they are changed, and what one may want to set instead."""
    lines = [f"always on: {always_on(settings)}"]
    if not photos:
        return lines
    advice = [*_size_advice(photos, settings), *_color_advice(photos, settings)]
    if not settings.standard.flip:
        advice.append(
            "dataset.standard.flip=true if an image keeps its class in the mirror (no letters, left or right)"
        )
    if settings.standard.resized_crop is None:
        advice.append("dataset.standard.resized_crop.smallest=0.25 for random crops if the subject is large or small")
    return [_sizes(photos), *lines, "you may want to set:", *(f"  {line}" for line in advice)]


def suggested_size(photos: list[Photo]) -> int:
    """The largest of the usual sizes that enlarges at most a tenth of the images."""
    sides = sorted(photo.side for photo in photos)
    side = sides[int(ENLARGED * len(sides))] if sides else SIZES[-1]
    return next((size for size in SIZES if size <= side), side)


def _sizes(photos: list[Photo]) -> str:
    counts = Counter((photo.width, photo.height) for photo in photos).most_common()
    listed = ", ".join(f"{width}x{height} ({count:,})" for (width, height), count in counts[:3])
    sides = [photo.side for photo in photos]
    more = f" and {len(counts) - 3:,} other sizes" if len(counts) > 3 else ""
    span = f"; shorter sides from {min(sides):,} to {max(sides):,}" if min(sides) < max(sides) else ""
    tall = sum(photo.height != photo.width for photo in photos)
    square = f"; {counted(tall, 'image')} not square" if tall else ""
    return f"pixels, width x height: {listed}{more}{span}{square}"


def _size_advice(photos: list[Photo], settings: Any) -> list[str]:
    size, best = settings.image_size, suggested_size(photos)
    advice = []
    small = sum(photo.side < (size or 0) for photo in photos)
    if size is None and len({(photo.height, photo.width) for photo in photos}) > 1:
        advice.append(f"dataset.image_size={best} brings them to one size; half the side takes a quarter of the time")
    elif size is None and best > SIZES[-1]:
        advice.append(f"dataset.image_size={best // 2} trains in about a quarter of the time, and shows less")
    elif small:
        advice.append(f"dataset.image_size={best}: {size} enlarges {small:,} of {counted(len(photos), 'image')}")
    if settings.fit == "crop" and any(photo.height != photo.width for photo in photos):
        advice.append("dataset.fit=pad keeps all of an image that is not square, dataset.fit=stretch distorts it")
    return advice


def _color_advice(photos: list[Photo], settings: Any) -> list[str]:
    """The measured mean and std of the training images, where they are all gray or all colored."""
    trained = [photo for photo in photos if photo.trains]
    if len({len(photo.mean) for photo in trained}) != 1:
        return []
    mean = torch.stack([photo.mean for photo in trained]).mean(0)
    std = (torch.stack([photo.square for photo in trained]).mean(0) - mean.square()).clamp(min=0).sqrt()
    now = [torch.tensor(values) for values in (settings.standard.mean, settings.standard.std)]
    if max(float((one - other).abs().max()) for one, other in zip((mean, std), now, strict=True)) < CLOSE:
        return []
    measured = [f"[{','.join(f'{value:.3f}' for value in values.tolist())}]" for values in (mean, std)]
    pretrained = (
        "dataset.standard.mean=imagenet dataset.standard.std=imagenet for a network that was trained on ImageNet"
    )
    return [f"dataset.standard.mean={measured[0]} dataset.standard.std={measured[1]} as measured here", pretrained]
