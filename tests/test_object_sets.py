"""Images with objects as batches: sizes, padding, memory and streams, and the augmentation of all of them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from jointsearch.augmenters.objects import WithPolicyOnObjects
from jointsearch.data.datasets import Shapes
from jointsearch.data.marked import masks_of
from jointsearch.data.object_load import LoadedObjects
from jointsearch.data.object_sets import ObjectSet
from jointsearch.data.object_shapes import SIDE, DrawnSource, draw_pictures
from jointsearch.data.objects import Annotation, Padded, Picture, collate, scaled, size_within
from jointsearch.data.sets import Batch
from jointsearch.data.standard import ORDERS, Standard, normalized
from jointsearch.protocols import Moment
from search_spaces.controls import named_policy
from search_spaces.errors import InputError
from search_spaces.policy import OpChoice, Policy, SubPolicy
from search_spaces.schedule import PolicySchedule

PLAIN = Standard(mean=(0.0,), std=(1.0,))
AT = Moment(0, 0, 1, 1, 0.1)
CLASSES = ("a", "b")


def picture(height: int, width: int, boxes: list[list[float]], crowd: tuple[bool, ...] = ()) -> Picture:
    """A black image whose objects are white."""
    corners = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)
    count = len(corners)
    masks = torch.zeros(count, height, width, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, corners.long().tolist(), strict=True):
        mask[y0:y1, x0:x1] = True
    marked = Annotation(
        "x",
        "x",
        (height, width),
        corners,
        torch.arange(count) % 2,
        torch.tensor([*crowd, *[False] * (count - len(crowd))], dtype=torch.bool),
        masks.sum((1, 2)).double(),
        tuple({} for _ in range(count)),
    )
    return Picture((masks.any(0) * 255).to(torch.uint8).expand(3, -1, -1), marked, masks)


def batch_of(*pictures: Picture) -> Batch:
    return Batch(*collate(pictures, CLASSES), torch.arange(len(pictures)))


def augmented(batch: Batch, policy: Any = None, standard: Standard = PLAIN, seed: int = 0) -> Batch:
    augmenter = WithPolicyOnObjects(policy or named_policy("none"), standard)
    return augmenter(batch, nn.Identity(), AT, torch.Generator().manual_seed(seed))


def test_images_of_different_sizes_stand_at_the_top_left_with_zeros_beside() -> None:
    batch = batch_of(picture(20, 30, [[2, 3, 12, 9]]), picture(40, 24, []))
    assert batch.images.pixels.shape == (2, 3, 40, 30)
    assert [tuple(image.shape) for image in batch.images.each()] == [(3, 20, 30), (3, 40, 24)]
    assert batch.labels.boxes.tolist() == [[[2, 3, 12, 9]], [[0, 0, 0, 0]]]
    assert batch.labels.labels.tolist() == [[0], [-1]]
    changed = normalized(batch.images, Standard(mean=(0.5,), std=(0.5,)))
    assert isinstance(changed, Padded)
    assert (changed.pixels[1, :, :, 24:] == 0).all()
    assert (changed.each()[1] == -1).all()


def test_crowds_are_not_trained_on_and_stay_in_the_annotation() -> None:
    batch = batch_of(picture(20, 30, [[2, 3, 12, 9], [1, 1, 5, 5]], crowd=(True,)))
    assert batch.labels.boxes.tolist() == [[[1, 1, 5, 5]]]
    assert batch.labels.labels.tolist() == [[1]]
    assert len(batch.labels.annotations[0].labels) == 2


@pytest.mark.parametrize(
    ("size", "shorter", "longer", "wanted"),
    [
        ((480, 640), 800, 1333, (800, 1067)),
        ((300, 900), 800, 1333, (444, 1333)),
        ((480, 640), 120, None, (120, 160)),
        ((48, 64), None, None, (48, 64)),
    ],
)
def test_images_are_scaled_as_published(
    size: tuple[int, int], shorter: int | None, longer: int | None, wanted: tuple[int, int]
) -> None:
    assert size_within(size, shorter, longer) == wanted


def test_boxes_and_masks_are_scaled_with_the_pixels() -> None:
    half = scaled(picture(40, 60, [[10, 20, 30, 36]]), (20, 30))
    batch = batch_of(half)
    assert batch.labels.boxes.tolist() == [[[5, 10, 15, 18]]]
    assert batch.labels.masks is not None
    assert torch.equal(batch.labels.masks[0, 0], batch.images.pixels[0, 0] >= 128)


@pytest.fixture(scope="module")
def drawn() -> ObjectSet:
    return ObjectSet(
        DrawnSource(draw_pictures(40, True, torch.Generator().manual_seed(5))), torch.arange(40), CLASSES * 4
    )


def test_a_set_in_memory_and_a_stream_give_the_same_batches(drawn: ObjectSet) -> None:
    order = torch.tensor([7, 3, 38, 0, 11])
    kept = drawn.subset(torch.arange(39)).in_memory({})
    for first, second in zip(drawn.batches(order, 2), kept.batches(order, 2), strict=True):
        assert torch.equal(first.images.pixels, second.images.pixels)
        assert torch.equal(first.labels.boxes, second.labels.boxes)
        assert torch.equal(first.index, second.index)


def test_workers_read_the_same_in_the_same_order(drawn: ObjectSet) -> None:
    by_workers = ObjectSet(drawn.source, drawn.rows, drawn.classes, workers=2)
    before = torch.get_rng_state()
    for first, second in zip(drawn.batches(torch.arange(9), 4), by_workers.batches(torch.arange(9), 4), strict=True):
        assert torch.equal(first.images.pixels, second.images.pixels)
    assert torch.equal(before, torch.get_rng_state())


def test_drawn_shapes_lie_in_their_boxes_and_under_their_masks(drawn: ObjectSet) -> None:
    for row in range(40):
        shown = drawn.source.read(row)
        assert shown.masks is not None
        assert torch.equal(masks_of(shown.annotation), shown.masks)
        ground = shown.pixels[:, ~shown.masks.any(0)].float()
        for mask, box in zip(shown.masks, shown.annotation.boxes, strict=True):
            rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
            assert box.tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            inside = shown.pixels[:, mask].float()
            assert ((inside.mean(1) - ground.mean(1)).abs() > 40).all()
        assert 1 <= len(shown.masks) <= 4


def test_the_drawn_set_is_the_same_every_time_and_its_digest_tells_others() -> None:
    first, again = (LoadedObjects(Shapes(), False).splits(0) for _ in range(2))
    assert first.digest == again.digest
    fewer = LoadedObjects(Shapes(reduced=50), False)
    assert len(fewer.splits(0).train) == 50
    assert len({splits.digest for splits in (first, fewer.splits(0), fewer.splits(1))}) == 3
    assert first.train.image_shape == (3, SIDE, SIDE)
    assert len(first.validation) == 0


def test_more_images_than_there_are_is_one_line() -> None:
    with pytest.raises(InputError, match=r"dataset\.reduced asks for 401 of 400 training images; lower it"):
        LoadedObjects(Shapes(reduced=401), False).splits(0)


def test_a_mirrored_image_has_mirrored_boxes_and_masks() -> None:
    batch = batch_of(*[picture(20, 30, [[2, 3, 12, 9]])] * 20)
    flipped = augmented(batch, standard=Standard(flip=True, mean=(0.0,), std=(1.0,)))
    boxes = {tuple(box) for box in flipped.labels.boxes[:, 0].tolist()}
    assert boxes == {(2, 3, 12, 9), (18, 3, 28, 9)}
    assert torch.equal(flipped.labels.masks[:, 0], flipped.images.pixels[:, 0] > 0.5)
    assert torch.equal(augmented(batch).labels.boxes, batch.labels.boxes)


@pytest.mark.parametrize("order", ORDERS)
def test_each_size_is_augmented_by_itself_with_boxes_where_the_pixels_are(order: str) -> None:
    policy = named_policy("trivialaugment", ("Rotate", "ShearX", "TranslateX", "TranslateY"))
    pictures = [picture(40, 50, [[10, 12, 30, 30]]), picture(60, 44, [[10, 20, 30, 45]])] * 10
    changed = augmented(batch_of(*pictures), policy, Standard(flip=True, mean=(0.0,), std=(1.0,), order=order))
    for row, image in enumerate(changed.images.each()):
        h, w = image.shape[1:]
        pixels, mask = image[0] >= 0.5, changed.labels.masks[row, 0]
        assert torch.equal(mask[:h, :w], pixels)
        assert not mask[h:].any()
        assert not mask[:, w:].any()
        if changed.labels.labels[row, 0] >= 0:
            rows, columns = pixels.any(1).nonzero().flatten(), pixels.any(0).nonzero().flatten()
            assert changed.labels.boxes[row, 0].tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def away(strength: float) -> Policy:
    return Policy((SubPolicy((OpChoice("TranslateX", 1.0, strength),)),))


def test_an_object_that_is_pushed_out_is_not_marked_any_more() -> None:
    batch = batch_of(*[picture(40, 100, [[2, 10, 42, 30], [58, 10, 98, 30]])] * 16)
    changed = augmented(batch, away(1.0)).labels  # by 45 of 100 pixels to either side
    assert {tuple(labels) for labels in changed.labels.tolist()} == {(-1, 1), (0, -1)}
    assert (augmented(batch, away(0.4)).labels.labels >= 0).all()


def test_without_a_motion_boxes_and_masks_are_as_they_are_marked() -> None:
    thin = picture(20, 40, [[3, 4, 30, 5]])
    marks = replace(thin.annotation, boxes=torch.tensor([[3.4, 4.2, 29.7, 4.9]], dtype=torch.float64))
    batch = batch_of(replace(thin, annotation=marks))
    colors = Policy((SubPolicy((OpChoice("Brightness", 1.0, 0.5),)),))
    for policy in (None, colors):
        changed = augmented(batch, policy).labels
        assert torch.equal(changed.boxes, batch.labels.boxes)
        assert torch.equal(changed.labels, batch.labels.labels)
        assert torch.equal(changed.masks, batch.labels.masks)


def test_the_fingerprint_tells_masks_and_crowds(drawn: ObjectSet) -> None:
    def digest(change: Callable[[Annotation], Annotation]) -> bytes:
        pictures = [drawn.source.read(row) for row in range(3)]
        changed = tuple(replace(one, annotation=change(one.annotation)) for one in pictures)
        return b"".join(ObjectSet(DrawnSource(changed), torch.arange(3), CLASSES * 4).fingerprint())

    changes: list[Callable[[Annotation], Annotation]] = [
        lambda one: one,
        lambda one: replace(one, crowd=~one.crowd),
        lambda one: replace(one, areas=one.areas + 1),
        lambda one: replace(one, outlines=one.outlines[::-1] if one.outlines else None),
        lambda one: replace(one, file="other.png"),
    ]
    assert len({digest(change) for change in changes}) == 5


def test_an_image_may_lose_all_its_objects_and_is_a_target_without_boxes() -> None:
    batch = batch_of(picture(40, 100, [[1, 10, 9, 30]]))
    found = [augmented(batch, away(1.0), seed=seed).labels.labels.tolist() for seed in range(8)]
    assert [[-1]] in found
    assert [[0]] in found


def test_a_schedule_gives_every_epoch_its_policy() -> None:
    schedule = PolicySchedule(((0, named_policy("none")), (3, away(1.0))))
    augmenter = WithPolicyOnObjects(schedule, PLAIN)
    batch = batch_of(picture(40, 100, [[30, 10, 60, 30]]))
    before, after = (
        augmenter(batch, nn.Identity(), Moment(epoch, 0, 1, 4, 0.1), torch.Generator().manual_seed(0))
        for epoch in (2, 3)
    )
    assert torch.equal(before.labels.boxes, batch.labels.boxes)
    assert not torch.equal(after.labels.boxes, batch.labels.boxes)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "crop": (
        lambda: WithPolicyOnObjects(named_policy("none"), Standard(crop_padding=4)),
        "crop_padding is 4.*set it to 0",
    ),
    "cutout": (lambda: WithPolicyOnObjects(named_policy("none"), Standard(cutout=8)), "cutout is 8.*set it to 0"),
    "mixing": (
        lambda: WithPolicyOnObjects(Policy((SubPolicy((OpChoice("SamplePairing", 1.0, 0.5),)),)), PLAIN),
        "uses SamplePairing.*give a policy without it",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_break_marks_is_refused_in_one_line(case: str) -> None:
    make, told = REFUSED[case]
    with pytest.raises(InputError, match=told):
        make()
