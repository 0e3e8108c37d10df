"""What the tests of searchers share: images of a known pattern, small networks, and a searcher that is looked at."""

import copy
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from jointsearch.data.sets import Batch
from jointsearch.data.standard import Standard
from jointsearch.estimators.draw import Draw, EstimatorSettings
from jointsearch.estimators.gumbel import GumbelSettings
from jointsearch.estimators.reinforce import ReinforceSettings
from jointsearch.estimators.relax import RelaxSettings
from jointsearch.objectives.cross_entropy import CrossEntropy
from jointsearch.protocols import Context, Moment, StepReport
from jointsearch.searchers.differentiable import Differentiable, DifferentiableSearcher
from jointsearch.searchers.policy_learner import PolicyLearner
from jointsearch.searchers.spaces import Start
from jointsearch.soft.policy import SoftPolicy
from search_spaces.policy import OpChoice, Policy, SubPolicy

# Told apart in every image: levels mirrored, levels from 128 on mirrored, nothing.
TELLING = Policy(
    (SubPolicy((OpChoice("Invert", 0.6),), 2.0), SubPolicy((OpChoice("Solarize", 0.5, 0.5),)), SubPolicy(())),
)
CLASSES = 4
STANDARD = Standard()
STEP_SIZE = 0.1
ESTIMATORS: dict[str, EstimatorSettings] = {
    "leave_one_out": ReinforceSettings(),
    "ema": ReinforceSettings(baseline="ema"),
    "none": ReinforceSettings(baseline="none"),
    "leave_one_out_joint": ReinforceSettings(scoring="joint"),
    "relax": RelaxSettings(),
    "relax_joint": RelaxSettings(scoring="joint"),
}
GUMBEL: dict[str, EstimatorSettings] = {"gumbel": GumbelSettings()}


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


def moment(epoch: int = 0, step: int = 0, epochs: int = 4, step_size: float = STEP_SIZE, steps: int = 1000) -> Moment:
    """Where a training stands, in epochs of so many steps."""
    return Moment(epoch, step, steps, epochs, step_size)


@dataclass
class Descent:
    """A training step by hand, which keeps what it was given."""

    network: nn.Module
    rate: float = STEP_SIZE
    momentum: float = 0.0
    received: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.objective = CrossEntropy()
        # As in the loop, the architecture of a supernet is none of the weights.
        weights = [weight for weight in self.network.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.SGD(weights, self.rate, self.momentum)

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        assert not images.requires_grad
        self.received.append(images.clone())
        loss = cross_entropy(self.network(images), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    @contextmanager
    def undone(self) -> Iterator[None]:
        before = copy.deepcopy(self.network.state_dict())
        yield
        self.network.load_state_dict(before)

    def begin_part(self, part: int, parts: int) -> None:
        """Nobody is told."""


@dataclass
class Bench:
    """A searcher, its network, the images that the network was trained on, and every draw with its credits."""

    searcher: DifferentiableSearcher
    network: nn.Module
    received: list[Tensor]
    draws: list[tuple[Draw, list[Tensor]]]

    @property
    def policy(self) -> PolicyLearner:
        assert self.searcher.policy is not None
        return self.searcher.policy

    @property
    def soft(self) -> SoftPolicy:
        return self.policy.soft

    @property
    def facts(self) -> dict[str, Any]:
        return dict(self.searcher.found().facts)

    def step(self, train: Batch, *validation: Batch, step_size: float = STEP_SIZE, epoch: int = 0) -> StepReport:
        return self.searcher.step(train, validation, moment(epoch, step_size=step_size))

    def gradient(self, train: Batch, *validation: Batch) -> Tensor:
        """Of preferences and acting logits, in one row; what is learned stays where it is."""
        self.policy.optimizer = torch.optim.SGD(self.soft.parameters(), lr=0.0)
        self.step(train, *validation)
        parts = (self.soft.preference, self.soft.probability_logits)
        return torch.cat([part.grad.flatten().clone() for part in parts if part.grad is not None])

    def learned(self) -> dict[str, Any]:
        state = copy.deepcopy(self.searcher.state())
        assert int(state["policy"]["soft"].pop("visits").sum()) >= 0
        return state


def make(
    start: Policy = TELLING,
    network: nn.Module | None = None,
    trains: bool = True,
    standard: Standard = STANDARD,
    space: dict[str, Any] | None = None,
    estimator: EstimatorSettings = ESTIMATORS["leave_one_out"],
    **searcher: Any,
) -> Bench:
    """A search of a policy alone; `space` are settings of Start, the other names those of the searcher."""
    network = plain_network() if network is None else network
    step = Descent(network, STEP_SIZE if trains else 0.0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "start.json")
        start.save(path)
        moves = searcher.get("magnitude_gradient") != "none"
        choices = Start(**{"start": str(path), "learn_magnitude": moves, "share": "none"} | (space or {}))
        settings = Differentiable(policy_space=choices, estimator=estimator, **searcher)
        made = settings.start(Context(network, step, standard, noise(), epochs=4))
    bench = Bench(made, network, step.received, [])
    watch_draws(bench)
    return bench


def noise(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def watch_draws(bench: Bench) -> None:
    estimator = bench.policy.estimator
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
