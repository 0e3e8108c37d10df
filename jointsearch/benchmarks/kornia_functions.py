"""The function of kornia that comes closest to each op, called with our images and amounts."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from kornia import enhance
from kornia.geometry import bbox, transform
from torch import Tensor

from search_spaces.augment.erase import FILL
from search_spaces.augment.op import AugOp, per_image
from search_spaces.augment.quantized import TIE


@dataclass(frozen=True)
class Counterpart:
    """A function of kornia, and a call of it with the arguments of an op's own function."""

    function: Callable[..., Any]
    call: Callable[..., Tensor]  # (images, amount), (images, amount, position) or (images, amount, partners)

    @property
    def name(self) -> str:
        """Where kornia's users find it."""
        package = self.function.__module__.split(".")[1]
        return f"{package}.{self.function.__name__}"


def uses(op: AugOp, function: Callable[..., Any], arguments: tuple[Tensor, ...]) -> bool:
    """Whether an op's own function, called with these arguments, calls a function of kornia."""
    called = []

    def note(frame: FrameType, event: str, argument: object) -> None:
        called.append(frame.f_code is function.__code__)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        op.fn(*arguments)
    finally:
        sys.setprofile(before)
    return any(called)


def _sheared(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    # kornia.geometry.transform.shear turns the other way and keeps the pixel at (0, 0), PIL the corner of the image.
    corner = torch.full((len(images), 2), -0.5, dtype=images.dtype, device=images.device)
    matrix = transform.get_shear_matrix2d(corner, torch.atan(x), torch.atan(y))
    return transform.warp_affine(images, matrix[:, :2], images.shape[-2:], align_corners=False)


def _shifted(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    pixels = torch.stack([x * images.shape[-1], y * images.shape[-2]], -1)
    return transform.translate(images, pixels, align_corners=False)


def _erased(images: Tensor, amount: Tensor, position: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    half = amount * min(height, width) / 2
    x, y = position[:, 0] * width - 0.5, position[:, 1] * height - 0.5
    corners = [(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)]
    square = bbox.bbox_to_mask(torch.stack([torch.stack(corner, -1) for corner in corners], 1), width, height)
    grays = FILL if images.shape[1] == 3 else (sum(FILL) / 3,)
    fill = torch.stack([images.new_full((), gray) for gray in grays]).reshape(1, -1, 1, 1)
    return torch.where(square[:, None] > 0, fill, images)


COUNTERPARTS = {
    "ShearX": Counterpart(transform.warp_affine, lambda images, amount: _sheared(images, amount, 0 * amount)),
    "ShearY": Counterpart(transform.warp_affine, lambda images, amount: _sheared(images, 0 * amount, amount)),
    "TranslateX": Counterpart(transform.translate, lambda images, amount: _shifted(images, amount, 0 * amount)),
    "TranslateY": Counterpart(transform.translate, lambda images, amount: _shifted(images, 0 * amount, amount)),
    "Rotate": Counterpart(
        transform.rotate, lambda images, amount: transform.rotate(images, amount, align_corners=False)
    ),
    "HorizontalFlip": Counterpart(transform.hflip, lambda images, amount: transform.hflip(images)),
    "AutoContrast": Counterpart(enhance.normalize_min_max, lambda images, amount: enhance.normalize_min_max(images)),
    # Without its own maximum, invert copies one from the CPU.
    "Invert": Counterpart(enhance.invert, lambda images, amount: enhance.invert(images, images.new_ones(()))),
    "Equalize": Counterpart(enhance.equalize, lambda images, amount: enhance.equalize(images)),
    "Solarize": Counterpart(enhance.solarize, lambda images, amount: enhance.solarize(images, amount - TIE)),
    "Posterize": Counterpart(enhance.posterize, lambda images, amount: enhance.posterize(images, amount.round())),
    "Contrast": Counterpart(
        enhance.adjust_contrast_with_mean_subtraction, enhance.adjust_contrast_with_mean_subtraction
    ),
    "Color": Counterpart(
        enhance.adjust_saturation_with_gray_subtraction, enhance.adjust_saturation_with_gray_subtraction
    ),
    "Brightness": Counterpart(enhance.adjust_brightness_accumulative, enhance.adjust_brightness_accumulative),
    "Sharpness": Counterpart(enhance.sharpness, enhance.sharpness),
    "Cutout": Counterpart(bbox.bbox_to_mask, _erased),
    "SamplePairing": Counterpart(
        enhance.add_weighted,
        lambda images, amount, partners: enhance.add_weighted(
            images, 1 - per_image(amount), partners, per_image(amount), 0.0
        ),
    ),
}
