"""The digits as the demonstrations use them: drawn by seed, changed by real ops, with ridge regression on pixels."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from jointsearch.data.digits import read_digits
from jointsearch.data.sets import ImageSet
from search_spaces.augment.op import OpNoise
from search_spaces.augment.table import OPS

CLASSES = 10


@dataclass(frozen=True, eq=False)
class Digits:
    """Some digits: images (n, 1, 8, 8) in [0, 1], float64, and labels (n,)."""

    images: Tensor
    labels: Tensor

    @property
    def pixels(self) -> Tensor:
        """The images as (n, 64)."""
        return self.images.flatten(1)

    @property
    def targets(self) -> Tensor:
        """What a regression is to output, (n, 10): one for the class and zero for others, less the mean."""
        return targets_of(self.labels)


@cache
def _all_digits() -> ImageSet:
    return read_digits()


def drawn_digits(seed: int, train: int, test: int) -> tuple[Digits, Digits]:
    """Images to train on and others to test on, drawn anew for every seed."""
    every = _all_digits()
    places = torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))[: train + test]
    images, labels = every.images[places].double() / 255, every.labels[places]
    return Digits(images[:train], labels[:train]), Digits(images[train:], labels[train:])


def targets_of(labels: Tensor) -> Tensor:
    """What a regression is to output for labels (n,)."""
    return one_hot(labels, CLASSES).double() - 1 / CLASSES


def changed(op: str, images: Tensor, amounts: Tensor, positions: Tensor | None = None) -> Tensor:
    """The images under an op; the sign of an amount (n,) in [-1, 1] is the direction, its size the magnitude.

    Positions (n, 2) in [0, 1) are those of Cutout; in the middle where none are given.
    """
    places = torch.full((len(images), 2), 0.5) if positions is None else positions
    noise = OpNoise(torch.where(amounts < 0, -1.0, 1.0).to(images), places.to(images), torch.arange(len(images)))
    return OPS[op](images, amounts.abs().to(images), noise)


def with_constant(points: Tensor) -> Tensor:
    """Features (..., d) with a one behind them, so that a linear model has an offset."""
    return torch.cat([points, torch.ones_like(points[..., :1])], -1)


def ridge(second_moment: Tensor, cross_moment: Tensor, decay: float) -> Tensor:
    """Weights (d, t) of ridge regression, from the means of x x' (d, d) and of x y' (d, t)."""
    return torch.linalg.solve(second_moment + decay * torch.eye(len(second_moment)).to(second_moment), cross_moment)


def percent_wrong(outputs: Tensor, labels: Tensor) -> float:
    """The share of images whose largest output is not their class, in percent."""
    return 100 * float((outputs.argmax(-1) != labels).double().mean())
