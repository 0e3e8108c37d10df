"""A policy inside kornia's pipelines: our pixels, and boxes, masks and keypoints that go where the pixels go."""

import copy
import io
from itertools import product

import kornia.augmentation as K
import pytest
import torch
from kornia.augmentation import AugmentationSequential
from torch import Tensor

from jointsearch.estimators.draw import draw_noise
from jointsearch.estimators.sample import draw_sample
from jointsearch.export.kornia_policy import KorniaPolicy
from jointsearch.soft.policy import SoftPolicy
from search_spaces.augment.apply import apply_draw, apply_policy
from search_spaces.augment.table import OPS
from search_spaces.controls import named_policy, random_policy
from search_spaces.errors import InputError
from search_spaces.policy import OpChoice, Policy, SubPolicy

EVERYTHING = ["input", "bbox_xyxy", "mask", "keypoints"]
MOVING = [name for name, op in OPS.items() if op.matrix is not None]
HEIGHT, WIDTH = 40, 60
BOX = (20.0, 15.0, 35.0, 24.0)  # kornia's boxes name their first and last pixel
AUTOAUGMENT = named_policy("autoaugment_cifar10")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def always(*ops: str, magnitude: float = 0.5) -> Policy:
    """All of these ops, one after another."""
    choices = (OpChoice(op, 1.0, magnitude if OPS[op].has_magnitude else None) for op in ops)
    return Policy((SubPolicy(tuple(choices)),))


