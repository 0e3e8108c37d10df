"""The way of an image to the network, by hand: which steps act, in which order, and what they leave alone."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from jointsearch.data.standard import ORDERS, Standard
from jointsearch.front_end import augment
from search_spaces.controls import resolve_policy
from search_spaces.policy import OpChoice, Policy, SubPolicy

AS_IS = Standard(mean=(0.0,), std=(1.0,))  # normalization that changes nothing
NOTHING = Policy((SubPolicy(),))
INVERT = Policy((SubPolicy((OpChoice("Invert"),)),))
FLIP = Policy((SubPolicy((OpChoice("HorizontalFlip"),)),))
LEVELS = torch.tensor([[[[0, 51, 102], [153, 204, 255]]]], dtype=torch.uint8)  # fifths of 255


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("policy", "pixels"),
    [
        (NOTHING, [[0.0, 0.2, 0.4], [0.6, 0.8, 1.0]]),
        (INVERT, [[1.0, 0.8, 0.6], [0.4, 0.2, 0.0]]),
        (FLIP, [[0.4, 0.2, 0.0], [1.0, 0.8, 0.6]]),
    ],
)
@pytest.mark.parametrize("order", ORDERS)
def test_the_policy_acts_on_the_pixels_in_both_orders(policy: Policy, pixels: list[list[float]], order: str) -> None:
    augmented = augment(LEVELS, policy, replace(AS_IS, order=order), noise())
    assert augmented.dtype == torch.float32
    torch.testing.assert_close(augmented, torch.tensor([[pixels]]))


def test_normalization_comes_after_the_policy() -> None:
    augmented = augment(LEVELS, INVERT, Standard(mean=(0.5,), std=(0.25,)), noise())
    expected = torch.tensor([[[[2.0, 1.2, 0.4], [-0.4, -1.2, -2.0]]]])  # ((1 - x) - 0.5) / 0.25
    torch.testing.assert_close(augmented, expected)


def test_crop_and_flip_come_before_the_policy_or_after_it_as_the_standard_says() -> None:
    # A crop pads with black. Inverted after the crop all of a black image is white; inverted before, its border is not.
    black = torch.zeros(64, 1, 4, 4, dtype=torch.uint8)
    standard = replace(AS_IS, crop_padding=1, flip=True)
    before = augment(black, INVERT, replace(standard, order="crop_flip, policy, cutout"), noise())
    assert torch.equal(before, torch.ones(64, 1, 4, 4))
    after = augment(black, INVERT, replace(standard, order="policy, crop_flip, cutout"), noise())
    assert torch.equal(after[..., 1:3, 1:3], torch.ones(64, 1, 2, 2))
    shifted = (after == 0).flatten(1).any(1).float().mean()
    assert after.unique().tolist() == [0.0, 1.0]
    assert 0.7 < shifted < 1.0  # eight of nine offsets are not the middle; sixty-four images, three deviations wide


@pytest.mark.parametrize("order", ORDERS)
def test_cutout_leaves_the_mean_color_after_normalization(order: str) -> None:
    white = torch.full((32, 3, 6, 6), 255, dtype=torch.uint8)
    standard = Standard(cutout=4, mean=(0.5, 0.25, 0.75), std=(0.25, 0.25, 0.25), order=order)
    augmented = augment(white, NOTHING, standard, noise())
    for channel, lit in enumerate((2.0, 3.0, 1.0)):
        assert augmented[:, channel].unique().tolist() == [0.0, lit]
    covered = (augmented == 0).all(1).flatten(1).sum(1)
    assert covered.min() >= 4  # a square of 4 centred on a corner pixel keeps 2 rows and 2 columns
    assert covered.max() == 16


def test_cutout_is_no_part_of_what_the_policy_sees() -> None:
    black = torch.zeros(32, 1, 6, 6, dtype=torch.uint8)
    augmented = augment(black, INVERT, Standard(cutout=2, mean=(0.5,), std=(0.5,)), noise())
    assert augmented.unique().tolist() == [0.0, 1.0]  # cut before the policy, the hole would be inverted as well


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
@pytest.mark.parametrize("policy", [NOTHING, INVERT, resolve_policy("autoaugment")], ids=["nothing", "invert", "aa"])
def test_the_callers_images_are_left_alone(policy: Policy, kind: torch.dtype, order: str, images: Tensor) -> None:
    given = images if kind == torch.float32 else (images * 255).round().to(torch.uint8)
    kept = given.clone()
    for standard in (replace(AS_IS, order=order), Standard(crop_padding=2, flip=True, cutout=4, order=order)):
        augmented = augment(given, policy, standard, noise())
        augmented.zero_()
        assert torch.equal(given, kept)


@pytest.mark.parametrize("policy", [NOTHING, resolve_policy("autoaugment")], ids=["nothing", "autoaugment"])
def test_float_images_from_0_to_1_are_taken_as_they_are(policy: Policy, images: Tensor) -> None:
    standard = Standard(crop_padding=2, flip=True, cutout=4)
    levels = (images * 255).round().to(torch.uint8)
    from_float = augment(levels / 255, policy, standard, noise())
    assert torch.equal(from_float, augment(levels, policy, standard, noise()))
    assert torch.equal(augment(images, NOTHING, AS_IS, noise()), images)


@pytest.mark.parametrize("order", ORDERS)
def test_the_same_generator_state_gives_the_same_images_and_another_others(order: str, images: Tensor) -> None:
    policy = resolve_policy("autoaugment")
    standard = Standard(crop_padding=2, flip=True, cutout=4, order=order)
    generator = noise(1)
    state = generator.get_state()
    first = augment(images, policy, standard, generator)
    next_in_line = augment(images, policy, standard, generator)
    generator.set_state(state)
    assert torch.equal(augment(images, policy, standard, generator), first)
    assert not torch.equal(next_in_line, first)


def test_the_global_generator_is_left_alone(images: Tensor) -> None:
    before = torch.get_rng_state()
    augment(images, resolve_policy("autoaugment"), Standard(crop_padding=2, flip=True, cutout=4), noise())
    assert torch.equal(torch.get_rng_state(), before)
