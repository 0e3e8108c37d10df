"""Every op beside the function of kornia that comes closest: error against PIL, seconds, and which is used."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image, ImageOps
from timm.data import auto_augment as timm_ops
from torch import Tensor

from jointsearch.benchmarks.augmentation import photographs
from jointsearch.benchmarks.contracts import Function, broken_promises, gradients, op_arguments
from jointsearch.benchmarks.kornia_functions import COUNTERPARTS, uses
from jointsearch.benchmarks.timing import time_in_turn
from search_spaces.augment.op import AugOp
from search_spaces.augment.table import OPS

MOST = 1.1  # what kornia's function may cost, as a multiple of ours
SIZES = {32: 128, 224: 16}  # pixels of a side, and images in a batch
LARGER = 0.1  # levels of mean error against PIL that make a difference
_warped = {"resample": Image.Resampling.BILINEAR}

# (picture, amount, the other picture) -> picture. PIL negates the shifts. It has no square that covers parts of pixels.
PIL_OPS: dict[str, Callable[[Image.Image, float, Image.Image], Image.Image]] = {
    "ShearX": lambda picture, amount, _: timm_ops.shear_x(picture, amount, **_warped),
    "ShearY": lambda picture, amount, _: timm_ops.shear_y(picture, amount, **_warped),
    "TranslateX": lambda picture, amount, _: timm_ops.translate_x_rel(picture, -amount, **_warped),
    "TranslateY": lambda picture, amount, _: timm_ops.translate_y_rel(picture, -amount, **_warped),
    "Rotate": lambda picture, amount, _: timm_ops.rotate(picture, amount, **_warped),
    "HorizontalFlip": lambda picture, amount, _: ImageOps.mirror(picture),
    "AutoContrast": lambda picture, amount, _: timm_ops.auto_contrast(picture),
    "Invert": lambda picture, amount, _: timm_ops.invert(picture),
    "Equalize": lambda picture, amount, _: timm_ops.equalize(picture),
    "Solarize": lambda picture, amount, _: timm_ops.solarize(picture, amount * 255),
    "Posterize": lambda picture, amount, _: timm_ops.posterize(picture, round(amount)),
    "Contrast": lambda picture, amount, _: timm_ops.contrast(picture, amount),
    "Color": lambda picture, amount, _: timm_ops.color(picture, amount),
    "Brightness": lambda picture, amount, _: timm_ops.brightness(picture, amount),
    "Sharpness": lambda picture, amount, _: timm_ops.sharpness(picture, amount),
    "SamplePairing": lambda picture, amount, other: Image.blend(picture, other, amount),
}


@dataclass(frozen=True)
class Error:
    """Distance from PIL's pictures, in levels of 255."""

    largest: float
    mean: float
    flat: float  # the largest on pictures of one color

    def __str__(self) -> str:
        flat = f", flat {self.flat:.0f}" if self.flat else ""
        return f"{self.largest:.0f} ({self.mean:.3f}){flat}"


@dataclass(frozen=True)
class OpRow:
    """One op, ours and kornia's."""

    op: str
    function: str
    used: bool  # our op calls kornia's function
    broken: tuple[str, ...]  # promises
    gradients: tuple[str, ...]
    errors: tuple[Error, Error] | None
    seconds: dict[tuple[int, bool], tuple[float, float]]  # (side, with backward) -> (ours, kornia's)

    @property
    def ratios(self) -> list[float]:
        """Kornia's seconds as multiples of ours: forward and with backward, small and large."""
        return [theirs / ours for ours, theirs in self.seconds.values()]

    @property
    def verdict(self) -> str:
        """Which is used, and why not kornia's."""
        if self.used:
            return "kornia"
        reasons = list(self.broken)
        if self.errors is not None:
            ours, theirs = self.errors
            if theirs.mean > ours.mean + LARGER:
                reasons.append(f"{theirs.mean - ours.mean:.2g} levels further from PIL")
            if theirs.flat > ours.flat:
                reasons.append(f"a flat picture is {theirs.flat:.0f} levels from PIL's")
        if max(self.ratios) > MOST:
            reasons.append(f"costs up to {max(self.ratios):.1f} times as much")
        return f"ours: {'; '.join(reasons) or 'for no reason, use that of kornia'}"


def ops_table(rounds: int, block_seconds: float = 0.1) -> str:
    """All rows as Markdown; distances as largest (mean), milliseconds and ratios as forward / with backward."""
    head = ["op", "kornia's function", "off PIL, ours", "off PIL, kornia", "kornia's gradient to"]
    head += [f"ms at {side} px, ours" for side in SIZES] + [f"kornia / ours at {side} px" for side in SIZES] + ["used"]
    lines = [_line(head), _line("---" for _ in head)]
    return "\n".join(lines + [_line(_cells(row)) for row in compare_ops(rounds, block_seconds)])


