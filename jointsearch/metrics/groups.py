"""Accuracy of groups of images: of each, of the worst one, and how far those of a class are apart."""

from collections.abc import Sequence

import torch
from torch import Tensor

from jointsearch.data.groups import Groups

WORST = "worst_group_accuracy"  # the robust accuracy of the papers
LARGEST = "largest_group_gap"
OF_GROUP, GAP = "group_accuracy", "group_gap"  # before the name of a group, and of a class


def group_accuracies(groups: Groups, right: Tensor, classes: int) -> Tensor:
    """The share of each group's images that is right, in percent, (classes, attributes); NaN where there is none."""
    shape = (classes, len(groups.attributes))
    numbers = groups.numbers.cpu()
    held, hits = (torch.bincount(part, minlength=shape[0] * shape[1]) for part in (numbers, numbers[right.cpu()]))
    return (100 * hits.double() / held).view(shape)


def worst_group(accuracies: Tensor) -> float:
    """The accuracy of the worst group of which there are images."""
    return float(accuracies[~accuracies.isnan()].min())


def group_scores(accuracies: Tensor, classes: Sequence[str], names: Sequence[str]) -> dict[str, float]:
    """The accuracy of each group, and of each class by how much its best group is above its worst, in percent.

    What has no images is left out, and so is the gap of a class with one group.
    """
    scores, gaps = {}, {}
    for place, name in enumerate(classes):
        known = [value for value in accuracies[place].tolist() if value == value]
        if len(known) > 1:
            gaps[f"{GAP}/{name}"] = max(known) - min(known)
    if gaps:
        scores[LARGEST] = max(gaps.values())
    every = zip(names, accuracies.flatten().tolist(), strict=True)
    return scores | gaps | {f"{OF_GROUP}/{name}": value for name, value in every if value == value}
