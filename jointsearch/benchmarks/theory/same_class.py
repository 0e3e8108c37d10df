"""Mixing images of the same class: does it lower the variance of predictions over training sets?"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jointsearch.benchmarks.theory.demo import Demo, markdown, mean_interval, plus_minus
from jointsearch.benchmarks.theory.digits import CLASSES, Digits, drawn_digits, ridge, targets_of, with_constant
from jointsearch.benchmarks.theory.drawn import Panel

SIZES = (50, 100, 200)  # training images
POOL, TEST = 1297, 500  # test images are the same for all training sets
DECAY = 1e-3
HIDDEN, STEPS, STEP_SIZE = 64, 300, 0.003


def mean_share(alpha: float) -> float:
    """The mean of s^2 + (1 - s)^2 for shares s of Beta(alpha, alpha)."""
    return (alpha + 1) / (2 * alpha + 1)


def same_class_moments(points: Tensor, labels: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Means of x x' and x y' over all mixed pairs of one class and all shares.

    The means of the classes stay where they are. What is around them shrinks by `mean_share`.
    """
    members = nn.functional.one_hot(labels, CLASSES).to(points)
    counts = members.sum(0)
    centres = (members.T @ points) / counts.clamp(min=1)[:, None]
    around = points - centres[labels]
    between = centres.T @ (counts[:, None] * centres)
    second = (mean_share(alpha) * around.T @ around + between) / len(points)
    return second, points.T @ targets_of(labels).to(points) / len(points)


def training_sets(size: int, seeds: Sequence[int]) -> tuple[list[Digits], Digits]:
    """A set of training images for every seed, out of one pool, and test images."""
    pool, test = drawn_digits(0, POOL, TEST)
    sets = []
    for seed in seeds:
        places = torch.randperm(POOL, generator=torch.Generator().manual_seed(seed))[:size]
        sets.append(Digits(pool.images[places], pool.labels[places]))
    return sets, test


def ridge_outputs(sets: Sequence[Digits], test: Digits, mixed: bool) -> Tensor:
    """Outputs (S, M, 10) of ridge regression on pixels; over all pairs and shares, so that nothing is drawn."""
    found = []
    for one in sets:
        moments = same_class_moments(with_constant(one.pixels), one.labels, 1.0 if mixed else 0.0)
        found.append(with_constant(test.pixels) @ ridge(*moments, DECAY))
    return torch.stack(found)


def network_outputs(sets: Sequence[Digits], test: Digits, mixed: bool) -> Tensor:
    """Probabilities (S, M, 10) of networks with one hidden layer, one for each set, trained side by side.

    With and without mixing they begin with the same weights, which differ between sets.
    """
    noise = torch.Generator().manual_seed(0)
    images = torch.stack([one.pixels for one in sets]).float()  # (S, n, 64)
    labels = torch.stack([one.labels for one in sets])
    count, size, width = images.shape
    starts = (torch.randn(count, width, HIDDEN, generator=noise) / width**0.5, torch.zeros(count, 1, HIDDEN))
    ends = (torch.randn(count, HIDDEN, CLASSES, generator=noise) / HIDDEN**0.5, torch.zeros(count, 1, CLASSES))
    weights = [nn.Parameter(tensor) for tensor in (*starts, *ends)]

    def outputs(inputs: Tensor) -> Tensor:
        hidden = torch.relu(torch.baddbmm(weights[1], inputs, weights[0]))
        return torch.baddbmm(weights[3], hidden, weights[2]).log_softmax(-1)

    optimizer = torch.optim.Adam(weights, lr=STEP_SIZE)
    for _ in range(STEPS):
        inputs = mixed_within(images, labels, noise) if mixed else images
        losses = -outputs(inputs).gather(-1, labels[..., None])
        optimizer.zero_grad()
        (losses.sum() / size).backward()  # each network descends its own mean
        optimizer.step()
    with torch.no_grad():
        return outputs(test.pixels.float().expand(count, -1, -1)).exp()


def mixed_within(images: Tensor, labels: Tensor, noise: torch.Generator) -> Tensor:
    """Images (S, n, d) mixed with another of their set and class (or themselves), by shares that are all as likely."""
    order = labels.argsort(stable=True)  # those of a class stand together
    counts = nn.functional.one_hot(labels, CLASSES).sum(1)
    first = (counts.cumsum(1) - counts).gather(1, labels)
    step = (torch.rand(labels.shape, generator=noise) * counts.gather(1, labels)).long()
    partner = order.gather(1, first + step)[..., None].expand_as(images)
    share = torch.rand(*labels.shape, 1, generator=noise)
    return share * images + (1 - share) * images.gather(1, partner)


def spreads(outputs: Tensor) -> Tensor:
    """How far the outputs (S, M, 10) of each network lie from the mean of all, squared, (S,).

    It is summed over classes and a mean over test images. The mean over networks is the variance.
    """
    count = len(outputs)
    return (outputs - outputs.mean(0)).square().sum(-1).mean(-1) * count / (count - 1)


OUTPUTS = {"ridge regression": ridge_outputs, "network": network_outputs}


def same_class_demo(seeds: Sequence[int]) -> Demo:
    """Variance and error with and without mixing, for a linear model and a network, by the number of images."""
    rows: list[list[object]] = []
    curves: dict[str, list[tuple[float, float]]] = {}
    for name, size in itertools.product(OUTPUTS, SIZES):
        sets, test = training_sets(size, seeds)
        plain, mixed = (OUTPUTS[name](sets, test, mixed) for mixed in (False, True))
        before, after = spreads(plain), spreads(mixed)
        wrong = [100 * (found.argmax(-1) != test.labels).double().mean(-1) for found in (plain, mixed)]
        rows.append(
            [
                name,
                size,
                f"{before.mean():.4f}",
                f"{after.mean():.4f}",
                plus_minus(after - before, "+.4f"),
                f"{wrong[0].mean():.2f}",
                plus_minus(wrong[1] - wrong[0]),
            ]
        )
        mean, _ = mean_interval(before)
        curves.setdefault(name, []).append((float(size), 100 * mean_interval(after - before)[0] / mean))
    head = ["learner", "images", "variance", "with mixing", "difference", "% wrong", "with mixing, minus that"]
    panel = Panel(
        "Change of the variance by mixing, %", {**curves, "no change": [(float(size), 0.0) for size in SIZES]}, "images"
    )
    return Demo("same_class", "Mixing digits of the same class", (markdown(head, rows),), (panel,))
