"""T-39: on the drawn shapes every op keeps the label, except those that the set's own answer says to avoid."""

import pytest
import torch
from torch import Tensor

from jointsearch.data.sets import ImageSet
from jointsearch.data.shapes import SHAPES_ANSWER, draw_shapes
from search_spaces.augment.op import AugOp, draw_op_noise
from search_spaces.augment.table import OPS

KEEPING = [op for op in OPS.values() if op.name not in SHAPES_ANSWER["avoid"]]


def features(images: Tensor) -> Tensor:
    gray = images.float().mean(1).flatten(1)
    centered = gray - gray.mean(1, keepdim=True)
    return centered / centered.norm(dim=1, keepdim=True).clamp(min=1e-6)


@pytest.fixture(scope="module")
def bank() -> ImageSet:
    # Labels come from nearest neighbours, not from a network: the most correlated of 5,000 turned and moved shapes.
    return draw_shapes(5000, 1.0, torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def upright() -> ImageSet:
    return draw_shapes(200, 0.0, torch.Generator().manual_seed(1))


def share_kept(op: AugOp | None, magnitude: float, bank: ImageSet, upright: ImageSet) -> float:
    images = upright.images / 255
    if op is not None:
        noise = draw_op_noise(len(images), torch.Generator().manual_seed(2))
        images = op(images, torch.full((len(images),), magnitude), noise)
    nearest = (features(images) @ features(bank.images).T).argmax(1)
    return (bank.labels[nearest] == upright.labels).float().mean().item()


def test_the_nearest_neighbour_labels_untouched_shapes_correctly(bank: ImageSet, upright: ImageSet) -> None:
    assert share_kept(None, 0.0, bank, upright) >= 0.99


@pytest.mark.parametrize("op", KEEPING, ids=[op.name for op in KEEPING])
def test_op_keeps_the_label(op: AugOp, bank: ImageSet, upright: ImageSet) -> None:
    assert share_kept(op, 0.3, bank, upright) >= 0.97


@pytest.mark.parametrize("name", SHAPES_ANSWER["avoid"])
def test_op_to_avoid_destroys_the_label(name: str, bank: ImageSet, upright: ImageSet) -> None:
    assert share_kept(OPS[name], 1.0, bank, upright) <= 0.1
