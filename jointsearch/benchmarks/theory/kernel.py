"""The kernel view (Dao et al. 2019): augmentation averages the features, and punishes what varies between copies.

Written out to second order around the averaged features, the loss over all copies of an image is the loss at the
average, and half the loss's curvature times the variance of the output over the copies.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from jointsearch.benchmarks.theory.demo import Demo, markdown, mean_interval, order_of, plus_minus
from jointsearch.benchmarks.theory.digits import changed, drawn_digits, percent_wrong, ridge, with_constant
from jointsearch.benchmarks.theory.drawn import Panel

NODES = 12  # of Gauss and Legendre: exact for powers up to 23
ANGLES = tuple(2.0**-power for power in range(2, 9))  # radians
MAGNITUDES = tuple(2.0**-power for power in range(7))
TURNED, SHIFTED = "Rotate", "TranslateY"
TRAIN, DECAY = 100, 1e-3
DRAWS = (10, 100, 1000, 10_000)
TERMS = ("no augmentation", "averaged features only", "variance only", "both: all copies")


@dataclass(frozen=True)
class Loss:
    """A convex loss of outputs and targets, and its second derivative by the output."""

    value: Callable[[Tensor, Tensor], Tensor]
    curvature: Callable[[Tensor, Tensor], Tensor]


LOSSES = {
    "squared": Loss(lambda f, y: (f - y).square() / 2, lambda f, y: torch.ones_like(f)),
    "logistic": Loss(
        lambda f, y: torch.nn.functional.softplus(-y * f), lambda f, y: torch.sigmoid(f) * torch.sigmoid(-f)
    ),
}


@dataclass(frozen=True)
class Expansion:
    """The loss over all copies, with the averaged features alone, and with the variance too."""

    exact: float
    averaged: float
    with_variance: float

    @property
    def errors(self) -> tuple[float, float]:
        """Of the averaged features alone, and of both terms."""
        return abs(self.exact - self.averaged), abs(self.exact - self.with_variance)


def expansion(outputs: Tensor, chances: Tensor, targets: Tensor, loss: Loss) -> Expansion:
    """Expand the mean loss of outputs (J, n): of J copies, drawn with chances (J,), of n images."""
    middle = chances @ outputs
    variance = chances @ (outputs - middle).square()
    exact = float((chances @ loss.value(outputs, targets)).mean())
    averaged = float(loss.value(middle, targets).mean())
    return Expansion(exact, averaged, averaged + float((loss.curvature(middle, targets) * variance / 2).mean()))


def even_angles(largest: float) -> tuple[Tensor, Tensor]:
    """Angles between -largest and largest, all equally likely: as nodes and weights of a quadrature."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    return torch.from_numpy(nodes) * largest, torch.from_numpy(weights) / 2


def skewed_angles(largest: float) -> tuple[Tensor, Tensor]:
    """Seldom far to one side, else a little to the other."""
    return torch.tensor([largest, -largest / 3], dtype=torch.float64), torch.tensor([0.25, 0.75], dtype=torch.float64)


def turned(points: Tensor, angles: Tensor) -> Tensor:
    """Points (n, 2) turned by each of J angles, (J, n, 2)."""
    cosine, sine = angles.cos()[:, None], angles.sin()[:, None]
    x, y = points.T
    return torch.stack([cosine * x - sine * y, sine * x + cosine * y], -1)


def toy_errors(loss: str, angles: Callable[[float], tuple[Tensor, Tensor]]) -> list[tuple[float, float]]:
    """Errors of both expansions at every angle of ANGLES: 40 points of the plane, two classes, fixed weights."""
    noise = torch.Generator().manual_seed(0)
    points = torch.randn(40, 2, generator=noise, dtype=torch.float64)
    weights = torch.tensor([1.0, 2.0], dtype=torch.float64)
    targets = torch.sign(points @ weights + torch.randn(40, generator=noise, dtype=torch.float64))
    found = []
    for largest in ANGLES:
        nodes, chances = angles(largest)
        found.append(expansion(turned(points, nodes) @ weights, chances, targets, LOSSES[loss]).errors)
    return found


def digits_errors(op: str, magnitude: float, seed: int = 0) -> Expansion:
    """The expansion of a logistic regression that tells even digits from odd ones, under an op in both directions."""
    train, _ = drawn_digits(seed, TRAIN, 0)
    parity = 1.0 - 2.0 * (train.labels % 2)
    features = with_constant(train.pixels)
    weights = ridge(features.T @ features / TRAIN, features.T @ parity.double()[:, None] / TRAIN, DECAY)[:, 0]
    nodes = torch.tensor([-magnitude, magnitude], dtype=torch.float64)
    outputs = torch.stack([copies @ weights for copies in _copies(op, train.images, nodes)])
    return expansion(outputs, torch.full_like(nodes, 1 / len(nodes)), parity, LOSSES["logistic"])


