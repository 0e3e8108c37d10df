"""An exported policy gives the same pixels with the same probabilities, and its differences are listed."""

import importlib.abc
import importlib.util
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from jointsearch.export import policy_timm
from jointsearch.export.common import LEFT_OUT, Differences, Exported, drawable
from jointsearch.export.policy_albumentations import albumentations_policy
from jointsearch.export.policy_kornia import kornia_auto_augment
from jointsearch.export.policy_timm import timm_auto_augment
from jointsearch.export.policy_torchvision import torchvision_policy
from search_spaces.augment.apply import PolicyDraw, apply_draw, draw_policy
from search_spaces.augment.op import OpNoise
from search_spaces.augment.table import OPS
from search_spaces.controls import named_policy, random_policy
from search_spaces.errors import InputError
from search_spaces.policy import OpChoice, Policy, SubPolicy
from tests.export_bench import SINGLE, kornia_drawn, module_of

MOVING = {name for name, op in OPS.items() if op.matrix is not None and op.has_magnitude}
PAIR = SubPolicy((OpChoice("SamplePairing", 0.5, 0.5), OpChoice("Invert")))


def acting(draw: PolicyDraw, row: int) -> Iterator[tuple[int, str, bool]]:
    """The stage and op of everything that acts on one image, and whether its direction is positive."""
    for stage, place in enumerate(draw.op[row].tolist()):
        if place >= 0:
            yield stage, tuple(OPS)[place], draw.sign[row, stage].item() > 0


def as_pictures(images: Tensor, change: Callable[[Any], Any]) -> Tensor:
    changed = [tv.pil_to_tensor(change(tv.to_pil_image(image.mul(255).round().byte()))) for image in images]
    return torch.stack(changed) / 255


def as_arrays(images: Tensor, change: Callable[..., dict[str, Any]]) -> Tensor:
    arrays = [image.mul(255).round().byte().permute(1, 2, 0).numpy().copy() for image in images]
    return torch.stack([torch.from_numpy(change(image=array)["image"]).permute(2, 0, 1) for array in arrays]) / 255


# --- each target: with a forced draw, and with its own ----------------------------------------------------------------


def torchvision_forced(patch: pytest.MonkeyPatch, text: str, image: Tensor, draw: PolicyDraw) -> Tensor:
    module = module_of(text)
    _, table = module.SUB_POLICIES[int(draw.sub_policy)]
    ops = []
    for stage, op, positive in acting(draw, 0):
        name, _, amounts = table[stage]
        assert name == op
        amount = amounts[0 if positive else -1] if amounts else None
        ops.append((op, (amount, *draw.position[0, stage].tolist()) if op == "Cutout" else amount))
    return module.apply_ops(image[0], ops)[None]


def torchvision_drawn(text: str, image: Tensor, count: int) -> Tensor:
    transform, noise = module_of(text).PolicyTransform(), torch.Generator().manual_seed(0)
    return torch.stack([transform(image, generator=noise) for _ in range(count)])


def timm_forced(patch: pytest.MonkeyPatch, value: Any, image: Tensor, draw: PolicyDraw) -> Tensor:
    entry = value.policy[int(draw.sub_policy)]
    for stage, op, positive in acting(draw, 0):
        # One number for "does it act", unless that is sure, and one for "is it negated"; Pillow shifts the other way.
        negated = 0.6 if positive == op.startswith("Translate") else 0.4
        numbers = itertools.chain(
            [0.0] if OPS[op].has_magnitude and probability_of(entry[stage]) < 1 else [], [negated]
        )
        patch.setattr(random, "random", lambda numbers=numbers: next(numbers, 0.0))
        noise = OpNoise(torch.ones(1), draw.position[:, stage], torch.zeros(1, dtype=torch.long))
        patch.setattr(policy_timm, "draw_op_noise", lambda *_, noise=noise: noise)
        if not OPS[op].signed:
            patch.setattr(random, "random", lambda: 0.0)
        image = as_pictures(image, entry[stage])
    return image


def probability_of(entry: Any) -> float:
    return entry.choice.probability if isinstance(entry, policy_timm.OurOp) else entry.prob


