"""Splits a labelled set into stratified, seeded, disjoint parts, and orders the images of an epoch."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from jointsearch.data.sets import AnySet
from search_spaces.errors import InputError

CLASSES_SEED = 0  # of the classes that a search is given: the same with every seed, so that searches compare


def stratified_split(labels: Tensor, sizes: Sequence[int], seed: int) -> tuple[Tensor, ...]:
    """Disjoint sorted index tensors of exactly these sizes, each with the class shares of the whole.

    A part keeps its images when the sizes after it change.
    """
    if min(sizes, default=0) < 0 or sum(sizes) > len(labels):
        raise InputError(
            f"parts of {' + '.join(map(str, sizes))} images cannot be taken from {len(labels)}; "
            "lower dataset.reduced, dataset.validation or dataset.test_share"
        )
    labels = labels.cpu()
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    members = [shuffled[labels[shuffled] == label] for label in labels.unique().tolist()]
    parts = []
    for size in sizes:
        counts = _class_counts(torch.tensor([len(rows) for rows in members]), size)
        taken = [rows[:count] for rows, count in zip(members, counts, strict=True)]
        members = [rows[count:] for rows, count in zip(members, counts, strict=True)]
        parts.append(torch.cat([*taken, torch.empty(0, dtype=torch.int64)]).sort().values)
    return tuple(parts)


def epoch_order(images: Any, generator: torch.Generator) -> Tensor:
    """The images of one epoch of training in a random order: each once, or of a balanced set each class as often.

    Where there are groups, it is each group. One with fewer images repeats them, each once before any comes again; of
    one with more, some wait for a later epoch. An epoch is as long either way.
    """
    count = len(images)
    if not getattr(images, "balanced", False):  # sets of objects know no classes of images
        return torch.randperm(count, generator=generator)
    labels = images.strata.cpu()
    members = [torch.nonzero(labels == label).flatten() for label in labels.unique().tolist()]
    more = torch.randperm(len(members), generator=generator)  # the first of them get what is left over
    taken = []
    for rows, place in zip(members, more.tolist(), strict=True):
        wanted = count // len(members) + (place < count % len(members))
        rounds = [rows[torch.randperm(len(rows), generator=generator)] for _ in range(math.ceil(wanted / len(rows)))]
        taken += [torch.cat([*rounds, rows[:0]])[:wanted]]
    return torch.cat(taken)[torch.randperm(count, generator=generator)]


def search_halves(image_set: AnySet, seed: int) -> tuple[AnySet, AnySet]:
    """Two stratified, disjoint halves for a search: training images for weights, validation images for choices."""
    half = len(image_set) // 2
    train, validation = stratified_split(image_set.strata, (len(image_set) - half, half), seed)
    return image_set.subset(train), image_set.subset(validation)


def of_classes(image_set: AnySet, count: int) -> AnySet:
    """The images of so many classes, at most, which are numbered anew in the order that they had."""
    total = len(image_set.classes)
    drawn = torch.randperm(total, generator=torch.Generator().manual_seed(CLASSES_SEED))[:count].sort().values
    place = torch.full((total,), -1)
    place[drawn] = torch.arange(len(drawn))
    labels = place.to(image_set.labels.device)[image_set.labels]
    rows = torch.nonzero(labels >= 0).flatten()
    names = tuple(image_set.classes[label] for label in drawn.tolist())
    return replace(image_set.subset(rows), labels=labels[rows], classes=names)


def stratified_folds(labels: Tensor, count: int, seed: int) -> tuple[Tensor, ...]:
    """Disjoint parts of all images, as equal as can be, each with the class shares of the whole."""
    if len(labels) < count:
        raise InputError(f"{len(labels)} training images cannot be divided into {count} folds; lower searcher.folds")
    sizes = [len(labels) // count + (place < len(labels) % count) for place in range(count)]
    return stratified_split(labels, sizes, seed)


def _class_counts(available: Tensor, size: int) -> list[int]:
    """How many images each class gives to a part of this size: shares rounded down, then the largest remainders."""
    total = max(int(available.sum()), 1)
    scaled = available * size  # integers, so that equal classes have exactly equal remainders
    counts = scaled // total
    missing = size - int(counts.sum())
    counts[(scaled % total).argsort(descending=True, stable=True)[:missing]] += 1
    return counts.tolist()
