"""The amounts of every op at magnitude 0 and 1, as literals; thresholds, chunks and number types to the last bit."""

from dataclasses import replace

import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from search_spaces.augment import apply
from search_spaces.augment.apply import apply_draw, apply_policy, draw_policy
from search_spaces.augment.op import OpNoise
from search_spaces.augment.table import OPS
from search_spaces.policy import OpChoice, Policy, SubPolicy

# Amount at magnitude 0, amount at magnitude 1, and whether the sign is random.
RANGES = {
    "ShearX": (0.0, 0.3, True),
    "ShearY": (0.0, 0.3, True),
    "TranslateX": (0.0, 0.45, True),
    "TranslateY": (0.0, 0.45, True),
    "Rotate": (0.0, 30.0, True),
    "Solarize": (256 / 255, 0.0, False),
    "Posterize": (8.0, 4.0, False),
    "Contrast": (1.0, 1.9, True),
    "Color": (1.0, 1.9, True),
    "Brightness": (1.0, 1.9, True),
    "Sharpness": (1.0, 1.9, True),
    "Cutout": (0.0, 0.2, False),
    "SamplePairing": (0.0, 0.4, False),
}
WITHOUT_AMOUNT = {"AutoContrast", "Invert", "Equalize", "HorizontalFlip"}
EVERY_OP = pytest.mark.parametrize("name", sorted(OPS))


def choice(name: str, magnitude: float = 0.7) -> OpChoice:
    return OpChoice(name, 1.0, magnitude if OPS[name].has_magnitude else None)


def only(name: str, magnitude: float = 0.7) -> Policy:
    return Policy((SubPolicy((choice(name, magnitude),)),))


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_op_has_its_range_here_or_no_amount() -> None:
    assert set(RANGES) | WITHOUT_AMOUNT == set(OPS)
    assert {name for name, op in OPS.items() if not op.has_magnitude} == WITHOUT_AMOUNT


@pytest.mark.parametrize("name", RANGES)
def test_amounts_go_from_identity_to_the_stated_strongest(name: str) -> None:
    identity, strongest, signed = RANGES[name]
    magnitude = torch.tensor([0.0, 0.5, 1.0, 0.0, 0.5, 1.0])
    sign = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, -1.0])
    middle = (identity + strongest) / 2
    mirrored = [identity, 2 * identity - middle, 2 * identity - strongest]
    upward = [identity, middle, strongest]
    expected = torch.tensor(upward + (mirrored if signed else upward))
    torch.testing.assert_close(OPS[name].amount(magnitude, sign), expected)
    # The same numbers again where whole batches are augmented.
    draw = draw_policy(only(name), 6, noise())
    draw = replace(draw, magnitude=magnitude[:, None], sign=sign[:, None])
    torch.testing.assert_close(apply._amounts(draw), expected[:, None])


@pytest.mark.parametrize("name", sorted(WITHOUT_AMOUNT))
def test_ops_without_an_amount_do_the_same_at_every_magnitude(name: str, images: Tensor) -> None:
    count = len(images)
    given = OpNoise(torch.ones(count), torch.full((count, 2), 0.5), torch.arange(count))
    weak, strong = (OPS[name](images, torch.full((count,), magnitude), given) for magnitude in (0.0, 1.0))
    assert torch.equal(weak, strong)
    assert not torch.equal(weak, images)


def test_the_random_sign_of_a_draw_goes_both_ways() -> None:
    sign = draw_policy(only("Rotate"), 400, noise()).sign
    assert sign.unique().tolist() == [-1.0, 1.0]
    assert 150 < int((sign > 0).sum()) < 250  # five deviations of a fair coin


def solarized_ramps() -> tuple[Tensor, Tensor, Tensor]:
    """A ramp of all levels 257 times, the magnitude of each of PIL's thresholds, and what PIL makes of them."""
    ramp = torch.arange(256, dtype=torch.uint8).reshape(16, 16)
    picture = Image.fromarray(ramp.numpy())
    expected = torch.stack([pil_to_tensor(ImageOps.solarize(picture, threshold)) for threshold in range(257)])
    magnitude = torch.tensor([1 - threshold / 256 for threshold in range(257)])
    return ramp.expand(257, 1, 16, 16), magnitude, expected


def wrong_thresholds(levels: Tensor, expected: Tensor) -> list[int]:
    return (levels != expected).flatten(1).any(1).nonzero().flatten().tolist()


