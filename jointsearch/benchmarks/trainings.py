"""How many small trainings this machine makes in an hour, beside a plain loop of the same training written by hand."""

import math
import tempfile
import time
from collections.abc import Callable
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
SHORT, LONG = 2, 8  # epochs: what a training costs beside its epochs is the rest


@dataclass(frozen=True)
class Case:
    """A kind of small training."""

    splits: DataSplits
    standard: Standard
    recipe: Recipe


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
        "digits, 60 epochs": Case(load_splits(digits, 0), digits.standard, SMALL),
        "1,000 images of 32x32, 260 epochs": Case(photos, standard, replace(SMALL, epochs=260, batch_size=128)),
    }


def trainings_table(device: torch.device, rounds: int) -> str:
    """Trainings of an hour and their time beside that of the plain loop, as Markdown."""
    lines = [
        f"| {NETWORK}, {POLICY} | trainings an hour | seconds beside the epochs | an epoch (plain loop: 1) | "
        "a training (plain loop: 1) |",
        "|---|---|---|---|---|",
    ]
    for name, case in cases().items():
        ours, plain = _measured(case, device, rounds)
        whole = [fixed + case.recipe.epochs * epoch for fixed, epoch in (ours, plain)]
        lines.append(
            f"| {name} | {3600 / whole[0]:,.0f} | {ours[0]:.2f} (plain {plain[0]:.2f}) | {ours[1] / plain[1]:.3f} | "
            f"{whole[0] / whole[1]:.3f} |"
        )
    return "\n".join(lines)


def _measured(case: Case, device: torch.device, rounds: int) -> list[tuple[float, float]]:
    """Of ours and of the plain loop: seconds beside the epochs, and of an epoch. They take turns."""
    kinds: list[Callable[[Case, torch.device, int], None]] = [ours_of, plain_of]
    seconds: dict[tuple[int, int], list[float]] = {(place, epochs): [] for place in (0, 1) for epochs in (SHORT, LONG)}
    for round_ in range(rounds + 1):
        for (place, epochs), found in seconds.items():
            began = time.perf_counter()
            kinds[place](case, device, epochs)
            if round_:  # the first one warms up
                found.append(time.perf_counter() - began)
    result = []
    for place in (0, 1):
        short, long = (min(seconds[place, epochs]) for epochs in (SHORT, LONG))  # what disturbs only adds
        epoch = (long - short) / (LONG - SHORT)
        result.append((max(short - SHORT * epoch, 0.0), epoch))
    return result


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
