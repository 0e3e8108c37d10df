"""Crop, flip, cutout and normalization in batches do what a loop over single images does."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from jointsearch.data.standard import Standard, cutout, normalize, random_crop_flip
from search_spaces.errors import InputError


def batch(count: int, channels: int = 3, height: int = 7, width: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(1, 256, (count, channels, height, width), generator=generator, dtype=torch.uint8)


def crops(image: np.ndarray, padding: int, flip: bool) -> list[bytes]:
    """Every result that may come out for one image, by plain slicing."""
    _, height, width = image.shape
    padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
    cut = [
        padded[:, top : top + height, left : left + width]
        for top in range(2 * padding + 1)
        for left in range(2 * padding + 1)
    ]
    return [part.tobytes() for part in (*cut, *(part[:, :, ::-1] for part in cut if flip))]


@pytest.mark.parametrize(("padding", "flip"), [(1, False), (1, True), (0, True), (3, False)])
def test_every_crop_and_flip_is_possible_equally_likely_and_nothing_else_is(padding: int, flip: bool) -> None:
    image = batch(1)
    expected = crops(image[0].numpy(), padding, flip)
    repeats = 200 * len(expected)
    results = random_crop_flip(image.expand(repeats, -1, -1, -1), Standard(padding, flip), torch.Generator())
    found = [result.numpy().tobytes() for result in results]
    counts = [found.count(content) for content in expected]
    assert sum(counts) == repeats
    # Each count is binomial around 200 with standard deviation 14; six of them are not left by chance.
    assert min(counts) > 200 - 6 * 14
    assert max(counts) < 200 + 6 * 14


def test_each_image_equals_the_loop_that_crops_and_flips_it_alone() -> None:
    images, standard = batch(16), Standard(crop_padding=2, flip=True)
    results = random_crop_flip(images, standard, torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    offsets = torch.randint(5, (2, 16, 1), generator=generator).squeeze(2).tolist()
    mirrored = (torch.rand(16, 1, generator=generator) < 0.5).flatten().tolist()
    for image, result, top, left, mirror in zip(images, results, *offsets, mirrored, strict=True):
        padded = reference.pad(image, [2])
        expected = reference.crop(padded, top, left, 7, 9)
        assert torch.equal(result, reference.horizontal_flip(expected) if mirror else expected)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_crops_are_the_same_for_bytes_and_for_floats(channels: int) -> None:
    images, standard = batch(4, channels), Standard(2, True)
    first = random_crop_flip(images, standard, torch.Generator().manual_seed(0))
    second = random_crop_flip(images.float(), standard, torch.Generator().manual_seed(0))
    assert first.dtype == torch.uint8
    assert torch.equal(first.float(), second)


def test_without_crop_and_flip_nothing_changes_and_nothing_is_drawn() -> None:
    images, generator = batch(4), torch.Generator()
    before = generator.get_state()
    assert torch.equal(random_crop_flip(images, Standard(), generator), images)
    assert torch.equal(cutout(images, 0, generator), images)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_cutout_zeroes_a_square_around_any_pixel_clipped_at_the_borders(size: int) -> None:
    height, width, repeats = 4, 5, 8000
    images = torch.full((repeats, 2, height, width), 7.0)
    results = cutout(images, size, torch.Generator())
    expected = set()
    for row in range(height):
        for column in range(width):
            mask = np.full((height, width), 7.0)
            top, left = row - size // 2, column - size // 2
            mask[max(top, 0) : top + size, max(left, 0) : left + size] = 0
            expected.add(mask.tobytes())
    found = [result[0].double().numpy().tobytes() for result in results]
    assert set(found) == expected
    assert torch.equal(results[:, 0], results[:, 1])
    assert torch.equal(images, torch.full_like(images, 7.0))
    # A square of 1 px has 20 places, each binomial around 400 with standard deviation 19.5.
    if size == 1:
        assert all(abs(found.count(content) - 400) < 6 * 19.5 for content in expected)


def test_cutout_of_16_px_leaves_something_of_every_image_of_32_px() -> None:
    holes = cutout(torch.ones(500, 1, 32, 32), 16, torch.Generator()).eq(0).sum((1, 2, 3))
    assert holes.max() == 256
    assert holes.min() >= 64  # a square centred at a corner pixel keeps at least a quarter inside


def test_a_cutout_larger_than_the_images_is_an_error() -> None:
    with pytest.raises(InputError, match=r"cutout of 9 px on images of 8x12 px; set dataset\.standard\.cutout smaller"):
        cutout(torch.ones(1, 1, 8, 12), 9, torch.Generator())


@pytest.mark.parametrize(("mean", "std"), [((0.1, 0.2, 0.3), (0.5, 0.6, 0.7)), ((0.4,), (0.25,))])
def test_normalization_is_torchvisions(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    images = batch(3)
    expected = reference.normalize(images.float() / 255, list(mean), list(std))
    standard = Standard(mean=mean, std=std)
    torch.testing.assert_close(normalize(images, standard), expected)
    torch.testing.assert_close(normalize(images / 255, standard), expected)


def test_a_mean_for_another_number_of_channels_is_an_error() -> None:
    with pytest.raises(InputError, match="has 3 numbers and the images have 1 channels; give"):
        normalize(batch(1, 1), Standard(mean=(0.5,) * 3, std=(0.5,) * 3))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"crop_padding": -1}, "crop_padding is -1; wanted a whole number from 0 to 4096"),
        ({"cutout": -4}, "cutout is -4; wanted a whole number from 0 to 4096"),
        ({"mean": (0.5, 0.5)}, "give one of each per channel"),
        ({"mean": (), "std": ()}, "give one of each per channel"),
        ({"std": (0.0,)}, "give numbers above 0"),
    ],
)
def test_impossible_settings_are_an_error(fields, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Standard(**fields)