def timm_drawn(value: Any, image: Tensor, count: int) -> Tensor:
    before = random.getstate()
    random.seed(0)
    changed = as_pictures(image.expand(count, -1, -1, -1), value)
    random.setstate(before)
    return changed


def kornia_forced(patch: pytest.MonkeyPatch, value: Any, image: Tensor, draw: PolicyDraw) -> Tensor:
    sequence = value.sub_policies[int(draw.sub_policy)]
    for stage, _, positive in acting(draw, 0):
        patch.setattr(
            torch, "rand_like", lambda like, positive=positive: torch.full_like(like, 0.0 if positive else 1.0)
        )
        parameters = sequence[stage].forward_parameters(image.shape)
        parameters |= {"batch_prob": torch.ones(1)}
        if "position" in parameters:
            parameters["position"] = draw.position[:, stage]
        image = sequence[stage](image, parameters)
    return image


def albumentations_forced(patch: pytest.MonkeyPatch, value: Any, image: Tensor, draw: PolicyDraw) -> Tensor:
    branch = value.transforms[0].transforms[int(draw.sub_policy)]
    for stage, op, positive in acting(draw, 0):
        chosen = branch.transforms[stage]
        if OPS[op].signed:
            chosen = chosen.transforms[0 if positive else 1]
        image = as_arrays(image, lambda image, chosen=chosen: chosen(force_apply=True, image=image))
    return image


def albumentations_drawn(value: Any, image: Tensor, count: int) -> Tensor:
    value.set_random_state(np.random.default_rng(0), random.Random(0))
    return as_arrays(image.expand(count, -1, -1, -1), value)


@dataclass(frozen=True)
class Target:
    export: Callable[..., Exported]
    forced: Callable[..., Tensor]
    drawn: Callable[..., Tensor]
    rounds: bool = False  # to 8 bits after each op


TARGETS = {
    "torchvision": Target(torchvision_policy, torchvision_forced, torchvision_drawn),
    "timm": Target(timm_auto_augment, timm_forced, timm_drawn, rounds=True),
    "kornia": Target(kornia_auto_augment, kornia_forced, kornia_drawn),
    "albumentations": Target(albumentations_policy, albumentations_forced, albumentations_drawn, rounds=True),
}


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> str:
    if request.param == "albumentations" and importlib.util.find_spec("albumentations") is None:
        pytest.skip("albumentations is not installed; pip install 'jointsearch[export]'")
    return request.param


# --- pixels ----------------------------------------------------------------------------------------------------------

# Levels of 255, the largest difference and that of a whole picture on average; behind them what was measured. These
# pictures are rougher than photos, and in random policies other ops went over them before.
LIMITS = {
    "torchvision": (0.05, 0.05),  # .023 and .016, of the luminance
    "kornia": (0.05, 0.05),  # .001
    "timm": (1.5, 1.0),  # 1.37 and .79, of rounding
    "albumentations": (1.1, 1.0),  # 1.006 and .60, of rounding
}
COARSE = {
    ("albumentations", "AutoContrast"): (11.5, 2.0),  # 11 and 1.72
    ("albumentations", "Equalize"): (80, 15),  # 76 and 14.1, both after Posterize
    ("albumentations", "blur"): (62, 3.7),  # 61 and 3.2, where Sharpness is below 1
}


def inner(changed: Tensor, target: str, op: str, draw: PolicyDraw) -> Tensor:
    """The pixels that must agree: Pillow draws a hard border, and Albumentations changes the outermost pixels."""
    if target == "timm" and op in MOVING:
        return apply_draw(torch.ones_like(changed), draw) > 0.999
    keep = torch.ones_like(changed, dtype=torch.bool)
    if target == "albumentations" and op == "Sharpness":
        keep[..., [0, -1], :] = keep[..., [0, -1]] = False
    return keep


def difference(target: str, op: str, draw: PolicyDraw, before: Tensor, changed: Tensor) -> None:
    """Compare one op of a target with ours; both start from the same picture."""
    levels = (changed - apply_draw(before, draw)).abs()[inner(changed, target, op, draw)] * 255
    name = "blur" if op == "Sharpness" and draw.sign.item() < 0 else op
    largest, mean = COARSE.get((target, name), LIMITS[target])
    assert levels.max() <= largest
    assert levels.mean() <= mean