def finite_samples(draws: int, repeats: int = 400) -> tuple[float, float]:
    """Error of the average and of the variance of the output over so many copies, over what theory says (1: as said).

    The copies are a point turned by angles drawn between -1 and 1.
    """
    noise = torch.Generator().manual_seed(draws)
    point, weights = torch.tensor([[0.6, 0.8]], dtype=torch.float64), torch.tensor([1.0, 2.0], dtype=torch.float64)
    nodes, chances = even_angles(1.0)
    outputs = (turned(point, nodes) @ weights)[:, 0]
    mean = float(chances @ outputs)
    second, fourth = (float(chances @ (outputs - mean) ** power) for power in (2, 4))
    angles = torch.rand(repeats * draws, generator=noise, dtype=torch.float64) * 2 - 1
    drawn = (turned(point, angles) @ weights)[:, 0].view(repeats, draws)
    off_mean = float((drawn.mean(1) - mean).square().mean().sqrt())
    off_variance = float((drawn.var(1) - second).square().mean().sqrt())
    said = math.sqrt((fourth - second**2 * (draws - 3) / (draws - 1)) / draws)
    return off_mean / math.sqrt(second / draws), off_variance / said


def errors_by_term(op: str, magnitude: float, seed: int) -> list[float]:
    """Percent wrong of ridge regression on digits with each of TERMS; with squared loss they are all there is."""
    train, test = drawn_digits(seed, TRAIN, 1000)
    copies = _copies(op, train.images, torch.linspace(-magnitude, magnitude, 5, dtype=torch.float64))
    plain, averaged = with_constant(train.pixels), copies.mean(0)
    deviations = copies - averaged
    variance = torch.einsum("jna,jnb->ab", deviations, deviations) / (len(copies) * TRAIN)
    wrong = []
    for features, extra in ((plain, 0), (averaged, 0), (plain, variance), (averaged, variance)):
        weights = ridge(features.T @ features / TRAIN + extra, features.T @ train.targets / TRAIN, DECAY)
        wrong.append(percent_wrong(with_constant(test.pixels) @ weights, test.labels))
    return wrong


def kernel_demo(seeds: Sequence[int]) -> Demo:
    """Orders of the expansion, both terms from finitely many copies, and which of them helps on digits."""
    toys = {
        (loss, words): toy_errors(loss, angles)
        for loss in LOSSES
        for words, angles in (("even", even_angles), ("skewed", skewed_angles))
    }
    orders = [[loss, words, *map(_order, zip(*errors, strict=True))] for (loss, words), errors in toys.items()]
    samples = [[f"{draws:,}", *(f"{ratio:.2f}" for ratio in finite_samples(draws))] for draws in DRAWS]
    on_digits = {(op, one): digits_errors(op, one) for op in (TURNED, SHIFTED) for one in (0.1, 0.3, 1.0)}
    by_term = torch.tensor(
        [[errors_by_term(TURNED, one, seed) for seed in seeds] for one in MAGNITUDES], dtype=torch.float64
    )
    rows = [
        [f"{one:g}", f"{wrong[:, 0].mean():.2f}", *(plus_minus(wrong[:, term] - wrong[:, 0]) for term in (1, 2, 3))]
        for one, wrong in zip(MAGNITUDES, by_term, strict=True)
    ]
    tables = (
        markdown(["loss", "angles", "order, averaged features only", "order, both terms"], orders),
        markdown(["copies", "error of the average / theory", "error of the variance / theory"], samples),
        markdown(
            ["op", "magnitude", "loss over all copies", "averaged features only", "both terms"],
            [
                [op, one, *(f"{value:.4f}" for value in (found.exact, found.averaged, found.with_variance))]
                for (op, one), found in on_digits.items()
            ],
        ),
        markdown(["magnitude", f"{TERMS[0]}, % wrong", *(f"{term}, minus that" for term in TERMS[1:])], rows),
    )
    even, skewed = (toys["logistic", words] for words in ("even", "skewed"))
    curves = {
        "averaged features only": _logarithms([first for first, _ in even]),
        "both terms, skewed angles": _logarithms([second for _, second in skewed]),
        "both terms, even angles": _logarithms([second for _, second in even]),
    }
    terms = {
        term: [
            (math.log2(one), mean_interval(wrong[:, place])[0]) for one, wrong in zip(MAGNITUDES, by_term, strict=True)
        ]
        for place, term in enumerate(TERMS)
    }
    return Demo(
        "kernel",
        "Augmentation as averaged features and a variance that is punished",
        tables,
        (
            Panel("Error of the expanded loss, as a power of 10", curves, "largest angle, as a power of 2"),
            Panel("Test errors on digits, %", terms, f"magnitude of {TURNED}, as a power of 2"),
        ),
    )


def _copies(op: str, images: Tensor, nodes: Tensor) -> Tensor:
    """Features (J, n, 65) of the images at each amount (J,)."""
    found = [changed(op, images, amount.expand(len(images))) for amount in nodes]
    return with_constant(torch.stack(found).flatten(2))


def _order(errors: Sequence[float]) -> str:
    return "exact" if max(errors) < 1e-14 else f"{order_of(ANGLES[-3:], errors[-3:]):.2f}"  # of the smallest angles


def _logarithms(errors: Sequence[float]) -> list[tuple[float, float]]:
    return [(math.log2(angle), math.log10(error)) for angle, error in zip(ANGLES, errors, strict=True)]
