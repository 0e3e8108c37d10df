"""How far rewards and their gradients are from what the real training step does, in which batch statistics are live.

A network has been trained on drawn shapes under uniform pairs of ops. Of a few steps of it is measured:

- rewards: what the draw of one image does to the whole step, by exchanging that draw alone for the plain image;
- magnitudes: the slope of the exact reward over the magnitude of an op, from two passes with the same noise, half of
  the images under the op. Pixels and ReLUs have kinks, which single points of a network do not show, and a slope does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from jointsearch.data.datasets import Shapes
from jointsearch.data.load import load_search_splits
from jointsearch.data.sets import DataSplits
from jointsearch.data.standard import normalize
from jointsearch.networks.create import create_network
from jointsearch.through_step.finite_difference import finite_difference
from jointsearch.through_step.jvp import jvp
from jointsearch.through_step.record import StepNetwork, StepRecord, record_step
from jointsearch.through_step.validation import validation_gradient
from search_spaces.augment.apply import apply_draw, apply_policy, draw_of, draw_policy
from search_spaces.augment.table import DADA_OPS, OPS
from search_spaces.spaces import pairs

NETWORK, EPOCHS, BATCH, JUDGES, LEARNING_RATE = "tiny_cnn", 10, 64, 256, 0.05
STEPS, EXCHANGED = 8, 16  # steps that are measured, and images of each whose draw is exchanged
SETUP = f"{NETWORK}, {EPOCHS} epochs on drawn shapes, then {STEPS} steps of {BATCH} images"
MAGNITUDE, HALF_WIDTH, SPREAD = 0.5, 0.1, 0.1  # of the slopes that count as true, and of the score function
STANDARD = Shapes().standard
EPSILONS = (0.03, 0.01, 0.003, 0.001)
Reward = Callable[[Tensor, Tensor], Tensor]  # of images and labels


@dataclass(frozen=True)
class Agreement:
    """Estimates beside the truth."""

    cosine: float
    size: float  # over that of the truth
    signs: float  # share that is right


def agreement(found: Tensor, true: Tensor) -> Agreement:
    """Of two vectors."""
    cosine = found @ true / (found.norm() * true.norm())
    signs = (found.sign() == true.sign()).double().mean()
    return Agreement(float(cosine), float(found.norm() / true.norm()), float(signs))


@dataclass
class Steps:
    """Training steps of a trained network, each taken from the same weights."""

    network: nn.Module
    data: DataSplits
    noise: torch.Generator

    def batch(self) -> tuple[Tensor, Tensor]:
        """Training images in [0, 1], and their labels."""
        places = torch.randperm(len(self.data.train), generator=self.noise)[:BATCH]
        (batch,) = self.data.train.batches(places, BATCH)
        return batch.images.double() / 255, batch.labels

    def take(self, images: Tensor, labels: Tensor) -> tuple[StepRecord, dict[str, Tensor]]:
        """A step on normalized images, recorded, and the validation gradient after it; then the weights come back."""
        before = {name: value.clone() for name, value in self.network.state_dict().items()}
        with record_step(self.network) as record:
            cross_entropy(self.network(images), labels).backward()
            torch.optim.SGD(self.network.parameters(), LEARNING_RATE).step()
            self.network.zero_grad()
        places = torch.randperm(len(self.data.validation), generator=self.noise)[:JUDGES]
        (judge,) = self.data.validation.batches(places, JUDGES)
        v = validation_gradient(self.network, [(normalize(judge.images.double() / 255, STANDARD), judge.labels)])
        self.network.load_state_dict(before)
        return record, v


def trained_steps() -> Steps:
    """Those of the network after its training."""
    torch.manual_seed(0)
    noise, data = torch.Generator().manual_seed(0), load_search_splits(Shapes(), 0)
    network = create_network(NETWORK, len(data.train.classes))
    optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE, momentum=0.9, nesterov=True, weight_decay=5e-4)
    for _ in range(EPOCHS):
        for batch in data.train.batches(torch.randperm(len(data.train), generator=noise), BATCH):
            images = normalize(apply_policy(pairs(), batch.images / 255, noise), STANDARD)
            optimizer.zero_grad()
            cross_entropy(network(images), batch.labels).backward()
            optimizer.step()
    return Steps(network.double(), data, noise)


def rewards_agreement(steps: Steps, count: int = STEPS, exchanged: int = EXCHANGED) -> dict[str, Agreement]:
    """Of the reward of single images, by the batch statistics that it is computed with, and of the mean of a batch.

    The mean of a batch with live statistics is the truth itself.
    """
    found: dict[str, list[Tensor]] = {"truth": [], "live": [], "frozen": []}
    of_batch: list[tuple[Tensor, Tensor]] = []
    for _ in range(count):
        pixels, labels = steps.batch()
        plain = normalize(pixels, STANDARD)
        images = normalize(apply_draw(pixels, draw_policy(pairs(), BATCH, steps.noise)), STANDARD)
        record, v = steps.take(images, labels)
        live, frozen = partial(_exact, record.live(), v), partial(_exact, record.frozen(), v)
        own = live(images, labels).detach()
        change = (frozen(images, labels) - frozen(plain, labels)).detach()
        of_batch.append(((own - live(plain, labels)).detach().mean(), change.mean()))
        for place in range(exchanged):
            other = images.clone()
            other[place] = plain[place]
            without = live(other, labels).detach()
            found["truth"].append((own - without).sum())
            found["live"].append(own[place] - without[place])
            found["frozen"].append(change[place])
    centred = {name: torch.stack(values) - torch.stack(values).mean() for name, values in found.items()}
    of_images = {name: agreement(centred[name], centred["truth"]) for name in ("live", "frozen")}
    true, frozen_mean = (torch.stack(values) for values in zip(*of_batch, strict=True))
    return {**of_images, "frozen, mean of a batch that all moves": agreement(frozen_mean, true)}


def magnitudes_agreement(steps: Steps, count: int = STEPS) -> dict[str, Agreement]:
    """Of the gradient of the magnitude of every op, over all ops and steps."""
    found: dict[str, list[float]] = {}
    for _ in range(count):
        pixels, labels = steps.batch()
        images = normalize(apply_draw(pixels, draw_policy(pairs(), BATCH, steps.noise)), STANDARD)
        record, v = steps.take(images, labels)
        live, frozen = record.live(), record.frozen()
        exact: Reward = partial(_exact, live, v)
        ways: dict[str, Reward] = {"jvp": exact}
        for epsilon in EPSILONS:
            ways[f"finite difference, epsilon {epsilon:g}"] = partial(_difference, live, v, epsilon)
        ways["finite difference, epsilon 0.01, frozen"] = partial(_difference, frozen, v, 0.01)
        for name in (op.name for op in OPS.values() if op.has_magnitude and op.name in DADA_OPS):
            under = _Under(name, pixels, steps.noise)
            above, below = (
                exact(under(torch.tensor(MAGNITUDE + sign * HALF_WIDTH)), labels).mean().detach() for sign in (1, -1)
            )
            found.setdefault("truth", []).append(float(above - below) / (2 * HALF_WIDTH))
            for way, reward in ways.items():
                magnitude = torch.tensor(MAGNITUDE, dtype=torch.float64, requires_grad=True)
                (slope,) = torch.autograd.grad(reward(under(magnitude), labels).mean(), magnitude)
                found.setdefault(way, []).append(float(slope))
            noise = torch.randn(BATCH, generator=steps.noise, dtype=torch.float64)
            rewards = exact(under(MAGNITUDE + SPREAD * noise), labels).detach()
            score = ((rewards - rewards.mean()) * noise / SPREAD)[under.acts].sum() / BATCH
            found.setdefault(f"score function, spread {SPREAD:g}", []).append(float(score))
    true = torch.tensor(found.pop("truth"))
    return {way: agreement(torch.tensor(slopes), true) for way, slopes in found.items()}


def _exact(network: StepNetwork, v: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
    return jvp(network, v, images, labels, 1.0)


def _difference(network: StepNetwork, v: dict[str, Tensor], epsilon: float, images: Tensor, labels: Tensor) -> Tensor:
    return finite_difference(network, v, images, labels, 1.0, epsilon)


class _Under:
    """The images with half of them under an op, always with the same noise, as a function of the magnitude."""

    def __init__(self, name: str, pixels: Tensor, noise: torch.Generator) -> None:
        self.pixels, self.acts = pixels, torch.rand(len(pixels), generator=noise) < 0.5
        self.op = torch.where(self.acts, list(OPS).index(name), -1).view(-1, 1)
        self.uniform = torch.rand(4, len(pixels), generator=noise)

    def __call__(self, magnitude: Tensor) -> Tensor:
        none = torch.zeros(len(self.pixels), dtype=torch.int64)
        draw = draw_of(none, self.op, magnitude.expand(len(self.pixels)).view(-1, 1), self.uniform)
        return normalize(apply_draw(self.pixels, draw), STANDARD)