def one_op(op: str, magnitude: float, positive: bool) -> tuple[Policy, PolicyDraw]:
    policy = Policy((SubPolicy((OpChoice(op, 0.7, magnitude if OPS[op].has_magnitude else None),)),))
    sign = torch.full((1, 1), 1.0 if positive else -1.0)
    place = torch.full((1, 1), tuple(OPS).index(op))
    draw = PolicyDraw(
        torch.zeros(1, dtype=torch.long),
        place,
        torch.full((1, 1), magnitude),
        sign,
        torch.tensor([[[0.31, 0.87]]]),
        torch.zeros(1, 1, dtype=torch.long),
    )
    return policy, draw


def magnitudes(target: str, op: str) -> list[float]:
    if target == "albumentations" and op.startswith("Translate"):
        return [pixels / (0.45 * 32) for pixels in (1, 6, 14)]  # whole pixels, which is all that it can do
    if target == "albumentations" and op.startswith("Shear"):
        return [pixels / (0.3 * 16) for pixels in (1, 2, 4)]  # and the same on the way back from its centre
    return [0.13, 0.5, 0.77, 1.0]


@pytest.mark.parametrize("op", SINGLE)
def test_an_op_has_our_pixels(target: str, op: str, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    if target == "albumentations" and op == "Cutout":
        pytest.skip("a hole elsewhere; test_export_files.py looks at its size and color")
    for magnitude, positive in itertools.product(magnitudes(target, op), (True, False)):
        policy, draw = one_op(op, magnitude, positive)
        exported = TARGETS[target].export(policy)
        for image in images[::3].split(1):
            changed = TARGETS[target].forced(monkeypatch, exported.value, image, draw)
            difference(target, op, draw, image, changed)


@pytest.mark.parametrize("seed", range(4))
def test_a_random_policy_has_our_pixels(
    target: str, seed: int, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Op by op on what the ops before made of the picture: an op that counts levels turns a rounding into many levels.
    ops = SINGLE if target != "albumentations" else tuple(sorted({*SINGLE} - MOVING - {"Cutout"} | {"Rotate"}))
    chosen = random_policy(ops, seed)
    policy = Policy(drawable(chosen, Differences(), False))  # without idle ops, which no export has
    exported = TARGETS[target].export(chosen)
    draws = draw_policy(policy, 16, torch.Generator().manual_seed(seed))
    compared = 0
    for row in range(16):
        image, whole = images[row % 8][None], draws.rows(slice(row, row + 1))
        for stage, op, _ in acting(whole, 0):
            single = replace(whole, op=torch.where(torch.arange(policy.stages) == stage, whole.op, -1))
            changed = TARGETS[target].forced(monkeypatch, exported.value, image, single)
            only = PolicyDraw(whole.sub_policy, *(getattr(single, name)[:, [stage]] for name in STAGED))
            difference(target, op, only, image, changed)
            image, compared = changed, compared + 1
        assert torch.equal(TARGETS[target].forced(monkeypatch, exported.value, images[row % 8][None], whole), image)
    assert compared >= 8


STAGED = ("op", "magnitude", "sign", "position", "partner")


def test_ops_that_are_left_away_for_being_idle_change_nothing(images: Tensor) -> None:
    idle = [
        OpChoice("Posterize", 1.0, 0.12), OpChoice("Solarize", 1.0, 1 / 257), OpChoice("Rotate", 1.0, 0.0)
    ]  # fmt: skip
    for choice in idle:
        policy = Policy((SubPolicy((choice,)),))
        assert drawable(policy, Differences(), False) == (SubPolicy(()),)
        draw = draw_policy(policy, len(images), torch.Generator().manual_seed(0))
        assert torch.equal(apply_draw(images, draw), images)
    acts = Policy((SubPolicy((OpChoice("Posterize", 1.0, 0.13), OpChoice("Solarize", 1.0, 1 / 255))),))
    assert drawable(acts, Differences(), False) == acts.sub_policies


@pytest.mark.parametrize("op", SINGLE)
def test_an_op_that_is_not_listed_has_our_very_levels(
    target: str, op: str, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for positive in (True, False):
        policy, draw = one_op(op, 0.77, positive)
        exported = TARGETS[target].export(policy)
        if any(op in line.partition(":")[0] for line in exported.approximations):
            return
        changed = TARGETS[target].forced(monkeypatch, exported.value, images[:1], draw)
        assert ((changed - apply_draw(images[:1], draw)).abs() * 255).max() <= (
            0.51 if TARGETS[target].rounds else 0.002
        )


# --- probabilities ----------------------------------------------------------------------------------------------------

COUNTED = Policy(
    (
        SubPolicy((OpChoice("Invert", 0.3), OpChoice("TranslateX", 0.8, 4 / (0.45 * 16))), weight=1.0),
        SubPolicy((OpChoice("Rotate", 0.6, 1.0), OpChoice("Posterize", 0.5, 1.0)), weight=3.0),
        SubPolicy((OpChoice("HorizontalFlip", 0.4),), weight=2.0),
        SubPolicy((OpChoice("Equalize"),), weight=0.0),
    )
)


def outcomes(policy: Policy, image: Tensor) -> tuple[Tensor, Tensor]:
    """Every picture that a policy can make of one, and how likely it is."""
    total = sum(sub_policy.weight for sub_policy in policy.sub_policies)
    found: dict[bytes, tuple[Tensor, float]] = {}
    for n, sub_policy in enumerate(policy.sub_policies):
        for path in itertools.product(*map(ways, sub_policy.ops)):
            draw = draw_policy(policy, 1, torch.Generator())
            draw = replace(draw, sub_policy=torch.tensor([n]), op=torch.full_like(draw.op, -1))
            chance = sub_policy.weight / total
            for stage, (choice, (sign, likely)) in enumerate(zip(sub_policy.ops, path, strict=True)):
                draw.op[0, stage] = tuple(OPS).index(choice.op) if sign else -1
                draw.magnitude[0, stage], draw.sign[0, stage] = choice.magnitude or 0.0, sign
                chance *= likely
            picture = apply_draw(image[None], draw)[0]
            key = picture.mul(255).round().byte().numpy().tobytes()
            found[key] = picture, found.get(key, (picture, 0.0))[1] + chance
    pictures, chances = zip(*found.values(), strict=True)
    return torch.stack(pictures), torch.tensor(chances, dtype=torch.float64)


def ways(choice: OpChoice) -> list[tuple[int, float]]:
    """All outcomes of an op with their probabilities: no action, or one of its directions."""
    signs = (1, -1) if OPS[choice.op].signed else (1,)
    return [(0, 1 - choice.probability), *((sign, choice.probability / len(signs)) for sign in signs)]


def test_sub_policies_ops_and_directions_are_drawn_as_often_as_they_should(target: str, images: Tensor) -> None:
    count, image = 2000, images[4, :, 8:24, 8:24]
    pictures, chances = outcomes(COUNTED, image)
    assert chances.sum().item() == pytest.approx(1)
    assert (chances > 0).sum() == 12  # 6 + 6 + 1, and nothing at all counts once
    drawn = TARGETS[target].drawn(TARGETS[target].export(COUNTED).value, image, count)
    distance = torch.cdist(drawn.flatten(1), pictures.flatten(1), p=1) / image.numel() * 255
    nearest, which = distance.min(1)
    assert nearest.max() <= 8  # levels on average: nothing else was drawn
    seen = torch.bincount(which, minlength=len(chances)).double()
    possible = chances > 0
    assert seen[~possible].sum() == 0
    assert chisquare(seen[possible], chances[possible] * count).pvalue > 1e-3


# --- ops that cannot be exported --------------------------------------------------------------------------------------


def test_an_op_that_needs_a_batch_is_refused_with_a_remedy(target: str) -> None:
    with pytest.raises(InputError, match=r"SamplePairing .*leave_out=true"):
        TARGETS[target].export(Policy((PAIR,)))


def test_an_op_that_needs_a_batch_is_left_out_when_asked_for_and_listed(target: str, images: Tensor) -> None:
    exported = TARGETS[target].export(Policy((PAIR,)), leave_out=True)
    assert f"SamplePairing x1: {LEFT_OUT}" in exported.approximations
    changed = TARGETS[target].drawn(exported.value, images[0], 4)
    torch.testing.assert_close(changed, (1 - images[0]).expand(4, -1, -1, -1), rtol=0, atol=1e-6)


def test_an_op_that_is_never_drawn_needs_no_batch(target: str) -> None:
    never = replace(PAIR, weight=0.0)
    assert TARGETS[target].export(Policy((never, SubPolicy()))).approximations == ()


@pytest.mark.parametrize("weights", [(1, 3), (10**29, 3 * 10**29), (1e-46, 3e-46), (1e39, 3e39)])
def test_weights_of_any_size_are_drawn_in_proportion(weights: tuple[float, float], target: str, images: Tensor) -> None:
    policy = Policy(tuple(SubPolicy((OpChoice("Invert"),) * n, weight) for n, weight in enumerate(weights)))
    changed = TARGETS[target].drawn(TARGETS[target].export(policy).value, images[0], 200)
    share = (changed - images[0]).abs().amax((1, 2, 3)).gt(0.1).float().mean()
    assert abs(float(share) - 0.75) < 0.11  # 3.6 standard deviations


@pytest.mark.parametrize("op", sorted(MOVING | {"Contrast", "Cutout"}))
def test_a_magnitude_too_small_for_any_pixel_changes_nothing(op: str, target: str, images: Tensor) -> None:
    exported = TARGETS[target].export(Policy((SubPolicy((OpChoice(op, 1.0, 1e-12),)),)))
    assert exported.approximations == ()
    assert torch.allclose(TARGETS[target].drawn(exported.value, images[0], 2), images[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("draws", [2, 3])
def test_several_draws_act_one_after_the_other(draws: int, target: str, images: Tensor) -> None:
    exported = TARGETS[target].export(Policy((SubPolicy((OpChoice("Invert"),)),), draws=draws))
    changed = TARGETS[target].drawn(exported.value, images[0], 2)
    wanted = images[0] if draws == 2 else 1 - images[0]
    assert torch.allclose(changed, wanted.expand_as(changed), rtol=0, atol=1.1 / 255)


def test_draws_of_an_image_are_made_anew(target: str, images: Tensor) -> None:
    policy = Policy((SubPolicy((OpChoice("Invert"),)), SubPolicy()), draws=2)
    changed = TARGETS[target].drawn(TARGETS[target].export(policy).value, images[0], 200)
    share = (changed - images[0]).abs().amax((1, 2, 3)).gt(0.1).float().mean()
    assert abs(float(share) - 0.5) < 0.13  # one of two draws; 3.6 standard deviations


def test_a_range_of_magnitudes_is_spread_over_its_levels_and_said_to_be(target: str) -> None:
    exported = TARGETS[target].export(Policy((SubPolicy((OpChoice("Solarize", 1.0, (0.5, 1.0)),)),)))
    assert any("Solarize" in line and "one of 31 levels" in line for line in exported.approximations)
    ramp = torch.arange(256).float().div(255).view(1, 16, 16).expand(3, -1, -1)
    changed = TARGETS[target].drawn(exported.value, ramp, 300)
    # The lowest level that is inverted runs from 128, at magnitude .5, to 0.
    inverted = (changed - ramp).abs().mul(255).round().gt(0)[:, 0].flatten(1)
    lowest = torch.where(inverted.any(1), inverted.float().argmax(1), 256)
    assert len(lowest.unique()) >= 25
    assert lowest.max() <= 128
    assert abs(float(lowest.float().mean()) - 64) < 9  # 4 standard deviations


def test_a_policy_that_does_nothing_changes_nothing(target: str, images: Tensor) -> None:
    exported = TARGETS[target].export(named_policy("none"))
    assert exported.approximations == ()
    assert torch.allclose(TARGETS[target].drawn(exported.value, images[0], 3), images[0], rtol=0, atol=1e-6)
