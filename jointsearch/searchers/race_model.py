"""What a few noisy trainings say about many policies: a Gaussian model of arms that share levels of factors.

The response of a training is the effect of its fold, plus that of its arm, plus noise. The effect of an arm is the sum
of the effects of its levels, one for each factor, plus an effect of its own. How large they are is not known: models
with several sizes are weighed by how well each explains the responses. So means are shrunken as far as the noise asks
for: the best of many single trainings is mostly lucky.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Variances beside that of the noise: of the effect of a level, of what an arm has of its own, and of an arm without
# levels.
OF_LEVELS = (0.02, 0.1, 0.5, 3.0)
OF_ARMS = (0.003, 0.03, 0.2, 1.0)
OF_OTHERS = (0.1, 4.0)
OF_FOLDS = 4.0
OF_MEAN = 1e4  # the level of all responses says nothing about arms
# The noise has an inverse gamma prior: as if so many responses had been seen, of such a share of the spread of all.
SEEN, SHARE_OF_SPREAD = 2.0, 0.25


@dataclass(frozen=True)
class Models:
    """What each of M models believes of A arms and L levels."""

    weight: Tensor  # (M,)
    mean: Tensor  # (M, A) effects of arms
    factor: Tensor  # (M, A, A) whose product with its transpose, times the variance of the noise, is their covariance
    levels: Tensor  # (M, L) effects of levels
    scale: Tensor  # (M,) of the inverse gamma distribution of the variance of the noise
    shape: float


class Belief:
    """What responses say about arms."""

    def __init__(self, features: Tensor, arms: Sequence[int], folds: Sequence[int], responses: Sequence[float]) -> None:
        """`features` (A, L) is 1 where an arm has a level of a factor; an arm without any shares nothing."""
        told = torch.tensor(list(responses), dtype=torch.float64)
        of_folds = torch.tensor([[float(one == other) for other in folds] for one in folds], dtype=torch.float64)
        self.models = _models(features.double(), torch.tensor(list(arms)), of_folds, told)

    @property
    def mean(self) -> Tensor:
        """The expected effect of every arm, (A,)."""
        return self.models.weight @ self.models.mean

    @property
    def levels(self) -> Tensor:
        """The expected effect of every level, (L,)."""
        return self.models.weight @ self.models.levels

    @property
    def noise(self) -> float:
        """The standard deviation of the noise of a training."""
        return math.sqrt(float(self.models.weight @ self._variance()))

    def minus(self, arm: int) -> tuple[Tensor, Tensor]:
        """The difference of every arm to one of them: mean and standard deviation, (A,) each."""
        models = self.models
        return self._over_models(
            models.mean - models.mean[:, arm : arm + 1], models.factor - models.factor[:, arm : arm + 1]
        )

    def contrasts(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Sums of the effects of arms, each times its weight (K, A): mean and standard deviation, (K,) each."""
        return self._over_models(self.models.mean @ weights.T, weights @ self.models.factor)

    def _over_models(self, means: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
        variances = factors.square().sum(2) * self._variance().unsqueeze(1)
        mean = self.models.weight @ means
        return mean, (self.models.weight @ (variances + (means - mean).square())).clamp(min=0).sqrt()

    def draw(self, generator: torch.Generator) -> Tensor:
        """Effects of all arms as they may be, (A,): one sample of what is believed."""
        models = self.models
        one = int(torch.multinomial(models.weight, 1, generator=generator))
        # A sum of squares of 2 * shape normal numbers, as the inverse gamma distribution has it.
        squares = torch.randn(max(1, round(2 * models.shape)), dtype=torch.float64, generator=generator).square().sum()
        deviation = (2 * models.scale[one] / squares).sqrt()
        normal = torch.randn(models.mean.shape[1], dtype=torch.float64, generator=generator)
        return models.mean[one] + deviation * (models.factor[one] @ normal)

    def _variance(self) -> Tensor:
        return self.models.scale / (self.models.shape - 1)


def _models(features: Tensor, arms: Tensor, of_folds: Tensor, told: Tensor) -> Models:
    """One model for all variances together."""
    variances = torch.cartesian_prod(*(torch.tensor(sizes) for sizes in (OF_LEVELS, OF_ARMS, OF_OTHERS))).double()
    of_levels, of_arms, of_others = variances.unsqueeze(2).unbind(1)  # (M, 1) each
    is_other = (features.sum(1) == 0).double()
    own = of_arms * (1 - is_other) + of_others * is_other
    prior = of_levels.unsqueeze(2) * (features @ features.T) + torch.diag_embed(own)  # (M, A, A)
    across = prior[:, :, arms]  # (M, A, n)
    y = (told - told.mean()).unsqueeze(1)  # (n, 1)
    covariance = across[:, arms] + OF_FOLDS * of_folds + OF_MEAN + torch.eye(len(y), dtype=torch.float64)
    root = torch.linalg.cholesky(covariance)
    solved = torch.cholesky_solve(y.expand(len(root), -1, -1), root)  # (M, n, 1)

    shape = (SEEN + len(y)) / 2
    spread = float(y.square().mean()) or 1.0
    scale = (SEEN * SHARE_OF_SPREAD * spread + (solved * y).sum((1, 2))) / 2
    evidence = -root.diagonal(dim1=1, dim2=2).log().sum(1) - shape * scale.log()

    reduced = torch.linalg.solve_triangular(root, across.mT, upper=False)
    left = prior - reduced.mT @ reduced
    left = left + torch.diag_embed(1e-9 * prior.diagonal(dim1=1, dim2=2))  # rounding must not make it indefinite
    return Models(
        weight=evidence.softmax(0),
        mean=(across @ solved).squeeze(2),
        factor=torch.linalg.cholesky(left),
        levels=of_levels * (features[arms].T @ solved).squeeze(2),
        scale=scale,
        shape=shape,
    )
