"""The planted answer is right: one op alone closes the gap, and one op alone makes labels wrong."""

from functools import cache

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from jointsearch.data.planted import (
    CLASSES,
    COUNTS,
    GROUND,
    LEVELS,
    PLANTED_ANSWER,
    PLANTED_MAGNITUDE,
    SHADES,
    SHADES_ANSWER,
    SHIFT_PIXELS,
    SIDE,
    draw_planted,
    planted,
    planted_shades,
)
from jointsearch.data.sets import DataSplits, ImageSet
from jointsearch.data.standard import Standard, normalize
from jointsearch.networks.create import create_network
from search_spaces.augment.apply import apply_policy
from search_spaces.augment.op import OpNoise
from search_spaces.augment.table import DADA_OPS, OPS
from search_spaces.policy import OpChoice, Policy, SubPolicy

STANDARD = Standard()
RATES = {"tiny_mlp": 0.01, "tiny_cnn": 0.2}
(PLANTED,) = PLANTED_ANSWER["recover"]
(POISON,) = PLANTED_ANSWER["avoid"]


@cache
def splits() -> DataSplits:
    return planted(0)


def mean_images(image_set: ImageSet) -> Tensor:
    """The mean image of every class, (10, 12, 12)."""
    return torch.stack([image_set.images[image_set.labels == label, 0].float().mean(0) for label in range(10)]) / 255


def under_op(name: str, images: Tensor, magnitude: float) -> Tensor:
    count = len(images)
    noise = OpNoise(torch.ones(count), torch.full((count, 2), 0.5), torch.arange(count))
    return OPS[name](images / 255, torch.full((count,), magnitude), noise)


@cache
def shades() -> DataSplits:
    return planted_shades(0)


@cache
def trained(op: str | None, magnitude: float = 0.5, steps: int = 160) -> tuple[float, float]:
    """The accuracy on moved images and the loss on centred ones, after training with this op on half of the images."""
    centred = draw_planted(1000, 0, torch.Generator().manual_seed(1))
    return scores(op, magnitude, steps, "tiny_mlp", splits(), centred)


def scores(
    op: str | None, magnitude: float, steps: int, name: str, data: DataSplits, plain: ImageSet
) -> tuple[float, float]:
    """The accuracy on test images and the loss on plain ones."""
    torch.manual_seed(0)
    noise = torch.Generator().manual_seed(0)
    network = create_network(name, len(CLASSES), in_chans=1, image_size=SIDE)
    optimizer = torch.optim.SGD(network.parameters(), lr=RATES[name], momentum=0.9)
    ops = (OpChoice(op, 0.5, magnitude if OPS[op].has_magnitude else None),) if op else ()
    train = data.train
    for _ in range(steps):
        (batch,) = train.batches(torch.randint(len(train), (128,), generator=noise), 128)
        images = apply_policy(Policy((SubPolicy(ops),)), batch.images / 255, noise)
        optimizer.zero_grad()
        cross_entropy(network(normalize(images, STANDARD)), batch.labels).backward()
        optimizer.step()
    network.eval()
    with torch.no_grad():
        right = network(normalize(data.test.images, STANDARD)).argmax(1) == data.test.labels
        loss = cross_entropy(network(normalize(plain.images, STANDARD)), plain.labels)
    return float(right.float().mean()), float(loss)


