"""A policy as one picture: a row for each sub-policy, a column for each image, amounts in the ops' own units."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from jointsearch.data.decode import Form, resize_square
from jointsearch.data.files import IMAGE_SUFFIXES, is_ignored, name_bytes, read_file
from search_spaces.augment.apply import apply_policy
from search_spaces.augment.table import OPS
from search_spaces.errors import InputError
from search_spaces.policy import OpChoice, Policy, SubPolicy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_ROWS = 25
MAX_IMAGES = 32
MAX_NAME = 60
IMAGES = 8

# Squares (left, top, side) of scikit-learn's two photos: a pagoda above a lake, a dahlia before dark leaves.
PHOTO_SQUARES = (
    ((60, 20, 300), (175, 235, 190), (70, 70, 150), (430, 130, 210)),
    ((160, 75, 290), (213, 0, 427), (235, 150, 140), (330, 180, 180)),
)

# Lengths in pixels of the picture, and a font's 0.72 points are one of them at 100 dots an inch.
CELL, GAP, MARGIN, LINE, HEADER, MIN_WIDTH = 96, 6, 24, 20, 96, 800
NAME_AT, PROBABILITY_AT, AMOUNT_AT, IMAGES_AT = 80, 196, 252, 400
DOTS, POINTS = 100, 0.72
INK, FAINT = "#1c1c1c", "#8c8c8c"

# Units of AugOp as they are written beside a row: the amount is multiplied, then formatted.
UNITS = {
    "tangent": (1, "{:.2f} slope"),
    "share of width": (100, "{:.0f} % of width"),
    "share of height": (100, "{:.0f} % of height"),
    "degrees": (1, "{:.1f} degrees"),
    "factor": (1, "x {:.2f}"),
    "threshold": (255, "from level {:.0f}"),
    "bits": (1, "{:.0f} bits"),
    "share of the shorter side": (100, "{:.0f} % of the side"),
    "weight of the other image": (100, "{:.0f} % of another"),
}


def contact_sheet(policy: Policy, images: Tensor, noise: torch.Generator, rows: int | None = None) -> "Figure":
    """The policy on (M, C, H, W) uint8 images: the originals, then the `rows` heaviest sub-policies (default 25)."""
    if images.dtype != torch.uint8 or images.dim() != 4 or not 0 < len(images) <= MAX_IMAGES:
        got = f"{tuple(images.shape)} {images.dtype}"
        raise InputError(f"a contact sheet got images {got}; give 1 to {MAX_IMAGES} uint8 images as (M, C, H, W)")
    numbers = heaviest(policy, MAX_ROWS if rows is None else rows)
    chosen = [policy.sub_policies[n] for n in numbers]
    strips = [images, *(apply_policy(Policy((_alone(sub_policy),)), images, noise) for sub_policy in chosen)]
    cells = torch.stack([_cells(strip) for strip in strips])  # (rows, M, height, width, 3 or 1)
    pitch = max(cells.shape[2], LINE * max(len(sub_policy.ops) for sub_policy in chosen)) + GAP
    figure, axes = _canvas(cells, pitch)
    _write_title(axes, policy, len(chosen))
    _write(axes, NAME_AT, HEADER + pitch / 2, "original", color=FAINT)
    for row, (n, sub_policy) in enumerate(zip(numbers, chosen, strict=True), start=1):
        _write_row(axes, HEADER + (row + 0.5) * pitch, n, sub_policy, _share(policy, sub_policy))
    return figure


def heaviest(policy: Policy, rows: int) -> list[int]:
    """The places of the `rows` heaviest sub-policies; among equals they are spread evenly over the policy."""
    if rows < 1:
        raise InputError(f"a contact sheet got rows={rows}; give 1 or more")
    weights = [sub_policy.weight for sub_policy in policy.sub_policies]
    if rows >= len(weights):
        return list(range(len(weights)))
    cut = sorted(weights, reverse=True)[rows - 1]
    above = [n for n, weight in enumerate(weights) if weight > cut]
    equal = [n for n, weight in enumerate(weights) if weight == cut]
    return above + [equal[i] for i in evenly_spread(len(equal), rows - len(above))]


def amount_text(choice: OpChoice) -> str:
    """What an op does at its magnitude, in its own unit; both directions where one is drawn for every image."""
    if choice.magnitude is None:
        return ""
    least, greatest = (_amount_at(choice.op, magnitude) for magnitude in choice.magnitudes)
    if least == greatest:
        return least
    if OPS[choice.op].signed and choice.magnitudes[0] == 0:
        return f"up to {greatest}"
    return f"{least} to {greatest.removeprefix('from level ')}"


def _amount_at(name: str, magnitude: float) -> str:
    op = OPS[name]
    if op.identity is None or op.strongest is None:
        return ""
    scale, form = UNITS.get(op.unit, (1, "{:.3g} " + op.unit))
    step = magnitude * (op.strongest - op.identity)
    if not op.signed:
        return form.format(scale * (op.identity + step))
    if op.identity == 0:
        return "±" + form.format(scale * step)
    if step == 0:
        return form.format(scale * op.identity)
    return f"{form.format(scale * (op.identity - step))} or {scale * (op.identity + step):.2f}"


def check_picture(path: Path | str) -> None:
    """Refuse a file that cannot be a picture of ours."""
    path = Path(path)
    if path.suffix.lower() != ".png" or path.is_dir() or not path.parent.is_dir():
        raise InputError(f"picture {path} cannot be written; give a name that ends in .png, in a folder that exists")


def write_contact_sheet(
    policy: Policy, images: Tensor, path: Path | str, seed: int = 0, rows: int | None = None
) -> None:
    """Write the contact sheet as a PNG file."""
    check_picture(path)
    figure = contact_sheet(policy, images, torch.Generator().manual_seed(seed), rows)
    figure.savefig(path)


def photo_images() -> Tensor:
    """Eight colorful squares of two photos that come with scikit-learn, (8, 3, 96, 96) uint8."""
    # Imported here, as below: scikit-learn takes seconds to import.
    from sklearn.datasets import load_sample_images

    photos = [torch.tensor(photo).permute(2, 0, 1) for photo in load_sample_images().images]
    squares = [
        resize_square(photo[:, top : top + side, left : left + side], CELL)
        for photo, places in zip(photos, PHOTO_SQUARES, strict=True)
        for left, top, side in places
    ]
    return torch.stack(squares)


def folder_images(folder: Path | str, count: int = IMAGES) -> Tensor:
    """Up to `count` images of a folder and the folders in it, spread evenly, as (M, 3, 96, 96) uint8."""
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"images {folder} is not a folder; give a folder of images, or use dataset= for a data set")
    found = [path for path in (*root.glob("*"), *root.glob("*/*")) if path.suffix.lower() in IMAGE_SUFFIXES]
    files = sorted((path for path in found if not is_ignored(path.name)), key=lambda path: name_bytes(str(path)))
    if not files:
        raise InputError(f"images {folder} holds no image file; give a folder with {', '.join(IMAGE_SUFFIXES)} files")
    picked = [files[n] for n in evenly_spread(len(files), count)]
    form = Form(CELL, channels=3)
    return torch.stack([form.decode(read_file(path, str(path)), str(path)) for path in picked])


def evenly_spread(total: int, count: int) -> list[int]:
    """Up to `count` of the places 0, ..., total - 1, at equal distances."""
    count = min(count, total)
    return [int((i + 0.5) * total / count) for i in range(count)]


def _alone(sub_policy: SubPolicy) -> SubPolicy:
    return SubPolicy(sub_policy.ops)  # a weight of 0 could not be drawn


def _share(policy: Policy, sub_policy: SubPolicy) -> str:
    weights = [each.weight for each in policy.sub_policies]
    return "" if len(set(weights)) == 1 else f"{sub_policy.weight / sum(weights):.1%}"


def _cells(images: Tensor) -> Tensor:
    """The images as they are shown: (M, height, width, 3 or 1), small ones enlarged by whole factors."""
    color = images if images.shape[1] in (1, 3) else images.float().mean(1, keepdim=True).to(torch.uint8)
    longest = max(images.shape[-2:])
    if longest <= CELL:
        factor = CELL // longest
        sized = color.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    else:
        size = [max(1, round(side * CELL / longest)) for side in images.shape[-2:]]
        sized = interpolate(color, size, mode="bilinear", antialias=True)
    return sized.permute(0, 2, 3, 1).cpu()


def _canvas(cells: Tensor, pitch: int) -> "tuple[Figure, Axes]":
    # Imported here: needed only where a picture is made. Figure keeps no global state, unlike pyplot.
    from matplotlib.figure import Figure

    rows, count, height, width, _ = cells.shape
    total_width = max(MIN_WIDTH, IMAGES_AT + count * (width + GAP) - GAP + MARGIN)
    total_height = HEADER + rows * pitch - GAP + MARGIN
    paper = torch.full((total_height, total_width, 3), 255, dtype=torch.uint8)
    for row in range(rows):
        top = HEADER + row * pitch + (pitch - GAP - height) // 2
        for column in range(count):
            left = IMAGES_AT + column * (width + GAP)
            paper[top : top + height, left : left + width] = cells[row, column]
    figure = Figure(figsize=(total_width / DOTS, total_height / DOTS), dpi=DOTS)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.imshow(np.asarray(paper), extent=(0, total_width, total_height, 0), interpolation="none", aspect="auto")
    return figure, axes


def _write_title(axes: "Axes", policy: Policy, rows: int) -> None:
    count = len(policy.sub_policies)
    weighted = len({sub_policy.weight for sub_policy in policy.sub_policies}) > 1
    text = (
        "1 sub-policy" if count == 1 else f"{count} sub-policies, " + ("weighted" if weighted else "all equally likely")
    )
    if policy.draws > 1:
        text += f", {policy.draws} drawn for each image"
    if rows < count:
        chosen = (
            f"the {rows} heaviest of {count}, evenly spaced among equals"
            if weighted
            else f"{rows} of {count}, evenly spaced"
        )
        text += f": {chosen}"
    name = policy.name if len(policy.name) <= MAX_NAME else policy.name[:MAX_NAME] + "..."
    _write(axes, MARGIN, 30, name, fontsize=19 * POINTS, weight="bold")
    _write(axes, MARGIN, 54, text, color=FAINT)
    legend = "p is the chance that the op acts; it and the direction, ± or either factor, are drawn for every image"
    _write(axes, MARGIN, 73, legend, color=FAINT)


def _write_row(axes: "Axes", middle: float, number: int, sub_policy: SubPolicy, share: str) -> None:
    _write(axes, MARGIN, middle - (8 if share else 0), str(number), color=FAINT)
    _write(axes, MARGIN, middle + 9, share, color=FAINT, fontsize=11 * POINTS)
    if not sub_policy.ops:
        _write(axes, NAME_AT, middle, "nothing", color=FAINT)
    for k, choice in enumerate(sub_policy.ops):
        y = middle + (k - (len(sub_policy.ops) - 1) / 2) * LINE
        _write(axes, NAME_AT, y, choice.op, weight="bold")
        _write(axes, PROBABILITY_AT, y, f"p {choice.probability:.2f}")
        _write(axes, AMOUNT_AT, y, amount_text(choice))


def _write(axes: "Axes", x: float, y: float, text: str, **style: Any) -> None:
    style = {"color": INK, "fontsize": 13 * POINTS, "va": "center_baseline", **style}
    # Names come out of files: `$` would start a formula.
    axes.text(x, y, text.replace("$", r"\$"), **style)