def test_solarize_is_that_of_pil_at_every_threshold() -> None:
    ramps, magnitude, expected = solarized_ramps()
    given = OpNoise(torch.ones(257), torch.zeros(257, 2), torch.arange(257))
    levels = OPS["Solarize"](ramps / 255, magnitude, given).mul(255).round().to(torch.uint8)
    assert wrong_thresholds(levels, expected) == []


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_a_batch_is_solarized_like_pil_at_every_threshold(kind: torch.dtype) -> None:
    ramps, magnitude, expected = solarized_ramps()
    draw = replace(draw_policy(only("Solarize"), 257, noise()), magnitude=magnitude[:, None])
    changed = apply_draw(ramps if kind == torch.uint8 else ramps / 255, draw)
    levels = changed if kind == torch.uint8 else changed.mul(255).round().to(torch.uint8)
    assert wrong_thresholds(levels, expected) == []


EVERYTHING = Policy(
    tuple(SubPolicy((choice(name), choice("SamplePairing", 1.0), choice("Rotate", 0.4))) for name in sorted(OPS))
)


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
@pytest.mark.parametrize("size", [1, 3, 16])
def test_chunks_give_the_very_pixels_of_one_piece(
    size: int, kind: torch.dtype, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = torch.cat([images[..., :16, :16], images[..., 16:, 16:], images[..., :16, 16:], images[..., 16:, :16]])
    batch = batch if kind == torch.float32 else (batch * 255).round().to(torch.uint8)
    draw = draw_policy(EVERYTHING, len(batch), noise())
    chunk = torch.arange(len(batch)) // size
    assert (chunk[draw.partner[:, 1]] != chunk).any()
    one_piece = apply_draw(batch, draw)
    pieces = []
    stages = apply._apply_stages
    monkeypatch.setattr(apply, "CHUNK_ELEMENTS", size * batch[0].numel())
    monkeypatch.setattr(apply, "_apply_stages", lambda part, *rest: pieces.append(len(part)) or stages(part, *rest))
    chunked = apply_draw(batch, draw)
    assert max(pieces) == size
    assert sum(pieces) == len(batch)
    assert torch.equal(chunked, one_piece)


# Coarser numbers may fall on the other side of a level, so that a few pixels of the quantized ops differ.
@pytest.mark.parametrize(
    ("kind", "tolerance"), [(torch.float64, 1e-5), (torch.float16, 4e-3), (torch.bfloat16, 2e-2)], ids=str
)
@EVERY_OP
def test_other_floating_point_images_keep_their_type_and_come_out_alike(
    name: str, kind: torch.dtype, tolerance: float, images: Tensor
) -> None:
    given = images.to(kind)
    changed = apply_policy(only(name), given, noise())
    assert changed.dtype == kind
    assert changed.shape == images.shape
    assert torch.equal(given, images.to(kind))
    expected = apply_policy(only(name), given.float(), noise())
    assert (changed.float() - expected).abs().mean() <= tolerance


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.float16], ids=str)
def test_solarize_inverts_the_level_of_its_threshold_and_none_below_it(kind: torch.dtype) -> None:
    levels = (torch.arange(256) / 255).to(kind)
    magnitudes = 1 - torch.arange(256) / 256  # of the thresholds 0, 1 / 255, ...
    ones = torch.ones(256)
    noise = OpNoise(ones, ones.expand(2, -1).T, torch.arange(256))
    changed = OPS["Solarize"](levels.expand(256, 1, 1, 256), magnitudes.to(kind), noise).squeeze()
    assert torch.equal(changed != levels, torch.ones(256, 256).triu().bool())


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_several_ops_in_a_row_work_in_other_floating_point_types(kind: torch.dtype, images: Tensor) -> None:
    changed = apply_policy(EVERYTHING, images.to(kind), noise())
    assert changed.dtype == kind
    assert changed.isfinite().all()


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32, torch.float16], ids=str)
def test_an_empty_batch_stays_an_empty_batch(kind: torch.dtype) -> None:
    changed = apply_policy(EVERYTHING, torch.zeros(0, 3, 8, 8, dtype=kind), noise())
    assert changed.shape == (0, 3, 8, 8)
    assert changed.dtype == kind


@pytest.mark.parametrize("learns", [False, True])
@pytest.mark.parametrize("name", [op.name for op in OPS.values() if op.has_magnitude])
def test_a_policy_at_magnitude_zero_gives_the_very_same_pixels(name: str, learns: bool) -> None:
    odd = torch.rand(4, 3, 21, 29, generator=torch.Generator().manual_seed(0))
    policy = Policy((SubPolicy((OpChoice(name, 1.0, 0.0),)),))
    draw = draw_policy(policy, 4, torch.Generator().manual_seed(1))
    draw = replace(draw, magnitude=draw.magnitude.requires_grad_(learns))
    assert torch.equal(apply_draw(odd, draw), odd)
