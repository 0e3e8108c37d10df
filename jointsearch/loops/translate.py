"""Trains a CycleGAN for each class of a data set with groups, to translate images from one attribute to the other."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from jointsearch.networks.cyclegan import Discriminator, Translator, as_signed
from jointsearch.randomness import own_global_randomness
from search_spaces.errors import InputError

BETAS = (0.5, 0.999)  # of Adam, as in the paper
HALVED_FROM = 16  # pixels of a side, from which on maps of a generator have half of it
CYCLE, IDENTITY = 10.0, 5.0  # weights of the paper, beside 1 of the discriminators' judgement


BATCH_SIZE = 32  # of each attribute
LEARNING_RATE = 1e-3  # of Adam; the paper has 2e-4, for larger images and more steps


@dataclass(frozen=True)
class TranslatorRecipe:
    """How long it is trained, and how wide it is."""

    steps: int = 500  # of each class
    width: int = 16  # channels of the first convolution


def train_translator(
    train: Any,
    recipe: TranslatorRecipe,
    seed: int,
    device: torch.device,
    done: Callable[[int, int], None] = lambda step, steps: None,
) -> Translator:
    """A translator of the images of a set in memory; `done` is told the steps so far, and how many there are."""
    groups = getattr(train, "groups", None)
    if groups is None or len(groups.attributes) != 2:
        there = "no groups" if groups is None else f"{len(groups.attributes)} attributes"
        raise InputError(
            f"a CycleGAN translates between two attributes, and these images have {there}; choose another data set, as "
            "dataset=colored_digits"
        )
    counts = torch.bincount(groups.numbers, minlength=2 * len(train.classes))
    if int(counts.min()) < 2:
        name = groups.names(train.classes)[int(counts.argmin())]
        raise InputError(f"group {name} has {int(counts.min())} training images, and a CycleGAN needs 2; add some")
    with own_global_randomness(seed):
        channels, *sides = train.image_shape
        halves = min(sides) >= HALVED_FROM and not any(side % 2 for side in sides)
        made = Translator(tuple(train.classes), groups.attributes, channels, recipe.width, halves)
        noise = torch.Generator().manual_seed(seed)
        for place in range(len(train.classes)):
            members = [_images(train, 2 * place + attribute) for attribute in range(2)]
            generators = [made.generators[2 * place + attribute].to(device) for attribute in range(2)]
            pair = _Pair(generators, channels, recipe)
            for step in range(1, recipe.steps + 1):
                pair.step(members, noise)
                done(place * recipe.steps + step, len(train.classes) * recipe.steps)
    return made.cpu().eval()


def _images(train: Any, number: int) -> Tensor:
    """All images of a group, uint8."""
    rows = torch.nonzero(train.groups.numbers == number).flatten().cpu()
    [batch] = train.batches(rows, len(rows))
    return batch.images


class _Pair:
    """Two generators, into the first attribute and into the second, and who judges what they make."""

    def __init__(self, generators: list[nn.Module], channels: int, recipe: TranslatorRecipe) -> None:
        self.generators, device = generators, next(generators[0].parameters()).device
        self.judges = [Discriminator(channels, recipe.width).to(device) for _ in range(2)]
        self.recipe, self.device = recipe, device
        self.optimizers = [
            torch.optim.Adam(chain(*(net.parameters() for net in nets)), LEARNING_RATE, BETAS)
            for nets in (self.generators, self.judges)
        ]

    def step(self, members: list[Tensor], noise: torch.Generator) -> None:
        """Train on some of the images with the first attribute and with the second."""
        drawn = [torch.randint(len(some), (BATCH_SIZE,), generator=noise) for some in members]
        pairs = zip(members, drawn, strict=True)
        real = [as_signed(some[rows.to(some.device)].to(self.device) / 255) for some, rows in pairs]
        self._judge(real, self._generate(real))

    def _generate(self, real: list[Tensor]) -> list[Tensor]:
        """Move the generators. Returns what they made of the images with the other attribute."""
        made = [self.generators[to](real[1 - to]) for to in range(2)]
        loss = torch.zeros((), device=self.device)
        for to in range(2):
            back = self.generators[1 - to](made[to])
            kept = self.generators[to](real[to])
            loss = loss + (self.judges[to](made[to]) - 1).square().mean()
            loss = loss + CYCLE * (back - real[1 - to]).abs().mean() + IDENTITY * (kept - real[to]).abs().mean()
        _take_step(self.optimizers[0], loss)
        return [one.detach() for one in made]

    def _judge(self, real: list[Tensor], made: list[Tensor]) -> None:
        """Move those who judge: least squares, 1 for real images and 0 for made ones."""
        loss = torch.zeros((), device=self.device)
        for to, judge in enumerate(self.judges):
            loss = loss + ((judge(real[to]) - 1).square().mean() + judge(made[to]).square().mean()) / 2
        _take_step(self.optimizers[1], loss)


def _take_step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


@torch.no_grad()
def distance(translate: Any, images: Any) -> dict[str, float]:
    """How far translations to the other attribute are from the true ones, which drawn images know: mean per pixel.

    Beside it, how far the images themselves are, that nothing translates. Empty where the truth is not known.
    """
    if images.groups is None or images.groups.translate is None or not len(images):
        return {}
    [batch] = images.batches(torch.arange(len(images)), len(images))
    pixels, numbers, true = batch.images / 255, batch.groups.numbers, images.groups.translate
    told = {"translated": 0.0, "left as they are": 0.0}
    for to in range(2):
        rows = torch.nonzero(images.groups.values == 1 - to).flatten()
        some, of = pixels[rows], numbers[rows]
        truth = true(some, of, to)
        told["translated"] += float((translate(some, of, to) - truth).abs().sum()) / pixels.numel()
        told["left as they are"] += float((some - truth).abs().sum()) / pixels.numel()
    return told
