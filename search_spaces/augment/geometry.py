"""Ops that are a 3x3 matrix: one warp moves pixels, and the same matrix moves boxes and masks.

Matrices act on pixel coordinates in which pixel (column x, row y) covers [x, x+1] x [y, y+1]: its centre is at
(x + 0.5, y + 0.5), and (0, 0) is the top left corner of the image. They map source points to result points.
"""

import math

import torch
import torch.nn.functional as F
from kornia.geometry.transform import hflip
from torch import Tensor

from search_spaces.augment.op import AugOp


def shear_x_matrix(amount: Tensor, height: int, width: int) -> Tensor:
    """Move every row left by amount * y; the top row stays. Direction as in PIL and torchvision."""
    return _matrix(amount, x_from_y=-amount)


def shear_y_matrix(amount: Tensor, height: int, width: int) -> Tensor:
    """Move every column up by amount * x; the left column stays."""
    return _matrix(amount, y_from_x=-amount)


def translate_x_matrix(amount: Tensor, height: int, width: int) -> Tensor:
    """Move right by a share of the width."""
    return _matrix(amount, x_from_one=amount * width)


def translate_y_matrix(amount: Tensor, height: int, width: int) -> Tensor:
    """Move down by a share of the height."""
    return _matrix(amount, y_from_one=amount * height)


def rotate_matrix(amount: Tensor, height: int, width: int) -> Tensor:
    """Turn counter-clockwise (as seen, like PIL) about the centre by an angle in degrees."""
    angle = amount * (math.pi / 180)
    cosine, sine = torch.cos(angle), torch.sin(angle)
    centre_x, centre_y = width / 2, height / 2
    rows = [
        (cosine, sine, centre_x - cosine * centre_x - sine * centre_y),
        (-sine, cosine, centre_y + sine * centre_x - cosine * centre_y),
    ]
    matrix = _matrix(amount)
    return torch.cat([torch.stack([torch.stack(row, -1) for row in rows], 1), matrix[:, 2:]], 1)


def flip_matrix(amount: Tensor, height: int, width: int) -> Tensor:
    """Mirror left and right."""
    matrix = _matrix(amount)
    matrix[:, 0, 0], matrix[:, 0, 2] = -1, width
    return matrix


def _matrix(
    amount: Tensor,
    x_from_y: Tensor | None = None,
    x_from_one: Tensor | None = None,
    y_from_x: Tensor | None = None,
    y_from_one: Tensor | None = None,
) -> Tensor:
    zero, one = torch.zeros_like(amount), torch.ones_like(amount)
    entries = [one, x_from_y, x_from_one, y_from_x, one, y_from_one, None, None, one]
    return torch.stack([zero if entry is None else entry for entry in entries], -1).reshape(-1, 3, 3)


def warp(images: Tensor, matrix: Tensor, mode: str = "bilinear") -> Tensor:
    """Move the pixels of (B, C, H, W) images by (B, 3, 3) matrices; black outside. Masks need mode "nearest"."""
    height, width = images.shape[-2:]
    # The affine part of a matrix [[a, b, c], [d, e, f]] has the inverse [[e, -b], [-d, a]] / (ae - bd): closed form,
    # because a batched torch.linalg.inv costs more than the whole warp of a 32x32 batch.
    (a, b, c), (d, e, f) = matrix[:, 0].unbind(-1), matrix[:, 1].unbind(-1)
    scale = 2 / (a * e - b * d)
    inverse = torch.stack([e, -b, b * f - c * e, -d, a, c * d - a * f]) * scale
    sides = torch.tensor([width, height]).to(matrix.device, non_blocking=True).reshape(2, 1, 1, 1, 1)
    # Positions in grid_sample's unit, 2 p / size - 1, built by broadcasting: F.affine_grid takes 5 times longer here.
    from_x, from_y, from_one = (inverse.reshape(2, 3, -1, 1, 1) / sides).unbind(1)
    x = torch.arange(width, device=matrix.device, dtype=matrix.dtype).add_(0.5)
    y = torch.arange(height, device=matrix.device, dtype=matrix.dtype).add_(0.5).reshape(-1, 1)
    grid = (from_x * x + (from_y * y + (from_one - 1))).to(images.dtype)  # (2, B, H, W)
    return F.grid_sample(images, grid.permute(1, 2, 3, 0), mode=mode, padding_mode="zeros", align_corners=False)


def _warped_by(matrix_of):  # type: ignore[no-untyped-def]
    def fn(images: Tensor, amount: Tensor) -> Tensor:
        return warp(images, matrix_of(amount, *images.shape[-2:]))

    return fn


def _mirrored(images: Tensor, amount: Tensor) -> Tensor:
    return hflip(images)


def _geometric(name: str, matrix, strongest: float, unit: str) -> AugOp:  # type: ignore[no-untyped-def]
    return AugOp(
        name,
        _warped_by(matrix),
        identity=0.0,
        strongest=strongest,
        signed=True,
        gradient="pathwise",
        unit=unit,
        matrix=matrix,
    )


GEOMETRIC_OPS = (
    _geometric("ShearX", shear_x_matrix, 0.3, "tangent"),
    _geometric("ShearY", shear_y_matrix, 0.3, "tangent"),
    _geometric("TranslateX", translate_x_matrix, 0.45, "share of width"),
    _geometric("TranslateY", translate_y_matrix, 0.45, "share of height"),
    _geometric("Rotate", rotate_matrix, 30.0, "degrees"),
    AugOp("HorizontalFlip", _mirrored, matrix=flip_matrix),
)
