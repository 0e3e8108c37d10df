"""Ops that work on 8-bit levels, or have no amount: their gradients are straight-through where they have any."""

import torch
from kornia import enhance
from torch import Tensor

from search_spaces.augment.op import AugOp, per_image, straight_through

# Width of the soft threshold whose slope Solarize lends its amount, in the image's own unit (about 13 gray levels).
SOLARIZE_SOFTNESS = 0.05
# Level k / 255 and threshold k / 255 are the same number only up to rounding; PIL inverts the level of the threshold.
TIE = 1e-5
FLOAT16_TIE = torch.finfo(torch.float16).eps / 2  # bfloat16 cannot tell neighboring levels apart


def solarize(images: Tensor, amount: Tensor) -> Tensor:
    """Invert the pixels at or above a threshold; learns through a soft threshold of the same place."""
    value = enhance.solarize(images, amount - (FLOAT16_TIE if images.dtype == torch.float16 else TIE))
    if not amount.requires_grad:
        return value
    above = torch.sigmoid((images.detach() - per_image(amount)) / SOLARIZE_SOFTNESS)
    return value + _zero_with_slope((1 - 2 * images.detach()) * above)


def posterize(images: Tensor, amount: Tensor) -> Tensor:
    """Keep the highest bits of every pixel; between two whole numbers of bits the gradient is their difference."""
    bits = per_image(amount)
    surrogate = images
    if amount.requires_grad:
        # At a whole number of bits the step towards fewer bits gives the slope: at 8 bits no other exists.
        upper = bits.detach().ceil().clamp(min=1)
        slope = _keep_bits(images, upper) - _keep_bits(images, upper - 1)
        surrogate = images + slope.detach() * bits
    return straight_through(_keep_bits(images, bits.detach().round()), surrogate)


def _zero_with_slope(slope: Tensor) -> Tensor:
    return slope - slope.detach()


def _keep_bits(images: Tensor, bits: Tensor) -> Tensor:
    # Mask the low bits by dividing their step out: levels are whole numbers below 256, so float arithmetic is exact.
    step = torch.exp2(8 - bits)
    levels = images.detach().mul(255).round_()
    return levels.div_(step).floor_().mul_(step).div_(255)


def equalize(images: Tensor, amount: Tensor) -> Tensor:
    """Spread the histogram of every channel evenly, as PIL does."""
    # PIL's integer table for all channels at once. kornia.enhance.equalize costs 1.3 to 1.5 times as much, and reads a
    # float just below its level as the level below.
    planes = images.shape[0] * images.shape[1]
    level = images.detach().mul(255).round_().to(torch.long).view(planes, -1)  # (B * C, H * W)
    histogram = level.new_zeros(planes, 256).scatter_add_(1, level, torch.ones_like(level))  # bincount waits for a GPU
    brightest = histogram.gather(1, level.amax(1, keepdim=True))
    step = (level.shape[1] - brightest) // 255  # (B * C, 1)
    below = histogram.cumsum(1) - histogram
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=255)
    table = torch.where(step == 0, torch.arange(256, device=images.device), table)  # nothing to spread: as it is
    value = table.to(images.dtype).div_(255).gather(1, level).view_as(images)
    return straight_through(value, images)


def autocontrast(images: Tensor, amount: Tensor) -> Tensor:
    """Stretch every channel to the full range; a flat channel stays."""
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    span = high - low
    flat = (span <= 0).to(images.dtype)
    return (images - low * (1 - flat)) / (span + flat)


def invert(images: Tensor, amount: Tensor) -> Tensor:
    """The negative."""
    # Without a maximum kornia makes one on the CPU, and its copy would make a GPU wait.
    return enhance.invert(images, images.new_ones(()))


QUANTIZED_OPS = (
    AugOp("AutoContrast", autocontrast),
    AugOp("Invert", invert),
    AugOp("Equalize", equalize),
    # 256/255: PIL's threshold 256 leaves white alone, and so must magnitude 0.
    AugOp("Solarize", solarize, identity=256 / 255, strongest=0.0, gradient="straight-through", unit="threshold"),
    AugOp("Posterize", posterize, identity=8.0, strongest=4.0, gradient="straight-through", unit="bits"),
)