def compare_ops(rounds: int, block_seconds: float = 0.1, names: Iterable[str] = tuple(OPS)) -> list[OpRow]:
    """Measure ops, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [_row(OPS[name], rounds, block_seconds) for name in names]
    finally:
        torch.set_num_threads(threads)


def errors(op: AugOp, functions: tuple[Function, Function]) -> tuple[Error, Error] | None:
    """How far two functions are from PIL, with the same amounts: a magnitude for every image, both directions."""
    if op.name not in PIL_OPS:
        return None
    found: tuple[list[Tensor], list[Tensor]] = ([], [])
    for side, batch in SIZES.items():
        images = photographs(batch, side)
        inside = _inside(op, functions, images)
        for levels, function in zip(found, functions, strict=True):
            levels.append((_through(function, op, images) - _through_pil(op, images)).abs()[inside])
    flat = torch.tensor([0, 1, 100, 254, 255], dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 3, 16, 16)
    inside = _inside(op, functions, flat)
    of_flat = [(_through(function, op, flat) - _through_pil(op, flat)).abs()[inside].max() for function in functions]
    photos = [torch.cat(levels) for levels in found]
    ours, theirs = (Error(float(p.max()), float(p.mean()), float(f)) for p, f in zip(photos, of_flat, strict=True))
    return ours, theirs


def _row(op: AugOp, rounds: int, block_seconds: float) -> OpRow:
    counterpart = COUNTERPARTS[op.name]
    theirs = counterpart.call
    arguments = op_arguments(op, photographs(4, 32).float() / 255)
    return OpRow(
        op.name,
        counterpart.name,
        uses(op, counterpart.function, arguments),
        tuple(broken_promises(op, theirs)),
        gradients(op, theirs),
        errors(op, (op.fn, theirs)),
        _seconds(op, theirs, rounds, block_seconds),
    )


def _seconds(
    op: AugOp, theirs: Function, rounds: int, block_seconds: float
) -> dict[tuple[int, bool], tuple[float, float]]:
    seconds = {}
    for side, batch in SIZES.items():
        arguments = op_arguments(op, photographs(batch, side).float() / 255)
        for backward, run in ((False, _forward), (True, _forward_and_backward)):
            calls = {name: partial(run, f, arguments) for name, f in (("ours", op.fn), ("theirs", theirs))}
            timed = time_in_turn(calls, rounds, block_seconds)
            seconds[side, backward] = timed["ours"], timed["theirs"]
    return seconds


@torch.no_grad()
def _forward(function: Function, arguments: tuple[Tensor, ...]) -> None:
    function(*arguments)


def _forward_and_backward(function: Function, arguments: tuple[Tensor, ...]) -> None:
    images, amount = (argument.detach().requires_grad_() for argument in arguments[:2])
    changed = function(images, amount, *arguments[2:])
    if changed.requires_grad:
        changed.sum().backward()


def _through(function: Function, op: AugOp, images: Tensor) -> Tensor:
    return function(*op_arguments(op, images.float() / 255)).mul(255).round()


def _through_pil(op: AugOp, images: Tensor) -> Tensor:
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    amounts = op_arguments(op, images.float() / 255)[1].tolist()
    changed = map(PIL_OPS[op.name], pictures, amounts, pictures[::-1])  # the partners of op_arguments
    return torch.stack([torch.from_numpy(np.array(picture)).permute(2, 0, 1) for picture in changed]).float()


def _inside(op: AugOp, functions: tuple[Function, Function], images: Tensor) -> Tensor:
    # PIL's warps end in whole pixels, ours and kornia's in shares of them: compared is what all three see.
    white = torch.full_like(images, 255)
    if op.matrix is None:
        return white > 0
    seen = [_through(function, op, white) == 255 for function in functions]
    return seen[0] & seen[1] & (_through_pil(op, white) == 255)


def _cells(row: OpRow) -> list[str]:
    errors = ["-", "-"] if row.errors is None else [str(error) for error in row.errors]
    cells = [row.op, f"`{row.function}`", *errors, ", ".join(row.gradients) or "none"]
    for side in SIZES:
        cells.append(" / ".join(f"{row.seconds[side, backward][0] * 1000:.2f}" for backward in (False, True)))
    for side in SIZES:
        pairs = (row.seconds[side, backward] for backward in (False, True))
        cells.append(" / ".join(f"{theirs / ours:.2f}" for ours, theirs in pairs))
    return [*cells, row.verdict]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
