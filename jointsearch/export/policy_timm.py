"""Exports a policy as timm's AutoAugment, for the PIL images of timm's transforms."""

import math
import random
from fractions import Fraction

import PIL.Image
import torch
from timm.data.auto_augment import AugmentOp, AutoAugment
from torchvision.transforms.v2 import functional as tv

from jointsearch.export.common import Differences, Exported, amounts, drawable, posterize_bits, solarize_level
from search_spaces.augment.op import draw_op_noise
from search_spaces.augment.table import OPS
from search_spaces.policy import OpChoice, Policy

# timm draws uniformly from a list, so the list repeats a sub-policy by its weight. A repeat costs 8 bytes.
MAX_ENTRIES = 100_000

# Black outside, bilinear, and translations that end at our .45: timm's own defaults are gray, a random choice of
# bilinear and bicubic, and the same .45.
HPARAMS = {"interpolation": PIL.Image.Resampling.BILINEAR, "img_mean": 0, "translate_pct": 0.45}

ROUNDED = "timm rounds to 8 bits after each op, jointsearch after the last one; up to 1.4 levels"
BORDER = (
    "Pillow paints a pixel black if its centre comes from outside, jointsearch fades out; up to 1 pixel at the border"
)
STRETCH = "Pillow uses a table of whole levels; up to 1 level darker"
WEIGHTS = f"weights in steps of 1/{MAX_ENTRIES}"

# The ops of timm that have our ranges; their level runs from 0 to 10.
THEIR_NAMES = {
    **{name: name for name in ("ShearX", "ShearY", "Rotate", "AutoContrast", "Invert", "Equalize", "Solarize")},
    "TranslateX": "TranslateXRel",
    "TranslateY": "TranslateYRel",
    "Posterize": "PosterizeOriginal",
    **{name: f"{name}Increasing" for name in ("Contrast", "Color", "Brightness", "Sharpness")},
}


class OurOp:
    """An op that timm lacks (Cutout, HorizontalFlip), called as timm's are; draws from Python's generator, as timm."""

    def __init__(self, choice: OpChoice) -> None:
        self.choice = choice

    def __call__(self, image: PIL.Image.Image) -> PIL.Image.Image:
        """Change an image with the op's probability."""
        if random.random() >= self.choice.probability:
            return image
        noise = draw_op_noise(1, torch.Generator().manual_seed(random.getrandbits(32)))
        magnitude = torch.tensor(self.choice.magnitudes[:1])
        changed = OPS[self.choice.op](tv.pil_to_tensor(image)[None] / 255, magnitude, noise)[0]
        return tv.to_pil_image(changed.mul(255).round().byte())

    def __repr__(self) -> str:
        return f"OurOp({self.choice})"


def timm_auto_augment(policy: Policy, leave_out: bool = False) -> Exported[AutoAugment]:
    """An AutoAugment to put into a list of timm's transforms; `leave_out` drops ops that need a batch."""
    differences = Differences()
    rows = drawable(policy, differences, leave_out)
    repeats, is_exact = _repeats([row.weight for row in rows])
    entries = []
    for row, count in zip(rows, repeats, strict=True):
        entries += [[_their_op(choice, differences) for choice in row.ops]] * count
    lines = differences.lines() if is_exact else (*differences.lines(), f"all sub-policies: {WEIGHTS}")
    return Exported(AutoAugment(entries) if policy.draws == 1 else SeveralDraws(entries, policy.draws), lines)


class SeveralDraws(AutoAugment):
    """timm's AutoAugment, several times for each image."""

    def __init__(self, entries: list[list[AugmentOp | OurOp]], draws: int) -> None:
        super().__init__(entries)
        self.draws = draws

    def __call__(self, img: PIL.Image.Image) -> PIL.Image.Image:
        """Change an image."""
        for _ in range(self.draws):
            img = super().__call__(img)
        return img


def _their_op(choice: OpChoice, differences: Differences) -> AugmentOp | OurOp:
    if OPS[choice.op].gradient == "pathwise":
        differences.note(choice.op, ROUNDED)
    if choice.op not in THEIR_NAMES:
        return OurOp(choice)
    if OPS[choice.op].matrix is not None:
        differences.note(choice.op, BORDER)
    if choice.op == "AutoContrast":
        differences.note(choice.op, STRETCH)
    return AugmentOp(THEIR_NAMES[choice.op], choice.probability, _level(choice), HPARAMS)


def _level(choice: OpChoice) -> float:
    # timm truncates bits and thresholds to whole numbers; half a step more protects against rounding errors.
    if choice.op == "Posterize":
        return (posterize_bits(amounts(choice)[0]) - 4 + 0.5) / 4 * 10
    if choice.op == "Solarize":
        return (solarize_level(amounts(choice)[0]) + 0.5) / 256 * 10
    return 10 * choice.magnitudes[0]


def _repeats(weights: list[float]) -> tuple[list[int], bool]:
    # Weights as decimals, as written in a file: 0.1 is 1/10, not the nearest binary number.
    exact = [Fraction(str(weight)) for weight in weights]
    common = math.lcm(*(weight.denominator for weight in exact))
    counts = [int(weight * common) for weight in exact]
    divisor = math.gcd(*counts)
    if sum(counts) <= MAX_ENTRIES * divisor:
        return [count // divisor for count in counts], True
    total = math.fsum(weights)
    return [round(weight / total * MAX_ENTRIES) for weight in weights], False
