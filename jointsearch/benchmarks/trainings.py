"""How many small trainings this machine makes in an hour, beside a plain loop of the same training written by hand."""

import math
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from jointsearch.data.datasets import Digits
from jointsearch.data.load import load_splits
from jointsearch.data.sets import DataSplits, ImageSet
from jointsearch.data.standard import Standard, normalize
from jointsearch.front_end import augment
from jointsearch.jobs import Job, plain_result
from jointsearch.loops.journal import Journal, carry_out
from jointsearch.loops.plan import Plan
from jointsearch.loops.population import train_job
from jointsearch.loops.recipe import SMALL, Recipe
from jointsearch.networks.create import create_network
from search_spaces.controls import named_policy

NETWORK, POLICY = "wide_resnet16_1", "trivialaugment"


@dataclass(frozen=True)
class Case:
    """A kind of small training."""

    splits: DataSplits
    standard: Standard
    recipe: Recipe
    timed: int  # epochs of a training that is timed


def cases() -> dict[str, Case]:
    """Digits, and as many images as the tables of results have, of CIFAR's size; what they show costs nothing."""
    digits = Digits()
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (1200, 3, 32, 32), dtype=torch.uint8, generator=generator)
    images = ImageSet(pixels, torch.arange(1200) % 10, tuple("0123456789"))
    photos = DataSplits(
        images.subset(torch.arange(1000)), images.subset(torch.arange(1000, 1200)), images.subset(torch.arange(0))
    )
    standard = Standard(crop_padding=4, flip=True, cutout=16)
    return {
        "digits, 60 epochs": Case(load_splits(digits, 0), digits.standard, SMALL, 30),
        "1,000 images of 32x32, 260 epochs": Case(photos, standard, replace(SMALL, epochs=260, batch_size=128), 4),
    }


def trainings_table(device: torch.device, rounds: int) -> str:
    """Trainings of an hour, and their time beside that of the plain loop, as Markdown."""
    lines = [
        f"| {NETWORK}, {POLICY} | trainings an hour, one process | time, plain loop = 1 | epochs that were timed |",
        "|---|---|---|---|",
    ]
    for name, case in cases().items():
        seconds, ratio = _measured(case, device, rounds)
        hour = 3600 / (seconds / case.timed * case.recipe.epochs)
        lines.append(f"| {name} | {hour:,.0f} | {ratio:.3f} | {case.timed} |")
    return "\n".join(lines)


def _measured(case: Case, device: torch.device, rounds: int) -> tuple[float, float]:
    """Seconds of ours, and their ratio to those of the plain loop. They take turns; disturbances only add."""
    least = [[float("inf")] * 2, [float("inf")] * 2]  # of ours and of the plain loop: by the clock, of the processor
    for _ in range(rounds + 1):  # the first one warms up
        for place, train in enumerate((ours_of, plain_of)):
            began = time.perf_counter(), time.process_time()
            train(case, device, case.timed)
            took = time.perf_counter() - began[0], time.process_time() - began[1]
            least[place] = [min(pair) for pair in zip(least[place], took, strict=True)]
    ours, plain = least
    by = 1 if device.type == "cpu" else 0
    return ours[0], ours[by] / plain[by]


def ours_of(case: Case, device: torch.device, epochs: int) -> None:
    """A job of a race, in a folder of its own."""
    recipe = replace(case.recipe, epochs=epochs, evaluate_every=epochs)
    policy = named_policy(POLICY)
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(Path(folder) / "job", NETWORK, recipe, case.standard, 0, policy, device=device)  # type: ignore[arg-type]
        job = Job(POLICY, policy)

        def train(journal: Journal) -> dict[str, object]:
            return plain_result(train_job(plan, case.splits, job, journal))

        carry_out(plan, case.splits, train)


def plain_of(case: Case, device: torch.device, epochs: int) -> None:
    """The same training as one writes it by hand: SGD, cosine, augmented batches, one look at the images that judge."""
    recipe, policy, noise = case.recipe, named_policy(POLICY), torch.Generator().manual_seed(1)
    torch.manual_seed(0)
    train, judging = case.splits.train.to(device), case.splits.validation.to(device)
    channels, side, _ = train.image_shape
    network = create_network(NETWORK, 10, channels, side, 0.0, {}).to(device).to(memory_format=torch.channels_last)
    decayed = [one for one in network.parameters() if one.ndim > 1]
    others = [one for one in network.parameters() if one.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, recipe.learning_rate, momentum=recipe.momentum, nesterov=True)
    steps = math.ceil(len(train) / recipe.batch_size)
    network.train()
    for epoch in range(epochs):
        order = torch.randperm(len(train))
        for step, index in enumerate(order.split(recipe.batch_size)):
            done = (epoch * steps + step) / (epochs * steps)
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * (1 + math.cos(math.pi * done)) / 2
            images = augment(train.images[index.to(device)], policy, case.standard, noise)
            outputs = network(images.contiguous(memory_format=torch.channels_last))
            loss = nn.functional.cross_entropy(outputs, train.labels[index.to(device)])
            loss.backward()
            if recipe.clip_gradient:
                nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_gradient)
            optimizer.step()
            optimizer.zero_grad()
    network.eval()
    with torch.no_grad():
        float(_accuracy(network(normalize(judging.images, case.standard)), judging.labels))


def _accuracy(outputs: Tensor, labels: Tensor) -> Tensor:
    return (outputs.argmax(1) == labels).float().mean()
