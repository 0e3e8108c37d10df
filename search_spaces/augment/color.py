"""Ops smooth in their amount: each blends the image with a duller version of itself; amount 1 is the image."""

import torch
from kornia.enhance import adjust_brightness_accumulative, adjust_contrast_with_mean_subtraction
from torch import Tensor

from search_spaces.augment.op import AugOp, per_image

# Of kornia's functions adjust_brightness (adds), adjust_contrast (only multiplies) and adjust_saturation (works in HSV)
# do not do what PIL does: they are up to 255, 148 and 74 of 255 levels away. adjust_saturation_with_gray_subtraction
# does, but takes 1.3 times as long as the blend below, and images of one or three channels only.
LUMINANCE = (0.299, 0.587, 0.114)


def brightness(images: Tensor, amount: Tensor) -> Tensor:
    """Blend with black."""
    return adjust_brightness_accumulative(images, amount)


def contrast(images: Tensor, amount: Tensor) -> Tensor:
    """Blend with the flat gray of the image's mean luminance."""
    return adjust_contrast_with_mean_subtraction(images, amount)


def color(images: Tensor, amount: Tensor) -> Tensor:
    """Blend with the gray image; one channel stays as it is."""
    return _blend(_gray(images), images, amount)


def _gray(images: Tensor) -> Tensor:
    # Where there is no RGB, the mean of the channels.
    if images.shape[1] != 3:
        return images.mean(dim=1, keepdim=True)
    red, green, blue = images.split(1, dim=1)
    return LUMINANCE[0] * red + LUMINANCE[1] * green + LUMINANCE[2] * blue


def sharpness(images: Tensor, amount: Tensor) -> Tensor:
    """Blend with PIL's smoothed image: a 3x3 kernel of ones with 5 in the middle, the outermost pixels left alone."""
    if min(images.shape[-2:]) < 3:
        return _blend(images, images, amount)
    # Sums of shifted views: 4 times faster on a CPU than the depthwise convolution of kornia.enhance.sharpness.
    sums = images[..., :-2] + images[..., 1:-1] + images[..., 2:]
    sums = sums[..., :-2, :] + sums[..., 1:-1, :] + sums[..., 2:, :]
    inner = images[..., 1:-1, 1:-1]
    smooth = torch.add(sums, inner, alpha=4) / 13
    sharpened = images.clone()
    sharpened[..., 1:-1, 1:-1] = _blend(smooth, inner, amount)
    return sharpened


def _blend(dull: Tensor, images: Tensor, amount: Tensor) -> Tensor:
    return torch.lerp(dull.expand_as(images), images, per_image(amount)).clamp(0, 1)


COLOR_OPS = tuple(
    AugOp(name, fn, identity=1.0, strongest=1.9, signed=True, gradient="pathwise", unit="factor")
    for name, fn in (("Contrast", contrast), ("Color", color), ("Brightness", brightness), ("Sharpness", sharpness))
)
