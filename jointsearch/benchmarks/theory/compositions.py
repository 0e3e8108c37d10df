"""Two ops, one after the other: worth more or less than the sum of each? On one point exactly, and on digits."""

import itertools
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from jointsearch.benchmarks.theory.demo import Demo, markdown, mean_interval, plus_minus
from jointsearch.benchmarks.theory.digits import Digits, changed, drawn_digits, percent_wrong, ridge, with_constant
from jointsearch.benchmarks.theory.drawn import Panel, Rows
from jointsearch.benchmarks.theory.linear import DEGREES, interaction_at, positive_share

# The largest magnitudes: one pixel, and else those that a person still reads.
STRONGEST = {"Rotate": 0.5, "TranslateX": 0.28, "TranslateY": 0.28, "ShearX": 0.56, "Cutout": 1.0}
TRAIN, TEST, COPIES = 100, 1000, 8
RIDGE_DECAY, KERNEL_DECAY, KERNEL_WIDTH = 1e-3, 1e-2, 0.1
Fit = Callable[[Tensor, Tensor, Tensor], Tensor]  # (points, targets, test points) -> outputs


def linear(points: Tensor, targets: Tensor, test: Tensor) -> Tensor:
    """Ridge regression on pixels."""
    features = with_constant(points)
    count = len(features)
    weights = ridge(features.T @ features / count, features.T @ targets / count, RIDGE_DECAY)
    return with_constant(test) @ weights


def kernel(points: Tensor, targets: Tensor, test: Tensor) -> Tensor:
    """Ridge regression with a Gaussian kernel: it is not linear in the pixels."""
    inner, outer = (torch.exp(-KERNEL_WIDTH * torch.cdist(some, points).square()) for some in (points, test))
    return outer @ torch.linalg.solve(inner + KERNEL_DECAY * torch.eye(len(points)).to(points), targets)


LEARNERS: dict[str, Fit] = {"linear ridge regression": linear, "with a Gaussian kernel": kernel}


def with_copies(ops: Sequence[str], train: Digits, noise: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pixels and targets of the images and, where there are ops, of copies under all of them, one after the other."""
    copies = [train.images]
    for _ in range(COPIES if ops else 0):
        copy = train.images
        for op in ops:
            amount, *position = torch.rand(3, len(copy), generator=noise)
            copy = changed(op, copy, STRONGEST[op] * (2 * amount - 1), torch.stack(position, -1))
        copies.append(copy)
    return torch.cat(copies).flatten(1), train.targets.repeat(len(copies), 1)


def wrong_with(ops: Sequence[str], seed: int) -> list[float]:
    """Percent wrong of every learner that trains with these ops."""
    train, test = drawn_digits(seed, TRAIN, TEST)
    points, targets = with_copies(ops, train, torch.Generator().manual_seed(seed))
    return [percent_wrong(fit(points, targets, test.pixels), test.labels) for fit in LEARNERS.values()]


def wrong_by_ops(seeds: Sequence[int]) -> dict[tuple[str, ...], Tensor]:
    """Percent wrong (S, learners) without ops, with each op, and with each pair."""
    sets = [(), *((op,) for op in STRONGEST), *itertools.combinations(STRONGEST, 2)]
    return {ops: torch.tensor([wrong_with(ops, seed) for seed in seeds], dtype=torch.float64) for ops in sets}


def interactions(wrong: Mapping[tuple[str, ...], Tensor]) -> dict[tuple[str, ...], Tensor]:
    """What each pair of ops takes off the percentage of wrong images, beyond what the two ops take off one by one."""
    gains = {ops: wrong[()] - found for ops, found in wrong.items()}
    return {ops: gain - gains[ops[:1]] - gains[ops[1:]] for ops, gain in gains.items() if len(ops) > 1}


def toy_tables() -> tuple[str, str]:
    """The interaction of two mirrors by their angle, and how often it is positive for random ones."""
    angles = [[f"{degrees}°", f"{interaction_at(degrees):+.3f}"] for degrees in DEGREES[::3]]
    shares = [[shortcuts, f"{positive_share(shortcuts):.0%}"] for shortcuts in (2, 4, 8, 16)]
    return (
        markdown(["angle of two mirrors", "beyond the sum"], angles),
        markdown(["shortcuts", "random mirrors beyond the sum"], shares),
    )


def compositions_demo(seeds: Sequence[int]) -> Demo:
    """The sign of the interaction on the toy by angle, and on digits for pairs of real ops."""
    wrong = wrong_by_ops(seeds)
    beyond = interactions(wrong)
    head = ["ops", *(f"{learner}: {what}" for learner in LEARNERS for what in ("% wrong", "gain", "beyond the sum"))]
    rows = []
    for ops, found in wrong.items():
        row = [" then ".join(ops) or "none"]
        for k in range(len(LEARNERS)):
            row += [f"{found[:, k].mean():.2f}", plus_minus((wrong[()] - found)[:, k]) if ops else ""]
            row.append(plus_minus(beyond[ops][:, k]) if ops in beyond else "")
        rows.append(row)
    toy = [(float(degrees), interaction_at(degrees)) for degrees in DEGREES]
    groups = {
        learner: {f"{ops[0]}, {ops[1]}": mean_interval(found[:, k]) for ops, found in beyond.items()}
        for k, learner in enumerate(LEARNERS)
    }
    return Demo(
        "compositions",
        "What two ops are worth together, beyond the sum of each",
        (
            *toy_tables(),
            markdown(head, rows),
        ),
        (
            Panel("One point, two mirrors: beyond the sum", {"interaction": toy}, "angle between them, degrees"),
            Rows("Digits: gain beyond the sum", groups, "points"),
        ),
    )