def square(batch: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Black images with a white square, its box, its mask and its corners."""
    images = torch.zeros(batch, 3, HEIGHT, WIDTH)
    x0, y0, x1, y1 = BOX
    images[:, :, int(y0) : int(y1) + 1, int(x0) : int(x1) + 1] = 1
    corners = torch.tensor([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    return images, torch.tensor([[BOX]]).repeat(batch, 1, 1), images[:, :1].clone(), corners.repeat(batch, 1, 1)


def framed(image: Tensor) -> Tensor:
    """First and last column and row of what is bright."""
    rows, columns = ((image.amax(0).amax(dim) > 0.5).nonzero().flatten() for dim in (1, 0))
    return torch.tensor([columns[0], rows[0], columns[-1], rows[-1]]).float()


def clipped(box: Tensor) -> Tensor:
    limits = torch.tensor([WIDTH - 1.0, HEIGHT - 1.0]).repeat(2)
    return box.clamp(min=0).minimum(limits)


# --- pixels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 8])
@pytest.mark.parametrize("policy", [AUTOAUGMENT, random_policy(tuple(OPS), 0), named_policy("none")])
def test_pixels_are_those_of_apply_policy(policy: Policy, count: int, images: Tensor) -> None:
    for _ in range(3):
        pipeline = AugmentationSequential(KorniaPolicy(policy, seeded(1)))
        assert torch.equal(pipeline(images[:count]), apply_policy(policy, images[:count], seeded(1)))


def test_pixels_of_a_soft_policy_are_those_of_its_draw(images: Tensor) -> None:
    soft, noise = SoftPolicy(AUTOAUGMENT), seeded(2)
    sample = draw_sample(soft.logits(), draw_noise(soft.logits(), 8, "hierarchical", noise), "hierarchical")
    expected = apply_draw(images, soft.draw(sample.sub_policy, sample.acts, noise))
    assert torch.equal(AugmentationSequential(KorniaPolicy(soft, seeded(2)))(images), expected)
    assert not torch.equal(expected, images)


def test_every_image_has_its_own_draw(images: Tensor) -> None:
    changed = KorniaPolicy(random_policy(tuple(OPS), 0))(images[:1].expand(64, -1, -1, -1))
    assert len({tuple(image.flatten().tolist()) for image in changed}) > 25


# --- boxes, masks and keypoints ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 12])
@pytest.mark.parametrize("magnitude", [0.2, 0.6, 1.0])
@pytest.mark.parametrize("op", MOVING)
def test_box_mask_and_corners_follow_a_bright_square(op: str, magnitude: float, count: int) -> None:
    module = KorniaPolicy(always(op, magnitude=magnitude))
    changed, boxes, masks, corners = AugmentationSequential(module, data_keys=EVERYTHING)(*square(count))
    assert count == 1 or len(module._params["sign"].unique()) == 2
    for image, box, mask, points in zip(changed, boxes, masks, corners, strict=True):
        # Corners of a turned square are thinner than half a pixel.
        assert (clipped(box[0]) - framed(image)).abs().max() <= 1.6
        assert ((image[0] > 0.5) != (mask[0] > 0.5)).sum() <= 4
        torch.testing.assert_close(torch.cat([points.amin(0), points.amax(0)]), box[0])
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(boxes, square(count)[1])


PAIRS = [pair for pair in product(MOVING, MOVING) if pair[0] != pair[1]][::4]


@pytest.mark.parametrize("ops", PAIRS, ids="-".join)
def test_a_keypoint_stays_at_the_centre_of_its_blob_over_two_stages(ops: tuple[str, str]) -> None:
    x, y = 33.0, 17.0
    columns, rows = torch.arange(WIDTH), torch.arange(HEIGHT)[:, None]
    blob = torch.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 1.5**2))
    pipeline = AugmentationSequential(KorniaPolicy(always(*ops, magnitude=0.4)), data_keys=["input", "keypoints"])
    changed, points = pipeline(blob.expand(8, 1, -1, -1), torch.tensor([[[x, y]]]).repeat(8, 1, 1))
    weight = changed[:, 0] / changed[:, 0].sum((1, 2), keepdim=True)
    centre = torch.stack([(weight * columns).sum((1, 2)), (weight * rows).sum((1, 2))], -1)
    torch.testing.assert_close(centre, points[:, 0], rtol=0, atol=0.05)


def test_a_mask_that_left_the_image_does_not_come_back() -> None:
    module = KorniaPolicy(always("TranslateX", "TranslateX", magnitude=1.0))
    changed, masks = AugmentationSequential(module, data_keys=["input", "mask"])(square(16)[0], square(16)[2])
    there_and_back = module._params["sign"].sum(1) == 0
    assert 2 < there_and_back.sum() < 14
    assert torch.equal(changed[:, :1] > 0.5, masks > 0.5)
    assert (masks[there_and_back].sum((1, 2, 3)) < 160).all()


def test_flip_and_rotation_move_points_as_kornias_own() -> None:
    flip, turn = K.RandomHorizontalFlip(p=1.0), K.RandomRotation((30, 30), p=1.0)
    for op, theirs in (("HorizontalFlip", flip), ("Rotate", turn)):
        module = KorniaPolicy(always(op, magnitude=1.0), seeded(3))
        images = square(4)[0]
        module(images)
        theirs(images)
        same = module._params["sign"][:, 0] > 0
        torch.testing.assert_close(module.transform_matrix[same], theirs.transform_matrix[same], rtol=0, atol=1e-4)


@pytest.mark.parametrize("op", [name for name, op in OPS.items() if op.matrix is None and op.uses != "partner"])
def test_an_op_that_moves_nothing_leaves_labels_alone(op: str) -> None:
    given = square(4)
    _, *labels = AugmentationSequential(KorniaPolicy(always(op, magnitude=1.0)), data_keys=EVERYTHING)(*given)
    for label, before in zip(labels, given[1:], strict=True):
        assert torch.equal(label, before)


def test_other_keys_and_integer_masks_move_as_well() -> None:
    images, boxes, masks, corners = square(3)
    keys = ["input", "bbox", "bbox_xywh", "mask", "keypoints", "class"]
    wide = boxes + torch.tensor([0.0, 0.0, 1.0, 1.0])
    sizes = torch.cat([wide[..., :2], wide[..., 2:] - wide[..., :2]], -1)
    pipeline = AugmentationSequential(KorniaPolicy(always("TranslateY")), K.RandomVerticalFlip(p=1.0), data_keys=keys)
    classes = torch.tensor([4, 5, 6])
    changed, vertices, moved, mask, _, same = pipeline(
        images, corners[:, None], sizes, masks.long() * 7, corners, classes
    )
    assert mask.dtype == torch.int64
    assert torch.equal(mask == 7, changed[:, :1] > 0.5)
    assert torch.equal(same, classes)
    for image, found, (x, y, width, height) in zip(changed, vertices, moved[:, 0].tolist(), strict=True):
        expected = framed(image)
        torch.testing.assert_close(torch.tensor([x, y, x + width - 1, y + height - 1]), expected)
        torch.testing.assert_close(torch.cat([found[0].amin(0), found[0].amax(0)]), expected)


def test_a_list_of_masks_moves_as_the_masks_of_a_batch() -> None:
    images, _, masks, _ = square(4)
    pipeline = AugmentationSequential(KorniaPolicy(always("Rotate", "ShearX")), data_keys=["input", "mask"])
    together = pipeline(images, masks)[1]
    apart = pipeline(images, list(masks), params=pipeline._params)[1]
    assert torch.equal(torch.cat(apart), together)


@pytest.mark.parametrize("key", EVERYTHING[1:])
def test_another_image_is_not_mixed_in_where_its_labels_would_be_missing(key: str) -> None:
    given = dict(zip(EVERYTHING, square(4), strict=True))
    for policy in (always("SamplePairing"), SoftPolicy(always("SamplePairing"))):
        pipeline = AugmentationSequential(KorniaPolicy(policy), data_keys=["input", key])
        with pytest.raises(InputError, match=r"SamplePairing .* take it out of the policy"):
            pipeline(given["input"], given[key])
    rows = (SubPolicy((OpChoice("SamplePairing", 0.0, 0.5),)), SubPolicy((OpChoice("SamplePairing", 1.0, 0.5),), 0.0))
    AugmentationSequential(KorniaPolicy(Policy(rows)), data_keys=["input", key])(given["input"], given[key])


# --- gradients --------------------------------------------------------------------------------------------------------


def test_the_pixels_gradient_reaches_magnitudes_and_nothing_else(images: Tensor) -> None:
    soft = SoftPolicy(always("Rotate", "Contrast", "Posterize", magnitude=0.4))
    module = KorniaPolicy(soft, seeded(5))
    weights = torch.randn(images.shape, generator=seeded(6))
    changed, boxes = AugmentationSequential(module, data_keys=["input", "bbox_xyxy"])(images, square(8)[1])
    (changed * weights).sum().backward()
    assert soft.magnitude_logits.grad is not None
    assert (soft.magnitude_logits.grad != 0).all()
    assert soft.preference.grad is None
    assert soft.probability_logits.grad is None
    assert not boxes.requires_grad


def test_the_gradient_of_a_magnitude_is_that_of_the_same_draw(images: Tensor) -> None:
    # Along the logit of Contrast, whose pixels are smooth in it, behind a turn.
    soft = SoftPolicy(always("Rotate", "Contrast", magnitude=0.4))
    module = KorniaPolicy(soft, seeded(5))
    images, weights = images.double(), torch.randn(images.shape, generator=seeded(6), dtype=torch.float64)
    (module(images) * weights).sum().backward()
    values = []
    for step in (1e-2, -1e-2):
        moved = SoftPolicy(soft.start)
        with torch.no_grad():
            moved.magnitude_logits[0, 1] += step
            values.append((KorniaPolicy(moved)(images, params=module._params) * weights).sum().item())
    assert soft.magnitude_logits.grad is not None
    assert soft.magnitude_logits.grad[0, 1].item() == pytest.approx((values[0] - values[1]) / 2e-2, rel=0.02)


# --- randomness and state ---------------------------------------------------------------------------------------------


def test_draws_leave_the_global_generator_alone_and_repeat(images: Tensor) -> None:
    before = torch.get_rng_state()
    first, second = (AugmentationSequential(KorniaPolicy(AUTOAUGMENT)) for _ in range(2))
    results = [first(images), second(images)]
    assert torch.equal(*results)
    assert not torch.equal(first(images), results[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_kept_parameters_repeat_a_draw(images: Tensor) -> None:
    pipeline = AugmentationSequential(KorniaPolicy(AUTOAUGMENT), data_keys=["input", "bbox_xyxy"])
    boxes = torch.tensor([[[4.0, 4.0, 9.0, 12.0]]]).repeat(8, 1, 1)
    first = pipeline(images, boxes)
    again = pipeline(images, boxes, params=pipeline._params)
    assert all(map(torch.equal, first, again))


def test_a_state_dict_goes_on_where_it_was_made(images: Tensor) -> None:
    soft = SoftPolicy(AUTOAUGMENT)
    pipeline = AugmentationSequential(KorniaPolicy(soft))
    pipeline(images)
    saved = io.BytesIO()
    torch.save(pipeline.state_dict(), saved)
    expected = pipeline(images)
    other = AugmentationSequential(KorniaPolicy(SoftPolicy(AUTOAUGMENT)))
    saved.seek(0)
    other.load_state_dict(torch.load(saved, weights_only=True))
    assert torch.equal(other(images), expected)
    assert torch.equal(copy.deepcopy(other)(images), other(images))


def test_the_soft_policy_stays_where_draws_are_made(images: Tensor) -> None:
    soft = SoftPolicy(AUTOAUGMENT)
    pipeline = AugmentationSequential(KorniaPolicy(soft)).to(torch.float64)
    assert soft.magnitude_logits.dtype == torch.float32
    assert pipeline(images.double()).dtype == torch.float64
    assert set(map(id, pipeline.parameters())) == set(map(id, soft.parameters()))


# --- the way back, and mistakes ---------------------------------------------------------------------------------------


def test_boxes_and_keypoints_come_back_and_pixels_are_refused() -> None:
    images, boxes, masks, corners = square(6)
    pipeline = AugmentationSequential(KorniaPolicy(always("TranslateX", "TranslateY")), data_keys=EVERYTHING)
    changed, moved, mask, points = pipeline(images, boxes, masks, corners)
    back, again = pipeline.inverse(moved, points, data_keys=["bbox_xyxy", "keypoints"])
    torch.testing.assert_close(back, boxes, rtol=0, atol=1e-4)
    torch.testing.assert_close(again, corners, rtol=0, atol=1e-4)
    for key, value in (("input", changed), ("mask", mask)):
        with pytest.raises(InputError, match=r"give inverse\(\) boxes or keypoints only"):
            pipeline.inverse(value, data_keys=[key])


def test_mistakes_get_one_line_with_a_remedy(images: Tensor) -> None:
    with pytest.raises(InputError, match="policy came as dict; give a Policy"):
        KorniaPolicy({})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="leave it out"):
        AugmentationSequential(KorniaPolicy(AUTOAUGMENT), same_on_batch=True)(images)
    with pytest.raises(InputError, match="divide by 255"):
        KorniaPolicy(AUTOAUGMENT)(images * 255)
