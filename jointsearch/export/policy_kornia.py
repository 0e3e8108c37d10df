"""Exports a policy as a module of kornia's own operations, for batches on any device."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import kornia.augmentation as K
import torch
from kornia.augmentation.auto.operations import OperationBase, PolicySequential
from torch import Tensor, nn

from jointsearch.export.common import Differences, Exported, amounts, drawable, posterize_bits
from search_spaces.augment.erase import cutout
from search_spaces.augment.quantized import TIE
from search_spaces.policy import OpChoice, Policy


class SignedOperation(OperationBase):
    """An operation with a random direction: each image gets kornia's amount, or that amount times `other`."""

    def __init__(self, operation: K.AugmentationBase2D, factor: str, other: float) -> None:
        super().__init__(operation)
        self.factor = factor
        self.other = other

    def forward_parameters(self, batch_shape: torch.Size, mag: Tensor | None = None) -> dict[str, Tensor]:
        """kornia's parameters for every image, with random directions."""
        parameters = super().forward_parameters(batch_shape, mag)
        amount = parameters[self.factor]  # (B,)
        parameters[self.factor] = amount * torch.where(torch.rand_like(amount) < 0.5, 1.0, self.other)
        if self.factor.startswith("shear"):
            # Shear about half a pixel before the first, so that the top row and the left column stay; kornia shears
            # about the centre.
            parameters["center"] = torch.full_like(parameters["center"], -0.5)
        return parameters


class SoftCutout(K.IntensityAugmentationBase2D):
    """Our cutout. kornia's RandomErasing erases whole pixels, in one gray, and stays inside the image."""

    def __init__(self, side: float, p: float) -> None:
        super().__init__(p=p)
        self.side = side

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> dict[str, Tensor]:
        """The centres of the squares."""
        return {"position": torch.rand(batch_shape[0], 2)}

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Cover the squares."""
        return cutout(input, input.new_full((len(input),), self.side), params["position"].to(input))


class Posterize(K.RandomPosterize):
    """kornia's operation on the nearest 8-bit level; on its own it takes the level below."""

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Keep the highest bits."""
        return super().apply_transform(_on_levels(input), params, flags, transform)


class Equalize(K.RandomEqualize):
    """kornia's operation on the nearest 8-bit level; on its own it takes the level below."""

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Spread the histogram."""
        return super().apply_transform(_on_levels(input), params, flags, transform)


class KorniaOperations(nn.Module):
    """Sub-policies as kornia's PolicySequential, one drawn for each image; kornia's AutoAugment draws one a batch."""

    weights: Tensor

    def __init__(self, sub_policies: list[PolicySequential], weights: list[float], draws: int) -> None:
        super().__init__()
        self.draws = draws
        self.sub_policies = nn.ModuleList(sub_policies)
        total = math.fsum(weights)
        shares = torch.tensor([weight / total for weight in weights], dtype=torch.float64)
        self.register_buffer("weights", shares)  # (N,)

    def forward(self, images: Tensor) -> Tensor:
        """Augment (B, C, H, W) images in [0, 1]; draws from torch's global generator, as all of kornia does."""
        for _ in range(self.draws):
            images = self._once(images)
        return images

    def _once(self, images: Tensor) -> Tensor:
        drawn = torch.multinomial(self.weights, len(images), replacement=True)  # (B,)
        changed = images.clone()
        for n in drawn.unique().tolist():
            rows = (drawn == n).nonzero()[:, 0]
            if len(self.sub_policies[n]):
                changed[rows] = self.sub_policies[n](images[rows])
        return changed


def kornia_auto_augment(policy: Policy, leave_out: bool = False) -> Exported[KorniaOperations]:
    """A module for batches; `leave_out` drops SamplePairing, whose partner kornia's mixing draws otherwise."""
    differences = Differences()
    rows = drawable(policy, differences, leave_out, THEIR_OPS)
    sub_policies = [PolicySequential(*(_operation(choice) for choice in row.ops)) for row in rows]
    return Exported(KorniaOperations(sub_policies, [row.weight for row in rows], policy.draws), differences.lines())


def _operation(choice: OpChoice) -> OperationBase:
    theirs = THEIR_OPS[choice.op]
    values = tuple(theirs.unit(value) for value in amounts(choice))
    operation = theirs.build(choice.probability, values[:1] * 2)
    if len(values) < 2:
        return OperationBase(operation)
    return SignedOperation(operation, theirs.factor, values[1] / values[0])


def _on_levels(images: Tensor) -> Tensor:
    # A quarter above the level, so that truncation to whole numbers gives the level.
    return ((images * 255).round() + 0.25).clamp(max=255) / 255


def _degrees(tangent: float) -> float:
    return math.degrees(math.atan(tangent))


@dataclass(frozen=True)
class _TheirOp:
    build: Callable[..., K.AugmentationBase2D]  # (probability, range of the factor: the same value twice)
    factor: str = ""  # what kornia calls the amount of a signed op
    unit: Callable[[float], float] = lambda value: value  # our amount in kornia's unit


THEIR_OPS = {
    "ShearX": _TheirOp(lambda p, r: K.RandomShear((*r, 0.0, 0.0), p=p), "shear_x", _degrees),
    "ShearY": _TheirOp(lambda p, r: K.RandomShear((0.0, 0.0, *r), p=p), "shear_y", _degrees),
    "TranslateX": _TheirOp(lambda p, r: K.RandomTranslate(r, None, p=p), "translate_x"),
    "TranslateY": _TheirOp(lambda p, r: K.RandomTranslate(None, r, p=p), "translate_y"),
    "Rotate": _TheirOp(lambda p, r: K.RandomRotation(r, p=p), "degrees"),
    "HorizontalFlip": _TheirOp(lambda p, r: K.RandomHorizontalFlip(p=p)),
    "AutoContrast": _TheirOp(lambda p, r: K.RandomAutoContrast(p=p)),
    "Invert": _TheirOp(lambda p, r: K.RandomInvert(p=p)),
    "Equalize": _TheirOp(lambda p, r: Equalize(p=p)),
    "Solarize": _TheirOp(lambda p, r: K.RandomSolarize(r, (0.0, 0.0), p=p), unit=lambda value: max(value - TIE, 0.0)),
    "Posterize": _TheirOp(lambda p, r: Posterize(r, p=p), unit=posterize_bits),
    "Contrast": _TheirOp(lambda p, r: K.ColorJitter(contrast=r, p=p), "contrast_factor"),
    "Color": _TheirOp(lambda p, r: K.ColorJitter(saturation=r, p=p), "saturation_factor"),
    "Brightness": _TheirOp(lambda p, r: K.ColorJitter(brightness=r, p=p), "brightness_factor"),
    "Sharpness": _TheirOp(lambda p, r: K.RandomSharpness(r, p=p), "sharpness"),
    "Cutout": _TheirOp(lambda p, r: SoftCutout(r[0], p)),
}
