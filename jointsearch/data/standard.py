"""The augmentation that is always on, batched on the device: crop and flip, cutout, normalization."""

from dataclasses import dataclass
from math import log
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, pad

from jointsearch.data.objects import Padded
from jointsearch.settings import bounded, check_fields, choice, setting
from search_spaces.errors import InputError

# Fast AutoAugment's policies were searched behind crop and flip and retrained before them; DADA's stay behind them.
ORDERS = ("crop_flip, policy, cutout", "policy, crop_flip, cutout")


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and std
STATISTICS = "of the pixels: one number, one per channel, or imagenet"
TRIES = 10  # of a resized crop, as torchvision has them


@dataclass(frozen=True)
class ResizedCrop:
    """A part of the image, of random size and shape, enlarged to the whole: torchvision's RandomResizedCrop."""

    smallest: float = bounded(0.08, 0.001, 1.0, help="share of the image that a crop has at least")
    ratio: float = bounded(4 / 3, 1.0, 10.0, help="of the longer side of a crop to the shorter one, at most")

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Standard:
    """Always-on augmentation and normalization of a data set; a mean and std of one number serve every channel."""

    crop_padding: int = bounded(0, 0, 4096, help="random crops shift an image by up to so many pixels; 0: no crop")
    flip: bool = setting(False, help="mirror half of the images")
    cutout: int = bounded(0, 0, 4096, help="pixels of a side of the square that is erased; 0: none")
    mean: tuple[float, ...] = setting((0.5,), help=STATISTICS, words={"imagenet": IMAGENET[0]})
    std: tuple[float, ...] = setting((0.25,), help=STATISTICS, words={"imagenet": IMAGENET[1]})
    order: str = choice(ORDERS[0], *ORDERS, help="where the policy acts; normalization comes just before cutout")
    resized_crop: ClassVar[ResizedCrop | None] = None

    def __post_init__(self) -> None:
        check_fields(self)
        if len(self.mean) != len(self.std) or not self.mean:
            raise InputError(
                f"dataset.standard has {len(self.mean)} means and {len(self.std)} stds; give one of each per channel"
            )
        if min(self.std) <= 0:
            raise InputError(f"dataset.standard.std is {list(self.std)}; give numbers above 0")


# A class of its own, so that the named data sets, whose images are small and square, do not show this setting.
@dataclass(frozen=True)
class PhotoStandard(Standard):
    """The same for photos in files, with crops of random size."""

    resized_crop: ResizedCrop | None = setting(  # type: ignore[misc]
        None, help="random crops in place of crop_padding, as in dataset.standard.resized_crop.smallest=0.25"
    )


def random_crop_flip(images: Tensor, standard: Standard, generator: torch.Generator) -> Tensor:
    """Crop each image (B,C,H,W) at its own offset out of its zero-padded self, and mirror each with probability 1/2.

    With `resized_crop` each is a crop of random size instead, enlarged.
    """
    if standard.resized_crop is not None:
        return resized_crop_flip(images, standard.resized_crop, standard.flip, generator)
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


def resized_crop_flip(images: Tensor, crop: ResizedCrop, flip: bool, generator: torch.Generator) -> Tensor:
    """A random part of each image (B,C,H,W), enlarged bilinearly to (H,W), and mirrored with probability 1/2.

    A crop is never larger than the image, so that no antialiasing is needed.
    """
    count, _, height, width = images.shape
    top, left, rows, columns = crop_boxes(count, (height, width), crop, generator)
    y = _places(top, rows, height)  # (B, H)
    x = _places(left, columns, width)  # (B, W)
    if flip:
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        x = torch.where(mirrored, x.flip(1), x)
    grid = torch.stack([x.unsqueeze(1).expand(-1, height, -1), y.unsqueeze(2).expand(-1, -1, width)], -1)
    pixels = images if images.is_floating_point() else images.float()
    grid = grid.to(images.device, pixels.dtype, non_blocking=True)
    found = grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return found if images.is_floating_point() else found.round().to(images.dtype)


def crop_boxes(count: int, size: tuple[int, int], crop: ResizedCrop, generator: torch.Generator) -> Tensor:
    """Top, left, height and width, (4, B), of crops of images of this height and width; drawn as torchvision does."""
    height, width = size
    shares = 1 - (1 - crop.smallest) * torch.rand(count, TRIES, generator=generator)
    ratios = (log(crop.ratio) * (2 * torch.rand(count, TRIES, generator=generator) - 1)).exp()
    rows = (shares * height * width / ratios).sqrt().round()
    columns = (shares * height * width * ratios).sqrt().round()
    fits = (rows >= 1) & (rows <= height) & (columns >= 1) & (columns <= width)
    first = fits.int().argmax(1, keepdim=True)  # (B, 1)
    drawn = fits.any(1)
    # Where no try fits into the image: the largest part in its middle that is not too long.
    rows = torch.where(drawn, rows.gather(1, first).squeeze(1), min(height, round(width * crop.ratio)))
    columns = torch.where(drawn, columns.gather(1, first).squeeze(1), min(width, round(height * crop.ratio)))
    top, left = (
        torch.where(drawn, (torch.rand(count, generator=generator) * (room + 1)).floor(), (room / 2).floor())
        for room in (height - rows, width - columns)
    )
    return torch.stack([top, left, rows, columns])


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


def _places(first: Tensor, length: Tensor, side: int) -> Tensor:
    """Where the pixels of an enlarged side lie in the image, (B, side), from -1 to 1 between its outer borders."""
    first, length = first.unsqueeze(1), length.unsqueeze(1)
    inside = (torch.arange(side) + 0.5) * length / side - 0.5
    # At its borders a crop repeats its own last pixels, and does not look at the image beside it.
    return 2 * (first + inside.clamp(min=0).minimum(length - 1) + 0.5) / side - 1
