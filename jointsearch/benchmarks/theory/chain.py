"""Augmentation as a Markov chain (Dao et al. 2019), and the nearest neighbors in its equilibrium.

A chain walks over changed training images. At each step it jumps with some chance to a training image, unchanged, all
equally likely; else it applies one op more, one step forth or back. How often it is where, in the long run, is its
equilibrium: the augmented training set, all of it, with weights.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from jointsearch.benchmarks.theory.demo import Demo, markdown, mean_interval, plus_minus
from jointsearch.benchmarks.theory.digits import CLASSES, Digits, changed, drawn_digits
from jointsearch.benchmarks.theory.drawn import Panel
from search_spaces.augment.table import OPS

TRAIN, TEST = 100, 400
JUMPS = (1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05)
NEIGHBORS = (1, 3)
NEARER = 1e-6  # what the farthest vote counts less than the nearest
VISITS = (100, 1000, 10_000, 100_000, 1_000_000)
SIMULATED_JUMP = 0.2


@dataclass(frozen=True)
class Lattice:
    """The changes that a chain may reach: for each op the size of a step, in magnitude, and how many to either side."""

    steps: tuple[tuple[str, float, int], ...]

    @cached_property
    def places(self) -> list[tuple[int, ...]]:
        """Every combination of steps; each is applied to the training image at once, so that a way back leads back."""
        return list(itertools.product(*(range(-reach, reach + 1) for _, _, reach in self.steps)))

    @property
    def start(self) -> int:
        """Where nothing is changed."""
        return self.places.index((0,) * len(self.steps))

    def moves(self) -> Tensor:
        """The chances (O, O) of an op step: all ops and directions alike; what would leave the lattice stays."""
        index = {place: row for row, place in enumerate(self.places)}
        chances = torch.zeros(len(index), len(index), dtype=torch.float64)
        for (place, row), axis, way in itertools.product(index.items(), range(len(self.steps)), (-1, 1)):
            to = (*place[:axis], place[axis] + way, *place[axis + 1 :])
            chances[row, index.get(to, row)] += 1 / (2 * len(self.steps))
        return chances

    def changed(self, images: Tensor) -> Tensor:
        """Images (n, O, 64) at every place."""
        found = []
        for place in self.places:
            copy = images
            for (op, size, _), count in zip(self.steps, place, strict=True):
                copy = changed(op, copy, torch.full((len(images),), count * size, dtype=torch.float64))
            found.append(copy.flatten(1))
        return torch.stack(found, 1)


def pixels(op: str, count: float) -> float:
    """The magnitude at which a digit moves by so many of its 8 pixels."""
    return count / 8 / (OPS[op].strongest or 1.0)


def shifts(count: float) -> tuple[tuple[str, float, int], ...]:
    """Steps of so many pixels in every direction."""
    return tuple((op, pixels(op, count), 1) for op in ("TranslateX", "TranslateY"))


WHOLE_PIXELS = Lattice(shifts(1.0))
HALF_PIXELS = Lattice((*shifts(0.5), ("Rotate", 1 / 3, 1)))
LATTICES = {"half pixels and 10 degrees": HALF_PIXELS, "whole pixels": WHOLE_PIXELS}


def equilibrium(lattice: Lattice, jump: float) -> Tensor:
    """Shares (O,) of the places in the long run; every training image has the same.

    A visit is at the start, or one op step behind another visit: share = jump * start + (1 - jump) * share @ moves.
    """
    moves = lattice.moves()
    start = torch.zeros(len(moves), dtype=torch.float64)
    start[lattice.start] = jump
    return torch.linalg.solve(torch.eye(len(moves), dtype=torch.float64) - (1 - jump) * moves.T, start)


def visited(lattice: Lattice, jump: float, images: int, visits: int, noise: torch.Generator) -> Tensor:
    """How often (n, O) one chain of so many visits is where. Its walks between two jumps are drawn side by side."""
    moves = lattice.moves().cumsum(1)
    jumps = torch.rand(visits, generator=noise) < jump
    jumps[0] = True
    begins = jumps.nonzero()[:, 0]
    lengths = torch.diff(begins, append=torch.tensor([visits]))
    image = torch.randint(images, (len(begins),), generator=noise)
    place = torch.full_like(image, lattice.start)
    counts = torch.zeros(images * len(moves), dtype=torch.float64)
    for step in range(int(lengths.max())):
        going = lengths > step
        image, place, lengths = image[going], place[going], lengths[going]
        counts += torch.bincount(image * len(moves) + place, minlength=len(counts))
        uniform = torch.rand(len(place), 1, generator=noise, dtype=torch.float64)
        place = torch.searchsorted(moves[place], uniform)[:, 0].clamp(max=len(moves) - 1)
    return counts.view(images, len(moves))


@dataclass(frozen=True, eq=False)
class Neighbors:
    """The changed training images from the nearest to the farthest of each test image (M, P), and their labels."""

    order: Tensor
    labels: Tensor

    @classmethod
    def of(cls, lattice: Lattice, train: Digits, test: Digits) -> "Neighbors":
        """Sort by distance of pixels."""
        points = lattice.changed(train.images)
        order = torch.cdist(test.pixels, points.flatten(0, 1)).argsort(1)
        labels = train.labels[:, None].expand(points.shape[:2]).flatten()
        return cls(order, labels[order])

    def classes(self, weights: Tensor, count: float) -> Tensor:
        """The class (M,) by votes of the nearest, until they weigh as much as `count` training images do.

        Weights (n, O) sum up to 1, so that a training image with all its changes weighs 1 / n. Where all weight lies
        on the unchanged images, these are the `count` nearest neighbors. Of classes with as many votes the one whose
        voters are nearer wins: else a chain would be better than plain neighbors by its ties alone.
        """
        weight = weights.flatten()[self.order]
        before = weight.cumsum(1) - weight
        full = count / len(weights)
        voting = (full - before).clamp(min=0).minimum(weight) * (1 - NEARER * (before / full).square())
        votes = torch.zeros(len(weight), CLASSES, dtype=weight.dtype).scatter_add_(1, self.labels, voting)
        return votes.argmax(1)


def chain_demo(seeds: Sequence[int]) -> Demo:
    """Errors by the chance of a jump, beside plain neighbors; and how soon a walk votes as its equilibrium does."""
    rows: list[list[object]] = []
    curves = {}
    for name, lattice in LATTICES.items():
        found = torch.tensor([errors_of(lattice, seed) for seed in seeds], dtype=torch.float64)  # (S, jumps, neighbors)
        for place, jump in enumerate(JUMPS):
            minus = found[:, place] - found[:, 0]
            cells = [(f"{found[:, place, k].mean():.2f}", plus_minus(minus[:, k])) for k in range(len(NEIGHBORS))]
            rows.append([name, jump, f"{(1 - jump) / jump:.1f}", *itertools.chain(*cells)])
        for k, neighbors in enumerate(NEIGHBORS):
            words = f"{name}, {neighbors} neighbor{'s' * (neighbors > 1)}"
            curves[words] = [(jump, mean_interval(found[:, at, k])[0]) for at, jump in enumerate(JUMPS)]
    head = ["a step", "jump", "ops of a visit"]
    head += [f"{k} of {TRAIN}: {what}" for k in NEIGHBORS for what in ("% wrong", "minus plain")]
    walked = torch.tensor([walks(seed) for seed in seeds], dtype=torch.float64).mean(0)  # (visits, 2)
    told = [
        [f"{n:,}", f"{100 * same:.1f}", f"{off:.4f}"] for n, (same, off) in zip(VISITS, walked.tolist(), strict=True)
    ]
    agreement = [(math.log10(n), 100 * float(same)) for n, same in zip(VISITS, walked[:, 0], strict=True)]
    return Demo(
        "chain",
        "Nearest neighbors in the equilibrium of a chain of ops and jumps",
        (markdown(head, rows), markdown(["visits", "same class as the equilibrium, %", "distance from it"], told)),
        (
            Panel("Test errors, %; at 1 plain neighbors", curves, "chance of a jump"),
            Panel("Same class as the equilibrium, %", {"a walk, 1 neighbor": agreement}, "visits, as a power of 10"),
        ),
    )


def errors_of(lattice: Lattice, seed: int) -> list[list[float]]:
    """Percent wrong for every chance of a jump and number of neighbors."""
    train, test = drawn_digits(seed, TRAIN, TEST)
    neighbors = Neighbors.of(lattice, train, test)
    errors = []
    for jump in JUMPS:
        weights = equilibrium(lattice, jump).expand(TRAIN, -1) / TRAIN
        classes = [neighbors.classes(weights, count) for count in NEIGHBORS]
        errors.append([100 * float((one != test.labels).double().mean()) for one in classes])
    return errors


def walks(seed: int) -> list[tuple[float, float]]:
    """For each number of visits: the share of test images that get the class of the equilibrium, and the distance."""
    train, test = drawn_digits(seed, TRAIN, TEST)
    neighbors = Neighbors.of(WHOLE_PIXELS, train, test)
    weights = equilibrium(WHOLE_PIXELS, SIMULATED_JUMP).expand(TRAIN, -1) / TRAIN
    settled = neighbors.classes(weights, 1)
    found = []
    for visits in VISITS:
        walk = visited(WHOLE_PIXELS, SIMULATED_JUMP, TRAIN, visits, torch.Generator().manual_seed(seed)) / visits
        same = (neighbors.classes(walk, 1) == settled).double().mean()
        found.append((float(same), float((walk - weights).abs().sum() / 2)))
    return found
