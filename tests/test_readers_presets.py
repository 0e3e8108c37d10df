"""The AutoAugment policies of torchvision, timm and kornia do the same here as in those libraries."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from kornia.augmentation.auto.autoaugment import autoaugment as kornia_presets
from kornia.augmentation.auto.autoaugment import ops as kornia_ops
from PIL import Image
from timm.data.auto_augment import LEVEL_TO_ARG, NAME_TO_OP, AugmentOp, auto_augment_policy, auto_augment_transform
from torch import Tensor
from torch.nn.functional import max_pool2d
from torchvision.transforms import AutoAugment, AutoAugmentPolicy, InterpolationMode, v2
from torchvision.transforms.autoaugment import _apply_op

from search_spaces.augment.op import OpNoise
from search_spaces.augment.table import OPS
from search_spaces.controls import named_policy
from search_spaces.errors import InputError
from search_spaces.policy import OpChoice
from search_spaces.readers.conversion import CLIPPED, NEAREST_PIXEL, nearest_choice
from search_spaces.readers.presets import (
    BICUBIC,
    FILLED,
    KORNIA,
    TIMM,
    TORCHVISION,
    VARIES,
    WHOLE_PIXELS,
    policy_from_kornia,
    policy_from_timm,
    policy_from_torchvision,
)

LEVEL = 1 / 255
MOVING = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
NAMES = {"cifar10": AutoAugmentPolicy.CIFAR10, "svhn": AutoAugmentPolicy.SVHN, "imagenet": AutoAugmentPolicy.IMAGENET}


def applied(choice: OpChoice, sign: float, images: Tensor) -> Tensor:
    count = len(images)
    noise = OpNoise(torch.full((count,), sign), torch.full((count, 2), 0.5), torch.arange(count))
    return OPS[choice.op](images, torch.full((count,), choice.magnitude or 0.0), noise)


def farthest(theirs: Callable[[Tensor], Tensor], choice: OpChoice, images: Tensor) -> float:
    """From what they do in one direction to what we do in the nearer of our two: the mean, for moving ops inside."""
    found = []
    for sign in (1.0, -1.0):
        difference = (applied(choice, sign, images) - theirs(images)).abs()
        if choice.op in MOVING:
            white = torch.ones_like(images)
            inside = (applied(choice, sign, white) > 0.999) & (theirs(white) > 0.999)
            inside = max_pool2d(1 - inside.float(), 5, 1, 2) == 0  # borders are blended differently
            difference = difference[inside] if inside.float().mean() > 0.1 else torch.ones(1)
        found.append(float(difference.mean()))
    return min(found)


def assert_same(theirs: Callable[[Tensor], Tensor], choice: tuple[OpChoice, list[str]], images: Tensor) -> None:
    """The mean difference is that of one and a half gray levels, unless ours cannot be as strong and says so."""
    if CLIPPED in choice[1]:
        assert choice[0].magnitude == 1.0
    else:
        assert farthest(theirs, choice[0], images) <= 1.5 * LEVEL


@pytest.mark.parametrize("level", range(10))
@pytest.mark.parametrize("name", TORCHVISION.ops)
def test_a_level_of_torchvision_means_what_it_does_there(name: str, level: int, images: Tensor) -> None:
    magnitudes, signed = AutoAugment()._augmentation_space(10, (32, 32))[name]
    value = float(magnitudes[level]) if magnitudes.dim() else 0.0

    def theirs(images: Tensor) -> Tensor:
        pixels = images.mul(255).round().to(torch.uint8)
        return _apply_op(pixels, name, value, InterpolationMode.BILINEAR, None) / 255

    choice = nearest_choice(TORCHVISION.ops[name], 1.0, level)
    if name.startswith("Translate"):  # torchvision shifts by whole pixels: up to one of 32 less
        assert -0.2 < choice[0].magnitude * 0.45 * 32 - int(value) < 1  # type: ignore[operator]
    else:
        assert_same(theirs, choice, images)
    assert TORCHVISION.ops[name].mirrored == signed


@pytest.mark.parametrize("name", NAMES)
def test_torchvisions_policies_are_the_shipped_ones(name: str) -> None:
    imported = policy_from_torchvision(AutoAugment(NAMES[name]))
    ours = named_policy(f"autoaugment_{name}")
    assert policy_from_torchvision(v2.AutoAugment(NAMES[name])) == imported
    assert len(imported.policy.sub_policies) == len(ours.sub_policies) == 25
    for theirs, shipped in zip(imported.policy.sub_policies, ours.sub_policies, strict=True):
        for found, expected in zip(theirs.ops, shipped.ops, strict=True):
            assert (found.op, found.probability) == (expected.op, expected.probability)
            # Thresholds start at 255 in torchvision and at 256 here: one gray level at most.
            tolerance = 1 / 255 if found.op == "Solarize" else 1e-4
            assert found.magnitude == pytest.approx(expected.magnitude, abs=tolerance)
    kinds = {line.rpartition(": ")[2] for line in imported.approximations}
    assert kinds <= {NEAREST_PIXEL, WHOLE_PIXELS, CLIPPED}


@pytest.mark.parametrize("level", [0, 1, 2.5, 4, 5, 6.7, 9, 10])
@pytest.mark.parametrize("name", TIMM.ops)
def test_a_level_of_timm_means_what_it_does_there(
    name: str, level: float, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timm.data.auto_augment._randomly_negate", lambda value: value)
    arguments = LEVEL_TO_ARG[name](level, {}) if LEVEL_TO_ARG[name] else ()
    keywords = {"resample": Image.Resampling.BILINEAR} if TIMM.ops[name].op in MOVING else {}

    def theirs(images: Tensor) -> Tensor:
        rows = images.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        changed = [np.asarray(NAME_TO_OP[name](Image.fromarray(row), *arguments, **keywords)) for row in rows]
        return torch.from_numpy(np.stack(changed)).permute(0, 3, 1, 2) / 255

    assert_same(theirs, nearest_choice(TIMM.ops[name], 1.0, level), images)


def test_timms_policies_are_read_from_the_transform_and_from_the_list() -> None:
    transform = auto_augment_transform("original", {"translate_const": 14})
    imported = policy_from_timm(transform, "original")
    assert imported == policy_from_timm(auto_augment_policy("original"), "original")
    assert len(imported.policy.sub_policies) == 25
    assert imported.policy.sub_policies[2].ops == (OpChoice("Equalize", 0.8), OpChoice("Equalize", 0.6))
    # Solarize at level 5 of 10: threshold int(128) of 256; Posterize at level 8: 4 + int(3.2) = 7 bits of 8 to 4.
    assert imported.policy.sub_policies[1].ops == (OpChoice("Solarize", 0.6, 0.5), OpChoice("AutoContrast", 0.6))
    assert imported.policy.sub_policies[0].ops == (OpChoice("Posterize", 0.4, 0.25), OpChoice("Rotate", 0.6, 0.9))
    assert policy_from_timm(auto_augment_policy("originalr")).policy.sub_policies[0].ops[0].magnitude == 1.0


@pytest.mark.parametrize(("name", "left_out"), [("v0", "SolarizeAdd x2"), ("v0r", "SolarizeAdd x2")])
def test_timms_ops_without_a_counterpart_are_refused_or_left_out(name: str, left_out: str) -> None:
    with pytest.raises(InputError, match=r"op 1: op is 'SolarizeAdd', which has no counterpart here; .*skip_unknown"):
        policy_from_timm(auto_augment_policy(name))
    imported = policy_from_timm(auto_augment_policy(name), skip_unknown=True)
    assert f"{left_out}: has no counterpart here, left out" in imported.approximations
    assert len(imported.policy.sub_policies) == 25


def test_timms_three_augment_keeps_its_gray_and_loses_its_blur() -> None:
    imported = policy_from_timm(auto_augment_policy("3a"), "3a", skip_unknown=True)
    ops = [sub_policy.ops for sub_policy in imported.policy.sub_policies]
    assert ops == [(OpChoice("Solarize", 1.0, 0.5),), (OpChoice("Color", 1.0, 1.0),), ()]
    assert imported.approximations == (
        "Desaturate x1: the original only removes color, here the other direction adds color",
        f"Desaturate x1: {CLIPPED}",
        "GaussianBlurRand x1: has no counterpart here, left out",
    )


def test_timms_varied_levels_are_listed() -> None:
    imported = policy_from_timm(auto_augment_transform("original-mstd0.5"))
    assert imported.policy == policy_from_timm(auto_augment_policy("original")).policy
    assert re.fullmatch(
        r"PosterizeOriginal x5, .*: the original draws its level around this one", imported.approximations[0]
    )


@pytest.mark.parametrize("level", range(10))
@pytest.mark.parametrize("name", sorted(set(KORNIA.ops) - {"brightness", "color", "shear_x", "shear_y"}))
def test_a_bin_of_kornia_means_what_it_does_there(
    name: str, level: int, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    middle = kornia_ops._magnitude_bin

    def degenerate(magnitudes: Tensor, magnitude: int, op: str) -> tuple[float, float]:
        low, high = middle(magnitudes, magnitude, op)
        return (low + high) / 2, (low + high) / 2

    monkeypatch.setattr(kornia_ops, "_magnitude_bin", degenerate)
    with torch.random.fork_rng(devices=[]):
        assert_same(getattr(kornia_ops, name)(1.0, level), nearest_choice(KORNIA.ops[name], 1.0, level), images)


@pytest.mark.parametrize(
    ("name", "level", "ours"),
    [
        ("shear_x", 5, OpChoice("ShearX", 1.0, 0.315093)),  # .03 * 180 = 5.4 degrees, tangent .094528 of .3
        ("shear_y", 4, OpChoice("ShearY", 1.0, 0.315093)),  # -5.4 degrees
        ("shear_y", 0, OpChoice("ShearY", 1.0, 1.0)),  # -48.6 degrees
        ("brightness", 5, OpChoice("Brightness", 1.0, 0.2)),  # factor 1.09: adds .09, on gray .5 a factor of 1.18
        ("brightness", 0, OpChoice("Brightness", 1.0, 1.0)),
        ("color", 9, OpChoice("Color", 1.0, 0.9)),  # factor 1.81
        ("posterize", 1, OpChoice("Posterize", 1.0, 0.75)),  # 4.4 to 4.8 bits, most often 5
        ("translate_x", 0, OpChoice("TranslateX", 1.0, 1.0)),  # .45 of the width
        ("invert", None, OpChoice("Invert", 1.0)),
    ],
)
def test_a_bin_of_kornia_becomes_the_magnitude_computed_by_hand(name: str, level: int | None, ours: OpChoice) -> None:
    assert policy_from_kornia([[(name, 1.0, level)]]).policy.sub_policies[0].ops == (ours,)


@pytest.mark.parametrize("name", NAMES)
def test_kornias_lists_are_read_and_their_differences_are_listed(name: str) -> None:
    rows = getattr(kornia_presets, f"{name}_policy")
    imported = policy_from_kornia(rows, name)
    ours = named_policy(f"autoaugment_{name}")
    assert [len(sub_policy.ops) for sub_policy in imported.policy.sub_policies] == [2] * 25
    found = [(choice.op, choice.probability) for row in imported.policy.sub_policies for choice in row.ops]
    renamed = {("Contrast", "Brightness")}  # kornia's contrast multiplies
    for (op, share), choice in zip(found, [choice for row in ours.sub_policies for choice in row.ops], strict=True):
        assert share == choice.probability
        assert op == choice.op or (choice.op, op) in renamed
    said = " ".join(imported.approximations)
    assert imported.approximations[0] == "the original draws one sub-policy for a whole batch, here one for every image"
    assert "the original draws from an interval, here its middle" in said
    assert "the original has one fixed direction, here it is drawn per image" in said


def moved(read: Callable[[Any], Any], source: object) -> set[str]:
    """The listed differences of the ops that move pixels."""
    lines = read(source).approximations
    return {line.partition(": ")[2] for line in lines if line.startswith(("Rotate x", "Shear"))} - {VARIES}


def test_differences_in_interpolation_and_fill_follow_the_settings_of_the_original() -> None:
    cifar10, bilinear = AutoAugmentPolicy.CIFAR10, InterpolationMode.BILINEAR
    for kind in (AutoAugment, v2.AutoAugment):
        assert moved(policy_from_torchvision, kind(cifar10)) == {NEAREST_PIXEL}
        assert moved(policy_from_torchvision, kind(cifar10, bilinear)) == set()
        assert moved(policy_from_torchvision, kind(cifar10, bilinear, [0.0, 0.0, 0.0])) == set()
        assert moved(policy_from_torchvision, kind(cifar10, bilinear, [128.0] * 3)) == {FILLED}
    assert moved(policy_from_timm, auto_augment_transform("original", {})) == {BICUBIC, FILLED}
    plain = {"interpolation": 2, "img_mean": (0, 0, 0)}
    assert moved(policy_from_timm, auto_augment_transform("original", plain)) == set()
    assert moved(policy_from_timm, auto_augment_transform("original", {"interpolation": 2})) == {FILLED}


OP = AugmentOp("Rotate", 0.5, 3)
WIDE = AugmentOp("TranslateXRel", 0.5, 3, {"translate_pct": 0.3})


@pytest.mark.parametrize(
    ("read", "source", "said"),
    [
        (policy_from_torchvision, None, "table torchvision is None; wanted [["),
        (policy_from_torchvision, v2.Compose([v2.Identity()] * 2), "table torchvision is Compose( Identity() "),
        (
            policy_from_torchvision,
            [(("Rotate", 0.5, 2.5),)],
            "Rotate is 2.5; wanted a whole number from 0 to 9",
        ),
        (policy_from_torchvision, [(("Rotate", 0.5, 10),)], "level of Rotate is 10; wanted a whole number from 0 to 9"),
        (policy_from_torchvision, [(("Rotate", 0.5, None),)], "level of Rotate is None"),
        (policy_from_torchvision, [(("Rotat", 0.5, 1),)], "did you mean Rotate or Contrast?"),
        (policy_from_kornia, [[("rotate", 0.5, -1)]], "level of rotate is -1"),
        (policy_from_kornia, [[("Rotate", 0.5, 1)]], "did you mean rotate?"),
        (policy_from_kornia, [["rotate"]], "sub-policy 0, op 0 is 'rotate'; wanted (op, probability, level)"),
        (policy_from_timm, "v0", "timm policy timm is 'v0'; give an AutoAugment"),
        (policy_from_timm, [], "table timm is []"),
        (policy_from_timm, [OP], "give an AutoAugment, or lists of AugmentOp"),
        (policy_from_timm, [[("Rotate", 0.5, 3)]], "sub-policy 0, op 0 is ('Rotate', 0.5, 3); wanted an AugmentOp"),
        (policy_from_timm, [[OP], [OP, WIDE]], "sub-policy 1, op 1: translate_pct is 0.3; only 0.45"),
        (policy_from_timm, [[AugmentOp("TranslateX", 0.5, 3)]], "did you mean TranslateXRel"),
    ],
)
def test_what_is_no_such_policy_gives_one_line(read: Callable[[Any], Any], source: object, said: str) -> None:
    with pytest.raises(InputError) as error:
        read(source)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
