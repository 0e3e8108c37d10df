"""What the tests of searchers share: images of a known pattern, small networks, and a searcher that is looked at."""

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from jointsearch.data.sets import Batch
from jointsearch.data.standard import Standard
from jointsearch.estimators.draw import Draw
from jointsearch.searchers.differentiable import DifferentiableSearcher
from jointsearch.searchers.settings import DifferentiableSearch, EstimatorSettings, GradientSettings, SpaceSettings
from search_spaces.policy import OpChoice, Policy, SubPolicy

# Told apart in every image: levels mirrored, levels from 128 on mirrored, nothing.
TELLING = Policy(
    (SubPolicy((OpChoice("Invert", 0.6),), 2.0), SubPolicy((OpChoice("Solarize", 0.5, 0.5),)), SubPolicy(())),
)
CLASSES = 4
STANDARD = Standard()
STEP_SIZE = 0.1
ESTIMATORS: dict[str, dict[str, Any]] = {
    "leave_one_out": {"name": "reinforce"},
    "ema": {"name": "reinforce", "baseline": "ema"},
    "none": {"name": "reinforce", "baseline": "none"},
    "leave_one_out_joint": {"name": "reinforce", "scoring": "joint"},
    "relax": {"name": "relax"},
    "relax_joint": {"name": "relax", "scoring": "joint"},
}
GUMBEL: dict[str, dict[str, Any]] = {"gumbel": {"name": "gumbel", "scoring": "joint"}}


def patterned(count: int, seed: int, channels: int = 1) -> tuple[Tensor, Tensor]:
    """uint8 images (B, C, 8, 8) with the quadrant of their class bright, and the labels."""
    labels = torch.arange(count) % CLASSES
    noise = torch.Generator().manual_seed(seed)
    levels = torch.randint(20, 110, (count, channels, 8, 8), generator=noise)
    for label in range(CLASSES):
        row, column = 4 * (label // 2), 4 * (label % 2)
        levels[labels == label, :, row : row + 4, column : column + 4] += 130
    return levels.to(torch.uint8), labels


def batch_of(count: int, seed: int = 0, channels: int = 1) -> Batch:
    images, labels = patterned(count, seed, channels)
    return Batch(images, labels, torch.arange(count))


def plain_network(channels: int = 1) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(64 * channels, 16), nn.Tanh(), nn.Linear(16, CLASSES))


def smooth_network() -> nn.Module:
    """Batch statistics and dropout, without the kinks of ReLU at which a finite difference errs by some percent."""
    torch.manual_seed(5)
    layers = (nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Tanh(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(288, CLASSES))
    return nn.Sequential(*layers)


@dataclass
class Bench:
    """A searcher, its network, the images that the network was trained on, and every draw with its credits."""

    searcher: DifferentiableSearcher
    network: nn.Module
    received: list[Tensor]
    draws: list[tuple[Draw, list[Tensor]]]

    def step(self, train: Batch, *judges: Batch, step_size: float = STEP_SIZE, epoch: int = 0) -> dict[str, Tensor]:
        return self.searcher.step(train, judges, step_size, epoch)

    def gradient(self, train: Batch, *judges: Batch) -> Tensor:
        """Of preferences and acting logits, in one row; what is learned stays where it is."""
        self.searcher.policies.optimizer = torch.optim.SGD(self.searcher.policies.soft.parameters(), lr=0.0)
        self.step(train, *judges)
        soft = self.searcher.policies.soft
        return torch.cat([part.grad.flatten().clone() for part in (soft.preference, soft.probability_logits)])

    def learned(self) -> dict[str, Any]:
        state = self.searcher.state()
        visits = state["policies"]["soft"].pop("visits")
        assert int(visits.sum()) >= 0
        return copy.deepcopy(state)


def make(
    start: Policy = TELLING,
    network: nn.Module | None = None,
    trains: bool = True,
    standard: Standard = STANDARD,
    searcher: dict[str, Any] | None = None,
    space: dict[str, Any] | None = None,
    **estimator: Any,
) -> Bench:
    network, received = plain_network() if network is None else network, []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "start.json")
        start.save(path)
        settings = DifferentiableSearch(
            GradientSettings(**(searcher or {})),
            SpaceSettings(start=str(path), **(space or {})),
            EstimatorSettings(**estimator),
        )
        step = trained(network, trains, received)
        bench = Bench(DifferentiableSearcher(settings, network, step, standard, noise()), network, received, [])
    watch_draws(bench)
    return bench


def noise(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained(network: nn.Module, trains: bool, received: list[Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    optimizer = torch.optim.SGD(network.parameters(), lr=STEP_SIZE if trains else 0.0)

    def step(images: Tensor, labels: Tensor) -> Tensor:
        assert not images.requires_grad
        received.append(images.clone())
        loss = cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def watch_draws(bench: Bench) -> None:
    estimator = bench.searcher.policies.estimator
    forward = estimator.forward

    def watched(*given: Any) -> Draw:
        draw, credits = forward(*given), []
        bench.draws.append((draw, credits))
        return replace(draw, correction=lambda rewards: credits.append(rewards.clone()) or draw.correction(rewards))

    estimator.forward = watched


def seen_by_network(levels: Tensor, sub_policy: Tensor, acts: Tensor) -> Tensor:
    """What TELLING makes of levels (B, C, H, W), normalized, by hand."""
    levels, place = levels.int(), torch.where(acts.flatten() > 0, sub_policy, 2).view(-1, 1, 1, 1)
    solarized = torch.where(levels >= 128, 255 - levels, levels)
    return (torch.where(place == 0, 255 - levels, torch.where(place == 1, solarized, levels)) / 255 - 0.5) / 0.25
