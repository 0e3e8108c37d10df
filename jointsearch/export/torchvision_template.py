"""A policy for data augmentation as a torchvision transform. It needs torch and torchvision, nothing else.

    from policy_torchvision import PolicyTransform

    augmented = PolicyTransform()(image)

It takes one image with 1 or 3 channels: a PIL image, or a tensor (C, H, W) of uint8 or of floating point in [0, 1].
Each call draws DRAWS sub-policies, from torch's global generator or from `generator=`. The result is of the same kind
as the input: a PIL image, or a plain tensor of the same type. Place it before normalization. Ops do not round in
between.
"""

import math
from collections.abc import Callable, Sequence

import PIL.Image
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

# (weight, ops) for each sub-policy. Its ops act one after another. Each is an (op, probability, amounts) and takes one
# of the amounts, all equally likely. Units: tangent (shear), share of the side (translate, cutout), degrees (rotate),
# threshold in [0, 1] (solarize), bits (posterize), factor, 1 for no change (contrast, color, brightness, sharpness).
# fmt: off
NAME = "policy"
DRAWS = 1
SUB_POLICIES: list[tuple[float, list[tuple[str, float, list[float]]]]] = [
    (1.0, []),
]
# fmt: on
WEIGHTS = torch.tensor([weight for weight, _ in SUB_POLICIES], dtype=torch.float64)
FILL = (125 / 255, 123 / 255, 114 / 255)

Image = Tensor | PIL.Image.Image
Amount = float | tuple[float, ...] | None


class PolicyTransform(torch.nn.Module):
    """Augments an image by a randomly drawn sub-policy."""

    def forward(self, image: Image, *, generator: torch.Generator | None = None) -> Image:
        """Augment one image; `generator` is a CPU generator."""
        return apply_ops(image, draw_ops(generator))


def draw_ops(generator: torch.Generator | None = None) -> list[tuple[str, Amount]]:
    """Draw DRAWS sub-policies; return their ops that act, with their amounts."""
    drawn: list[tuple[str, Amount]] = []
    for _ in range(DRAWS):
        _, ops = SUB_POLICIES[int(torch.multinomial(WEIGHTS, 1, generator=generator))]
        for op, probability, amounts in ops:
            acts, which, x, y = torch.rand(4, generator=generator).tolist()
            amount: Amount = amounts[int(which * len(amounts))] if amounts else None
            if op == "Cutout":
                amount = (amounts[0], x, y)
            if acts < probability:
                drawn.append((op, amount))
    return drawn


def apply_ops(image: Image, ops: Sequence[tuple[str, Amount]]) -> Image:
    """Apply ops to one image. The amount of Cutout is (side, x, y): the centre of its square as shares of the sides."""
    if isinstance(image, PIL.Image.Image):
        if image.mode not in ("RGB", "L"):
            raise ValueError(f"the image has the mode {image.mode}; wanted RGB or L, use image.convert('RGB')")
        return F.to_pil_image(apply_ops(F.pil_to_tensor(image), ops))
    if image.dim() != 3 or image.shape[0] not in (1, 3):
        raise ValueError(f"the image has the shape {tuple(image.shape)}; wanted (1 or 3, H, W), one image at a time")
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise ValueError(f"the image is of {image.dtype}; wanted torch.uint8, or floating point in [0, 1]")
    changed = image / 255 if image.dtype == torch.uint8 else image.float()
    for op, amount in ops:
        changed = OPS[op](changed, amount)
    return changed.to(image.dtype) if image.is_floating_point() else changed.mul(255).round().to(torch.uint8)


def shear(image: Tensor, x: float, y: float) -> Tensor:
    """Shear about the top left corner."""
    degrees = [math.degrees(math.atan(x)), math.degrees(math.atan(y))]
    return F.affine(image, 0.0, [0, 0], 1.0, degrees, interpolation=InterpolationMode.BILINEAR, center=[0, 0])


def translate(image: Tensor, x: float, y: float) -> Tensor:
    """Shift by shares of the sides, with interpolation."""
    pixels = [x * image.shape[2], y * image.shape[1]]
    return F.affine(image, 0.0, pixels, 1.0, [0.0, 0.0], interpolation=InterpolationMode.BILINEAR)


def on_levels(image: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply an op that works on the 256 levels of an 8-bit image."""
    return change(image.mul(255).round().to(torch.uint8)) / 255


def cutout(image: Tensor, amount: tuple[float, float, float]) -> Tensor:
    """Cover a gray square; a pixel at its border is covered in part."""
    side, x, y = amount
    channels, height, width = image.shape
    half = side * min(height, width) / 2
    covered = coverage(y * height, half, height)[:, None] * coverage(x * width, half, width)
    fill = image.new_tensor(FILL if channels == 3 else [sum(FILL) / 3])[:, None, None]
    return image + covered.to(image) * (fill - image)


def coverage(centre: float, half: float, size: int) -> Tensor:
    """The share of each of `size` pixels that lies between centre - half and centre + half."""
    pixel = torch.arange(size)
    return ((pixel + 1).clamp(max=centre + half) - pixel.clamp(min=centre - half)).clamp(min=0)


OPS: dict[str, Callable[..., Tensor]] = {
    "ShearX": lambda image, amount: shear(image, amount, 0.0),
    "ShearY": lambda image, amount: shear(image, 0.0, amount),
    "TranslateX": lambda image, amount: translate(image, amount, 0.0),
    "TranslateY": lambda image, amount: translate(image, 0.0, amount),
    "Rotate": lambda image, amount: F.rotate(image, amount, InterpolationMode.BILINEAR),
    "HorizontalFlip": lambda image, amount: F.horizontal_flip(image),
    "AutoContrast": lambda image, amount: F.autocontrast(image),
    "Invert": lambda image, amount: F.invert(image),
    "Equalize": lambda image, amount: on_levels(image, F.equalize),
    "Solarize": F.solarize,
    "Posterize": lambda image, amount: on_levels(image, lambda levels: F.posterize(levels, amount)),
    "Contrast": F.adjust_contrast,
    "Color": F.adjust_saturation,
    "Brightness": F.adjust_brightness,
    "Sharpness": F.adjust_sharpness,
    "Cutout": cutout,
}
