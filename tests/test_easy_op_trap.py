"""The easy-op trap: whoever augments the images that judge is paid for easy images, not for useful training.

Glyphs lie in the middle in training, and 3 pixels aside in validation and test: TranslateX is what helps. Every image
has a contrast and a brightness of its own, which AutoContrast takes away: images become easier, and nothing is learned.
"""

import math
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
import torch
from torch import Tensor

from jointsearch.benchmarks.planted import started
from jointsearch.commands.benchmark import searcher_of
from jointsearch.data.planted import GLYPHS, GROUND, LEVELS, SHIFT_PIXELS, draw_planted
from jointsearch.data.sets import DataSplits, ImageSet
from jointsearch.data.standard import Standard
from jointsearch.loops.plan import Plan
from jointsearch.loops.recipe import Recipe
from jointsearch.loops.retrain import retrain
from jointsearch.loops.search import search
from jointsearch.settings import as_plain
from search_spaces.augment.quantized import autocontrast
from search_spaces.policy import OpChoice, Policy, SubPolicy

EASY, USEFUL = "AutoContrast", "TranslateX"
OPS = f"policy_space.ops=[{USEFUL},{EASY},Color,Posterize]"  # Color leaves a gray image as it is, Posterize nearly so
# 128 steps of .06 carry the policy as far as 7,680 of the published .001; 25 epochs of CIFAR-10 have 9,775.
KASHIMA = ["preset=kashima2021", OPS, "searcher.learning_rate=0.06"]
OURS = ["preset=joint_trivialaugment", OPS]
SEEDS = range(3)
RECIPE = Recipe(epochs=16, batch_size=128, learning_rate=0.015, weight_decay=0.0, schedule="none", precision="float32")


def in_their_own_light(images: ImageSet, noise: torch.Generator) -> ImageSet:
    """The bright glyphs among planted images, each at a contrast between .15 and .6 and a brightness of its own."""
    bright = images.labels % len(LEVELS) == 0
    glyph = (images.images[bright] / 255 - GROUND) / (LEVELS["bright"] - GROUND)  # (B, 1, H, W): 0 ground, 1 glyph
    uniform = torch.rand(2, len(glyph), 1, 1, 1, generator=noise)
    contrast = 0.15 * 4 ** uniform[0]
    levels = 0.1 + (0.8 - contrast) * uniform[1] + contrast * glyph
    pixels = levels.clamp(0, 1).mul(255).round().to(torch.uint8)
    return ImageSet(pixels, images.labels[bright] // len(LEVELS), tuple(GLYPHS))


def trap(seed: int) -> DataSplits:
    noise = torch.Generator().manual_seed(seed)
    sizes = ((2048, 0), (2048, SHIFT_PIXELS), (4000, SHIFT_PIXELS))
    train, validation, test = (in_their_own_light(draw_planted(*size, noise), noise) for size in sizes)
    return DataSplits(train, validation, test)


def plan(policy: Policy | None, seed: int, folder: Path) -> Plan:
    return Plan(folder, "tiny_mlp", RECIPE, Standard(), seed, policy)


def trained(policy: Policy, seed: int, folder: Path) -> float:
    """The accuracy on clean test images of a network trained from scratch."""
    return retrain(plan(policy, seed, folder), trap(seed))["test_accuracy_last"] / 100


def found(overrides: list[str], seed: int, folder: Path) -> tuple[Policy, float]:
    """The policy that these settings find for a network without cells, and what it is worth in training."""
    settings = searcher_of(overrides)
    start = replace(plan(None, seed, folder / "search"), search=as_plain(settings))
    search(start, trap(seed), started(settings, start))
    policy = Policy.load(folder / "search" / "policy.json")
    return policy, trained(policy, seed, folder / "training")


def share_of(policy: Policy, op: str) -> float:
    """How many of all images meet an op."""
    missed = (
        one.weight * math.prod(1 - choice.probability for choice in one.ops if choice.op == op)
        for one in policy.sub_policies
    )
    return 1 - math.fsum(missed) / math.fsum(one.weight for one in policy.sub_policies)


@pytest.fixture(scope="module")
def first_order(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Policy, float]]:
    return [found(KASHIMA, seed, tmp_path_factory.mktemp("kashima")) for seed in SEEDS]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Policy, float]]:
    return [found(OURS, seed, tmp_path_factory.mktemp("ours")) for seed in SEEDS]


@pytest.mark.slow
def test_first_order_under_augmented_validation_ends_at_the_easy_op(first_order: list[tuple[Policy, float]]) -> None:
    # Each of the ten sub-policies of a search ends at one op or nearly so. On a processor without AVX-512 two of seed 2
    # miss the easy op, and one of them ends at the useful one; with AVX-512 none does.
    assert fmean(share_of(policy, EASY) for policy, _ in first_order) > 0.8
    assert all(share_of(policy, EASY) > 0.5 for policy, _ in first_order)
    assert fmean(share_of(policy, USEFUL) for policy, _ in first_order) < 0.1


@pytest.mark.slow
def test_our_gradients_do_not(ours: list[tuple[Policy, float]]) -> None:
    assert all(share_of(policy, EASY) < 0.4 for policy, _ in ours)
    assert fmean(share_of(policy, USEFUL) for policy, _ in ours) > 0.5


@pytest.mark.slow
def test_what_our_gradients_find_is_worth_more_on_clean_test_images(
    first_order: list[tuple[Policy, float]], ours: list[tuple[Policy, float]]
) -> None:
    assert fmean(accuracy for _, accuracy in ours) > fmean(accuracy for _, accuracy in first_order) + 0.1


def test_the_easy_op_teaches_nothing_and_the_useful_one_does(tmp_path: Path) -> None:
    policies = {
        "none": Policy((SubPolicy(),)),
        EASY: Policy((SubPolicy((OpChoice(EASY),)),)),
        USEFUL: Policy((SubPolicy((OpChoice(USEFUL, 1.0, 0.55),)), SubPolicy())),
    }
    accuracy = {name: trained(policy, 0, tmp_path / name) for name, policy in policies.items()}
    assert accuracy[EASY] < accuracy["none"] + 0.15
    assert accuracy[USEFUL] > accuracy["none"] + 0.5


def test_the_easy_op_makes_images_easier() -> None:
    def nearest_mean(images: Tensor, labels: Tensor) -> float:
        means = torch.stack([images[labels == label].mean(0) for label in range(len(GLYPHS))])
        return float((torch.cdist(images.flatten(1), means.flatten(1)).argmin(1) == labels).double().mean())

    train = trap(0).train
    pixels = train.images / 255
    plain, easy = (nearest_mean(one, train.labels) for one in (pixels, autocontrast(pixels, torch.zeros(()))))
    assert easy > plain + 0.1


def test_the_share_of_an_op_is_counted_by_hand() -> None:
    twice = SubPolicy((OpChoice(EASY, 0.5), OpChoice(EASY, 0.8)), 3.0)
    policy = Policy((twice, SubPolicy((OpChoice(USEFUL, 1.0, 0.5),), 1.0)))
    assert share_of(policy, EASY) == pytest.approx(0.75 * 0.9)
    assert share_of(policy, USEFUL) == pytest.approx(0.25)
