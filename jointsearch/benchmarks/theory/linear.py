"""Linear theory (Wu et al. 2020) in a ridge regression whose truth is known: new directions, mixing, compositions.

There are fewer points than dimensions, labels have no noise unless it is said, and the error of weights is their
squared distance from the truth: that of test points with unit covariance.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from jointsearch.benchmarks.theory.demo import Demo, markdown
from jointsearch.benchmarks.theory.digits import ridge
from jointsearch.benchmarks.theory.drawn import Panel

POINTS, DIMENSIONS = 8, 20
DECAYS = tuple(10.0**power for power in range(0, -9, -1))
SHARES = {"in the span": 0.0, "leaves it by 1 %": 0.01, "leaves it by 10 %": 0.1, "leaves it wholly": 1.0}
ALPHAS = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0)
DEGREES = tuple(range(0, 91, 5))
ROUNDING = 1e-15  # of an error near 1
MIXED = (0.003, 0.3)  # decays, below and above the best
DRAWN_PAIRS = 20_000
RANDOM_PAIRS = 2000


def fitted(points: Tensor, labels: Tensor, decay: float) -> Tensor:
    """Weights (..., p) of ridge regression on points (..., n, p); at decay 0 the shortest of those that fit best."""
    if not decay:
        return torch.einsum("...pn,...n->...p", torch.linalg.pinv(points), labels)
    # With more dimensions than points the system of the points is the smaller and the better conditioned one.
    inner = points @ points.mT + decay * torch.eye(points.shape[-2]).to(points)
    return torch.einsum("...np,...n->...p", points, torch.linalg.solve(inner, labels))


def fall(points: Tensor, truth: Tensor, new: Tensor, decay: float) -> Tensor:
    """By how much new points (..., m, p) with their true labels lower the error of weights from points (n, p)."""
    both = torch.cat([points.expand(*new.shape[:-2], *points.shape), new], -2)
    before, after = (fitted(some, some @ truth, decay) for some in (points, both))
    return (before - truth).square().sum(-1) - (after - truth).square().sum(-1)


def drawn_toy(seed: int, share: float) -> tuple[Tensor, Tensor, Tensor]:
    """Points, truth, and a new point of length 1 of which so large a share stands out of the span of the points."""
    noise = torch.Generator().manual_seed(seed)
    points, truth, new = (
        torch.randn(*size, generator=noise, dtype=torch.float64)
        for size in ((POINTS, DIMENSIONS), (DIMENSIONS,), (DIMENSIONS,))
    )
    span = torch.linalg.qr(points.T).Q
    inside = span @ (span.T @ new)
    outside = new - inside
    new = math.sqrt(1 - share**2) * inside / inside.norm() + share * outside / outside.norm()
    return points, truth / truth.norm(), new[None]


def linear_demo(seeds: Sequence[int]) -> Demo:
    """How far a new point lowers the error, by where it lies and how strong the decay is."""
    falls = {
        words: [sum(float(fall(*drawn_toy(seed, share), decay)) for seed in seeds) / len(seeds) for decay in DECAYS]
        for words, share in SHARES.items()
    }
    shown = DECAYS[::2]
    rows = [
        [words, *("0" if abs(one) < ROUNDING else f"{one:.1e}" for one in found[::2])] for words, found in falls.items()
    ]
    table = markdown(["new point", *(f"decay {decay:g}" for decay in shown)], rows)
    curves = {
        words: [(math.log10(decay), math.log10(max(one, ROUNDING))) for decay, one in zip(DECAYS, found, strict=True)]
        for words, found in falls.items()
    }
    data = [noisy_data(seed) for seed in seeds]
    mixed = markdown(
        [
            "alpha",
            "decay x",
            f"length at {MIXED[1]}, drawn pairs",
            "the decay alone",
            *(f"error, decay {d:g}" for d in MIXED),
        ],
        [
            [
                f"{alpha:g}",
                f"{mixup_decay(1.0, alpha):.3f}",
                f"{_mean(drawn_mixup(*one, alpha, MIXED[1], seed).norm() for seed, one in enumerate(data)):.3f}",
                f"{_mean(mixup_weights(*one, 0.0, mixup_decay(MIXED[1], alpha)).norm() for one in data):.3f}",
                *(f"{_mean(_noisy_error(mixup_weights(*one, alpha, decay)) for one in data):.3f}" for decay in MIXED),
            ]
            for alpha in ALPHAS
        ],
    )
    lengths = {
        f"decay {decay:g}": [(a, _mean(mixup_weights(*one, a, decay).norm() for one in data)) for a in ALPHAS]
        for decay in MIXED
    }
    return Demo(
        "linear",
        "What a new point and what mixup does to ridge regression",
        (table, mixed),
        (
            Panel("Fall of the test error, as a power of 10", curves, "decay, as a power of 10"),
            Panel("Length of the weights", lengths, "alpha of mixup"),
        ),
    )


def mixup_decay(decay: float, alpha: float) -> float:
    """The decay that does without mixup what this one does with it, on centred data: at most twice as much."""
    return decay * (2 * alpha + 1) / (alpha + 1)


def mixup_weights(points: Tensor, labels: Tensor, alpha: float, decay: float) -> Tensor:
    """Ridge regression on all pairs of points, mixed by shares of Beta(alpha, alpha): over all shares, not a draw.

    Moments of the mixed points are means over pairs; of a share s they need the means of s^2 + (1 - s)^2 and s (1 - s).
    """
    both = alpha / (2 * (2 * alpha + 1))
    one = 1 - 2 * both
    mean_point, mean_label = points.mean(0), labels.mean()
    second = one * points.T @ points / len(points) + 2 * both * torch.outer(mean_point, mean_point)
    cross = one * points.T @ labels / len(points) + 2 * both * mean_point * mean_label
    return ridge(second, cross[:, None], decay)[:, 0]


def noisy_data(seed: int) -> tuple[Tensor, Tensor]:
    """30 centred points of 10 dimensions, with noise in their labels."""
    noise = torch.Generator().manual_seed(seed)
    points = torch.randn(30, 10, generator=noise, dtype=torch.float64)
    labels = points.sum(1) + torch.randn(30, generator=noise, dtype=torch.float64)
    return points - points.mean(0), labels - labels.mean()


def drawn_mixup(points: Tensor, labels: Tensor, alpha: float, decay: float, seed: int) -> Tensor:
    """The same from pairs and shares that are drawn."""
    noise = np.random.default_rng(seed)
    one, other = torch.from_numpy(noise.integers(len(points), size=(2, DRAWN_PAIRS)))
    share = torch.from_numpy(noise.beta(alpha, alpha, (DRAWN_PAIRS, 1)) if alpha else np.ones((DRAWN_PAIRS, 1)))
    mixed, label = (share * some[one] + (1 - share) * some[other] for some in (points, labels[:, None]))
    return ridge(mixed.T @ mixed / DRAWN_PAIRS, mixed.T @ label / DRAWN_PAIRS, decay)[:, 0]


def _noisy_error(weights: Tensor) -> Tensor:
    return (weights - 1).square().sum()


def _mean(values: Iterable[Tensor]) -> float:
    return float(torch.stack(list(values)).mean())


def interaction(point: Tensor, first: Tensor, second: Tensor, truth: Tensor) -> Tensor:
    """What a copy under both ops, one after the other, is worth beyond the sum of a copy under each.

    Ops are matrices (..., p, p) that leave the label as it is, for a training set of one point (p,).
    """
    copies = (first @ point, second @ point, (second @ first) @ point)
    one, other, both = (fall(point[None], truth, copy[..., None, :], 0.0) for copy in copies)
    return both - one - other


def mirror(directions: Tensor) -> Tensor:
    """Ops (..., 1 + k, 1 + k) that turn around one direction (..., k) of what a label does not depend on."""
    shifted = torch.nn.functional.pad(directions / directions.norm(dim=-1, keepdim=True), (1, 0))
    return torch.eye(shifted.shape[-1]).to(shifted) - 2 * shifted[..., :, None] * shifted[..., None, :]


def one_point(shortcuts: int) -> tuple[Tensor, Tensor]:
    """A point with so many shortcuts, each as strong as its signal, and the truth, which reads the signal alone."""
    return torch.ones(1 + shortcuts, dtype=torch.float64), torch.eye(1 + shortcuts, dtype=torch.float64)[0]


def interaction_at(degrees: float) -> float:
    """Of two mirrors whose directions stand at an angle, for a point with two shortcuts."""
    point, truth = one_point(2)
    angles = torch.tensor([0.0, math.radians(degrees)], dtype=torch.float64)
    first, second = mirror(torch.stack([angles.cos(), angles.sin()], -1))
    return float(interaction(point, first, second, truth))


def positive_share(shortcuts: int) -> float:
    """How often the interaction of two random mirrors is positive, for a point with so many shortcuts."""
    noise = torch.Generator().manual_seed(shortcuts)
    directions = torch.randn(2, RANDOM_PAIRS, shortcuts, generator=noise, dtype=torch.float64)
    point, truth = one_point(shortcuts)
    first, second = mirror(directions)
    found = interaction(point, first, second, truth)
    return float((found > 0).double().mean())
