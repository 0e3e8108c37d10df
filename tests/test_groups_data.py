"""Groups go along with images through splits, orders and batches; drawn digits have those that they say."""

import hashlib
from dataclasses import replace
from itertools import pairwise, product

import pytest
import torch
from torch import Tensor

from jointsearch.data.datasets import DATASETS, Digits
from jointsearch.data.digits import read_digits
from jointsearch.data.group_datasets import ColoredDigits, ZigzagDigits
from jointsearch.data.group_digits import recolored
from jointsearch.data.groups import Grouped, Groups, as_read_by
from jointsearch.data.load import Loaded
from jointsearch.data.sets import ImageSet, StreamSet
from jointsearch.data.splits import epoch_order, search_halves, stratified_split
from tests.test_data_sets import Numbered

LABELS = torch.tensor([0] * 60 + [1] * 40)
VALUES = torch.tensor([0] * 54 + [1] * 6 + [0] * 8 + [1] * 32)
CLASSES = ("cat", "dog")


def grouped(balanced: bool = False) -> ImageSet:
    """100 images; the first pixel of each is its place."""
    pixels = torch.arange(100, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 3)
    groups = Groups.of(LABELS, VALUES, ("in", "out"))
    return ImageSet(pixels.clone(), LABELS, CLASSES, balanced=balanced, groups=groups)


def streamed(balanced: bool = False) -> StreamSet:
    groups = Groups.of(LABELS, VALUES, ("in", "out"))
    source = Numbered()
    return StreamSet(source, torch.arange(100), LABELS, CLASSES, (1, 2, 3), 0, balanced=balanced, groups=groups)


SETS = {"in_memory": grouped, "streamed": streamed, "read": lambda balanced=False: streamed(balanced).in_memory()}
NUMBERS = 2 * LABELS + VALUES


@pytest.mark.parametrize("make", SETS.values(), ids=SETS.keys())
def test_every_batch_tells_the_groups_of_its_own_images(make) -> None:
    order = torch.randperm(100, generator=torch.Generator().manual_seed(1))
    part = make().subset(order[:70])
    for batch in part.to("cpu").batches(torch.arange(69, -1, -1), 32):
        places = batch.images[:, 0, 0, 0].long()
        assert torch.equal(batch.groups.numbers, NUMBERS[places])
        assert torch.equal(batch.targets.groups.values, VALUES[places])
        assert torch.equal(batch.targets.labels, LABELS[places])
        assert batch.groups.names(CLASSES) == ("cat/in", "cat/out", "dog/in", "dog/out")


