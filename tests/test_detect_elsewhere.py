"""On a device of its own a detector's training goes as on the CPU: tensors never mix."""

import pytest
import torch

from jointsearch.augmenters.objects import WithPolicyOnObjects
from jointsearch.data.object_sets import ObjectSet
from jointsearch.data.object_shapes import DrawnSource, draw_pictures
from jointsearch.data.sets import Batch
from jointsearch.data.shapes import CLASSES
from jointsearch.data.standard import Standard
from jointsearch.protocols import Moment
from search_spaces.controls import named_policy
from tests.elsewhere import ELSEWHERE, elsewhere

SOURCE = DrawnSource(draw_pictures(8, True, torch.Generator().manual_seed(0)))
STANDARD = Standard(flip=True, mean=(0.5,), std=(0.25,))
DRAWN = ObjectSet(SOURCE, torch.arange(8), CLASSES)


def augmented(device: torch.device | str, policy: str) -> Batch:
    batch = next(DRAWN.to(device).batches(torch.arange(8), 8))
    noise = torch.Generator().manual_seed(1)
    augmenter = WithPolicyOnObjects(named_policy(policy), STANDARD)
    return augmenter(batch, torch.nn.Identity(), Moment(0, 0, 1, 1, 0.1), noise)


@pytest.mark.parametrize("policy", ["none", "trivialaugment", "autoaugment"])
def test_objects_are_augmented_on_the_device_of_their_images(policy: str) -> None:
    here = augmented("cpu", policy)
    with elsewhere():
        there = augmented(ELSEWHERE, policy)
        assert there.images.pixels.device == there.labels.boxes.device == ELSEWHERE
        assert there.labels.masks.device == there.labels.labels.device == ELSEWHERE
        back = there.to("cpu")
    torch.testing.assert_close(back.images.pixels, here.images.pixels)
    torch.testing.assert_close(back.labels.boxes, here.labels.boxes)
    assert torch.equal(back.labels.labels, here.labels.labels)
    assert torch.equal(back.labels.masks, here.labels.masks)