def test_a_seed_gives_the_same_images_whatever_the_global_seed_and_another_seed_others() -> None:
    torch.manual_seed(1)
    again = planted(0)
    for name, count in COUNTS.items():
        part, same, other = (getattr(found, name) for found in (splits(), again, planted(1)))
        assert torch.equal(part.images, same.images)
        assert not torch.equal(part.images, other.images)
        assert part.images.shape == (count, 1, SIDE, SIDE)
        assert part.images.dtype == torch.uint8
        assert part.labels.bincount().tolist() == [count // len(CLASSES)] * len(CLASSES)
    assert splits().train.classes == CLASSES


def test_training_glyphs_stay_in_the_middle_and_the_others_move_whole_to_both_sides() -> None:
    drawn = (mean_images(splits().train) - GROUND).abs().amax(0) > 0.1  # where some class has its glyph
    rows, columns = drawn.any(1).nonzero().flatten(), drawn.any(0).nonzero().flatten()
    assert rows.tolist() == columns.tolist() == list(range(3, 9))
    centred = mean_images(draw_planted(2000, 0, torch.Generator().manual_seed(2)))
    both_sides = (centred.roll(SHIFT_PIXELS, 2) + centred.roll(-SHIFT_PIXELS, 2)) / 2
    for held_out in (splits().validation, splits().test):
        torch.testing.assert_close(mean_images(held_out), both_sides, atol=0.16, rtol=0)
        torch.testing.assert_close(mean_images(held_out).mean(0), both_sides.mean(0), atol=0.05, rtol=0)


def test_the_planted_op_at_the_planted_magnitude_moves_by_the_planted_shift() -> None:
    train = splits().train
    moved = under_op(PLANTED, train.images, PLANTED_MAGNITUDE)
    inside = slice(SHIFT_PIXELS, None)  # what comes in from outside is black
    torch.testing.assert_close(moved[..., inside], train.images[..., :-SHIFT_PIXELS] / 255, atol=1e-4, rtol=0)


def test_the_poison_makes_every_bright_glyph_the_dark_one_and_leaves_the_dark_one() -> None:
    poisoned = under_op(POISON, splits().train.images, 0.5)
    means = mean_images(ImageSet(poisoned * 255, splits().train.labels, CLASSES))
    bright, dark = means[0 :: len(LEVELS)], means[1 :: len(LEVELS)]
    torch.testing.assert_close(bright, dark, atol=0.05, rtol=0)
    original = mean_images(splits().train)
    assert (original[0 :: len(LEVELS)] - original[1 :: len(LEVELS)]).abs().amax((1, 2)).min() > 0.7
    torch.testing.assert_close(dark, original[1 :: len(LEVELS)], atol=0.05, rtol=0)


@pytest.mark.parametrize("op", DADA_OPS)
def test_only_the_planted_op_closes_the_gap_and_only_the_poison_breaks_what_was_learned(op: str) -> None:
    accuracy, centred_loss = trained(op)
    if op == PLANTED:
        assert accuracy > 0.9
    else:
        assert accuracy < 0.3
    assert (centred_loss > 0.15) == (op == POISON)


def test_without_a_policy_centred_glyphs_are_learned_and_moved_ones_are_not() -> None:
    accuracy, centred_loss = trained(None)
    assert accuracy < 0.3
    assert centred_loss < 0.05


@pytest.mark.parametrize("share", [0.7, 1.3])
def test_the_planted_magnitude_is_better_than_those_30_percent_off(share: float) -> None:
    assert trained(PLANTED, PLANTED_MAGNITUDE)[0] > trained(PLANTED, share * PLANTED_MAGNITUDE)[0] + 0.1


@pytest.mark.parametrize("magnitude", [0.4, 0.6])
def test_the_poison_is_one_at_the_neighboring_magnitudes_too(magnitude: float) -> None:
    assert trained(POISON, magnitude)[1] > 0.15


def test_shaded_images_are_darker_or_brighter_in_equal_numbers_and_training_images_are_not() -> None:
    ground = [part.images[..., 0, 1].float().flatten() / 255 for part in (shades().train, shades().validation)]
    assert float(ground[0].mean()) == pytest.approx(GROUND, abs=0.02)
    dark = ground[1] < GROUND
    assert float(dark.float().mean()) == pytest.approx(0.5, abs=0.05)
    assert float(ground[1][dark].mean()) == pytest.approx(SHADES[0] * GROUND, abs=0.02)
    assert float(ground[1][~dark].mean()) == pytest.approx(SHADES[1] * GROUND, abs=0.03)


@pytest.mark.parametrize("op", [None, "Brightness", "AutoContrast", "Equalize", "Contrast", "Solarize", "Invert"])
def test_for_convolutions_only_brightness_closes_the_gap_of_shades_and_inversion_widens_it(op: str | None) -> None:
    accuracy, _ = scores(op, 0.8, 60, "tiny_cnn", shades(), shades().train)
    if op in SHADES_ANSWER["recover"]:
        assert accuracy > 0.95
    else:
        assert accuracy < (0.35 if op in SHADES_ANSWER["avoid"] else 0.6)