@pytest.mark.parametrize("make", SETS.values(), ids=SETS.keys())
def test_halves_have_the_share_of_every_group(make) -> None:
    for half in search_halves(make(), 3):
        assert half.groups.numbers.bincount().tolist() == [27, 3, 4, 16]
        assert torch.equal(half.groups.numbers // 2, half.labels)


@pytest.mark.parametrize("make", SETS.values(), ids=SETS.keys())
def test_a_balanced_epoch_has_as_many_images_of_every_group(make) -> None:
    images = make(balanced=True)
    order = epoch_order(images, torch.Generator().manual_seed(0))
    assert NUMBERS[order].bincount().tolist() == [25] * 4
    assert not torch.equal(epoch_order(make(), torch.Generator().manual_seed(0)), order)


@pytest.mark.parametrize("make", SETS.values(), ids=SETS.keys())
def test_a_set_with_other_groups_is_another_set(make) -> None:
    images = make()
    numbers, attributes = images.groups.numbers.clone(), images.groups.attributes
    numbers[0] = 1
    renamed, moved = Groups(images.groups.numbers, ("out", "in")), Groups(numbers, attributes)
    prints = [b"".join(replace(images, groups=one).fingerprint()) for one in (images.groups, None, renamed, moved)]
    assert len(set(prints)) == 4


def test_blank_batches_have_every_group() -> None:
    assert set(grouped().blank(8).groups.numbers.tolist()) == {0, 1, 2, 3}


def test_without_groups_nothing_is_told_and_the_fingerprint_is_of_classes_labels_and_pixels() -> None:
    splits = Loaded(Digits()).splits(0)
    batch = next(splits.train.batches(torch.arange(5), 5))
    assert batch.groups is None
    assert batch.targets is batch.labels
    digits, digest = read_digits(), hashlib.sha256()
    # The parts that stratified_split gave before sets could have groups, from labels alone.
    rest, test = stratified_split(digits.labels, (1797 - 749, 749), 0)
    held, kept = stratified_split(digits.labels[rest], (748, 300), 0)
    for rows in (rest[kept], rest[held], test):
        for told in ("\n".join("0123456789").encode(), digits.labels[rows], digits.images[rows]):
            digest.update(told if isinstance(told, bytes) else told.numpy().tobytes())
    assert splits.digest == digest.hexdigest()[:16]


def test_a_reader_without_by_group_gets_labels_alone() -> None:
    told = Grouped(LABELS, Groups.of(LABELS, VALUES, ("in", "out")))

    class ByGroup:
        by_group = True

    assert as_read_by(object(), told) is LABELS
    assert as_read_by(ByGroup(), told) is told
    assert as_read_by(ByGroup(), LABELS) is LABELS
    part = told.rows(slice(58, 62))
    assert (part.labels.tolist(), part.groups.values.tolist(), len(part)) == ([0, 0, 1, 1], [1, 1, 0, 0], 4)


DRAWN = {"colored_digits": ColoredDigits, "zigzag_digits": ZigzagDigits}


@pytest.mark.parametrize("name", DRAWN)
def test_the_attribute_goes_with_the_class_in_training_images_alone(name: str) -> None:
    for correlation in (0.95, 0.99, 0.5):
        splits = Loaded(DRAWN[name](correlation=correlation)).splits(0)
        for part, share in zip((splits.train, splits.validation, splits.test), (correlation, 0.5, 0.5), strict=True):
            for label in range(2):
                of_class = part.groups.values[part.labels == label]
                assert abs(float((of_class == label).sum()) - share * len(of_class)) <= 0.5
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (797, 400, 600)


@pytest.mark.parametrize("name", DRAWN)
def test_drawn_digits_are_the_same_on_every_call_and_no_digit_is_in_two_splits(name: str) -> None:
    first, again = (DRAWN[name]().find() for _ in range(2))
    digits = read_digits().images
    known = {tuple(one) for one in digits.flatten(1).tolist()}
    seen: list[tuple[int, ...]] = []
    for part, other in zip(vars(first).values(), vars(again).values(), strict=True):
        assert torch.equal(part.images, other.images)
        assert torch.equal(part.groups.numbers, other.groups.numbers)
        clean = part.images.amax(1) if name == "colored_digits" else part.images[part.groups.values == 0, 0]
        seen += [tuple(one) for one in clean.flatten(1).tolist()]
    assert set(seen) <= known
    assert len(set(seen)) == len(seen)


def test_colored_digits_are_on_the_channel_of_their_color_and_the_translator_exchanges_it() -> None:
    part = DATASETS["colored_digits"]().find().test
    pixels, rows = part.images / 255, torch.arange(len(part))
    sums = pixels.sum((2, 3))
    assert (sums[rows, part.groups.values] > 0).all()
    assert (sums.sum(1) == sums[rows, part.groups.values]).all()
    for to, place in product((0, 1), rows[:40].tolist()):
        image, translated = pixels[place], recolored(pixels, part.groups.numbers, to)[place]
        assert torch.equal(translated[to], image.amax(0))
        assert int((translated.sum((1, 2)) > 0).sum()) == 1
    assert part.groups.translate is recolored


def test_zigzags_are_one_white_pixel_in_every_column_beside_its_neighbours() -> None:
    part = DATASETS["zigzag_digits"]().find().train
    crossed: Tensor = part.images[part.groups.values == 1, 0] == 255
    for image in crossed[:50]:
        columns = [set(torch.nonzero(image[:, column]).flatten().tolist()) for column in range(8)]
        assert all(columns)
        steps = [{one - other for one in right for other in left} for left, right in pairwise(columns)]
        assert all({1, -1} & step for step in steps)


def test_a_reduced_set_keeps_the_shares_of_groups() -> None:
    splits = Loaded(ColoredDigits(reduced=200)).splits(0)
    assert len(splits.train) == 200
    assert splits.train.groups.numbers.bincount().tolist() in ([94, 5, 5, 96], [95, 5, 5, 95])
    assert torch.equal(splits.train.groups.numbers // 2, splits.train.labels)
