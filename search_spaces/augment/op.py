"""An augmentation op: a function of images and an amount, with the amounts of magnitude 0 and 1."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Gradient = Literal["pathwise", "straight-through", "none"]


@dataclass(frozen=True)
class OpNoise:
    """The random numbers for one application of an op, one entry per image."""

    sign: Tensor  # (B,) +1 or -1: direction of signed ops
    position: Tensor  # (B, 2) in [0, 1): where an erased square is centred, as (x, y)
    partner: Tensor  # (B,) index into the batch: the image that SamplePairing mixes in

    def rows(self, index: Tensor) -> "OpNoise":
        """The noise of some images only; partners still point into the whole batch."""
        return OpNoise(self.sign[index], self.position[index], self.partner[index])


@dataclass(frozen=True)
class AugOp:
    """One augmentation op, batched: every image has its own magnitude and direction.

    Magnitude 0 changes nothing and magnitude 1 is the strongest form: amount = identity + sign * magnitude *
    (strongest - identity). Ops with `identity=None` have no amount; their magnitude is ignored.
    """

    name: str
    fn: Callable[..., Tensor]  # (images, amount), (images, amount, position) or (images, amount, partners), see `uses`
    identity: float | None = None
    strongest: float | None = None
    signed: bool = False
    gradient: Gradient = "none"  # how gradients reach the magnitude
    unit: str = ""  # what an amount is measured in
    uses: Literal["amount", "position", "partner"] = "amount"
    matrix: Callable[[Tensor, int, int], Tensor] | None = None  # (amount (B,), H, W) -> (B, 3, 3), source to result

    @property
    def has_magnitude(self) -> bool:
        """Whether this op has an amount at all."""
        return self.identity is not None

    def amount(self, magnitude: Tensor, sign: Tensor) -> Tensor:
        """Map magnitudes in [0, 1] and directions to this op's own unit."""
        if self.identity is None or self.strongest is None:
            return magnitude
        step = magnitude * (self.strongest - self.identity)
        return self.identity + (step * sign if self.signed else step)

    def __call__(self, images: Tensor, magnitude: Tensor, noise: OpNoise, pool: Tensor | None = None) -> Tensor:
        """Apply to (B, C, H, W) images in [0, 1]; `pool` holds the images that partners point into (default: these)."""
        amount = self.amount(magnitude, noise.sign)
        if self.uses == "position":
            changed = self.fn(images, amount, noise.position)
        elif self.uses == "partner":
            changed = self.fn(images, amount, (images if pool is None else pool)[noise.partner])
        else:
            changed = self.fn(images, amount)
        if self.identity is None:
            return changed
        return exactly_at_zero(images, magnitude, changed)


def per_image(values: Tensor) -> Tensor:
    """Shape (B,) values so that they broadcast over (B, C, H, W)."""
    return values.reshape(-1, 1, 1, 1)


def straight_through(value: Tensor, slope: Tensor) -> Tensor:
    """The value of `value` with the gradient of `slope`."""
    if not torch.is_grad_enabled() or not slope.requires_grad:
        return value
    return value.detach() + (slope - slope.detach())


def draw_op_noise(batch: int, generator: torch.Generator) -> OpNoise:
    """Noise for one op over a batch, on the generator's device."""
    noise = torch.rand(4, batch, generator=generator, device=generator.device)
    return OpNoise(sign_from(noise[0]), noise[1:3].T, partner_from(noise[3]))


def sign_from(uniform: Tensor) -> Tensor:
    """+1 or -1 with equal chance, from uniform noise."""
    return torch.where(uniform < 0.5, -1.0, 1.0)


def partner_from(uniform: Tensor) -> Tensor:
    """Another image of the batch for every image, from uniform noise (B, ...); a batch of one pairs with itself."""
    batch = uniform.shape[0]
    own = torch.arange(batch, device=uniform.device).reshape(-1, *[1] * (uniform.dim() - 1))
    step = 1 + (uniform * (batch - 1)).long().clamp(max=max(batch - 2, 0))
    return (own + step) % batch


def exactly_at_zero(images: Tensor, magnitude: Tensor, changed: Tensor) -> Tensor:
    """`changed`, but exactly `images` where the magnitude is 0."""
    # A warp by the unit matrix still rounds in the last bit, but at magnitude 0 pixels must stay identical and keep
    # their gradient. The added difference is exactly zero and has the gradient.
    untouched = per_image(magnitude == 0)
    if not (torch.is_grad_enabled() and changed.requires_grad):
        return torch.where(untouched, images, changed)
    return torch.where(untouched, images.detach() + (changed - changed.detach()), changed)
