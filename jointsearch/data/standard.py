"""The augmentation that is always on, batched on the device: crop and flip, cutout, normalization."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from jointsearch.data.objects import Padded
from jointsearch.settings import bounded, check_fields, choice, setting
from search_spaces.errors import InputError

# Fast AutoAugment's policies were searched behind crop and flip and retrained before them; DADA's stay behind them.
ORDERS = ("crop_flip, policy, cutout", "policy, crop_flip, cutout")


@dataclass(frozen=True)
class Standard:
    """Always-on augmentation and normalization of a data set; a mean and std of one number serve every channel."""

    crop_padding: int = bounded(0, 0, 4096, help="random crops shift an image by up to so many pixels; 0: no crop")
    flip: bool = setting(False, help="mirror half of the images")
    cutout: int = bounded(0, 0, 4096, help="pixels of a side of the square that is erased; 0: none")
    mean: tuple[float, ...] = setting((0.5,), help="of the pixels: one number, or one per channel")
    std: tuple[float, ...] = setting((0.25,), help="of the pixels: one number, or one per channel")
    order: str = choice(ORDERS[0], *ORDERS, help="where the policy acts; normalization comes just before cutout")

    def __post_init__(self) -> None:
        check_fields(self)
        if len(self.mean) != len(self.std) or not self.mean:
            raise InputError(
                f"dataset.standard has {len(self.mean)} means and {len(self.std)} stds; give one of each per channel"
            )
        if min(self.std) <= 0:
            raise InputError(f"dataset.standard.std is {list(self.std)}; give numbers above 0")


def random_crop_flip(images: Tensor, standard: Standard, generator: torch.Generator) -> Tensor:
    """Crop each image (B,C,H,W) at its own offset out of its zero-padded self, and mirror each with probability 1/2."""
    if not standard.crop_padding and not standard.flip:
        return images
    count, channels, height, width = images.shape
    padding = standard.crop_padding
    offsets = torch.randint(2 * padding + 1, (2, count, 1), generator=generator)
    rows = offsets[0] + torch.arange(height)  # (B, H)
    columns = offsets[1] + torch.arange(width)  # (B, W)
    if standard.flip:
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    padded = pad(images, (padding, padding, padding, padding))
    rows = rows.to(images.device, non_blocking=True).view(count, 1, height, 1).expand(-1, channels, -1, padded.shape[3])
    columns = columns.to(images.device, non_blocking=True).view(count, 1, 1, width).expand(-1, channels, height, -1)
    return padded.gather(2, rows).gather(3, columns)


def cutout(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Zero a square of this size in each image (B,C,H,W), centred at a uniform pixel and clipped at the borders.

    Meant for normalized images, where zero is the mean color.
    """
    if not size:
        return images
    count, _, height, width = images.shape
    if size > min(height, width):
        raise InputError(f"cutout of {size} px on images of {height}x{width} px; set dataset.standard.cutout smaller")
    centers = torch.rand(2, count, 1, generator=generator)
    rows = _inside(centers[0], size, height).to(images.device, non_blocking=True).view(count, 1, height, 1)
    columns = _inside(centers[1], size, width).to(images.device, non_blocking=True).view(count, 1, 1, width)
    return images.masked_fill(rows & columns, 0)


def normalize(images: Tensor, standard: Standard) -> Tensor:
    """Float images (B,C,H,W) with the data set's mean removed and its std divided out; uint8 counts 255 as 1."""
    channels = images.shape[1]
    if len(standard.mean) not in (1, channels):
        raise InputError(
            f"dataset.standard.mean has {len(standard.mean)} numbers and the images have {channels} channels; "
            "give dataset.standard.mean and dataset.standard.std one number, or one per channel"
        )
    pixels = images / 255 if images.dtype == torch.uint8 else images
    mean = torch.tensor(standard.mean).to(images.device, non_blocking=True).view(1, -1, 1, 1)
    std = torch.tensor(standard.std).to(images.device, non_blocking=True).view(1, -1, 1, 1)
    return (pixels - mean) / std


def normalized(images: Tensor | Padded, standard: Standard) -> Tensor | Padded:
    """Normalized images as a set gives them; what is added to images of different sizes stays 0, the mean color."""
    if isinstance(images, Padded):
        return images.map(lambda pixels: normalize(pixels, standard))
    return normalize(images, standard)


def _inside(center: Tensor, size: int, side: int) -> Tensor:
    """Which pixels of a side each square covers, (B, side), from one uniform number in [0,1) per image."""
    first = (center * side).long() - size // 2
    pixels = torch.arange(side)
    return (pixels >= first) & (pixels < first + size)
