"""Objects as an annotation file marks them, checked one by one; and the images that they lie in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jointsearch.data.decode import decode_image
from jointsearch.data.files import Entry, Finding, Listing, shown
from jointsearch.data.objects import Annotation, Outline, Picture, scaled, size_within
from search_spaces.errors import InputError

ROUNDING = 1.0  # pixels by which a box may stick out of its image; annotation tools round


@dataclass(frozen=True)
class Marked:
    """One object of an image: its place in the file for messages, its class by number, its box x0 y0 x1 y1."""

    place: str
    label: int
    box: tuple[float, float, float, float]
    crowd: bool = False
    area: float | None = None  # that of the box where no other is given
    outline: Outline | None = None


@dataclass(frozen=True)
class MarkedFiles:
    """One split of a data set before anything is decoded."""

    entries: tuple[Entry, ...]
    annotations: tuple[Annotation, ...]


@dataclass(frozen=True)
class FoundObjects:
    """The splits of a data set with objects, its classes, and all that is wrong or odd."""

    splits: dict[str, MarkedFiles]
    classes: tuple[str, ...]
    problems: tuple[Finding, ...]


@dataclass(frozen=True)
class Strictness:
    """What is done with boxes that cannot be used, and where that is written down."""

    drop: bool  # leave them out; else they are errors
    problems: list[Finding]


def annotation(
    names: tuple[str, str], size: tuple[int, int], objects: Sequence[Marked], masks: bool, strict: Strictness
) -> Annotation:
    """What is marked in one image. `names` are those of where it is marked and of the image."""
    drop, problems = strict.drop, strict.problems
    kept = []
    for one in objects:
        wrong, box = _checked(one.box, size)
        if wrong and box is None:
            remedy = "left out" if drop else "mend or remove it, or set dataset.drop_boxes=true, which leaves it out"
            problems.append(Finding("warning" if drop else "error", one.place, f"{wrong}; {remedy}"))
        elif wrong:
            problems.append(Finding("warning", one.place, wrong))
        if box is not None:
            kept.append(replace(one, box=box))
    boxes = torch.tensor([one.box for one in kept], dtype=torch.float64).reshape(-1, 4)
    own = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    areas = torch.tensor([math.nan if one.area is None else one.area for one in kept], dtype=torch.float64)
    return Annotation(
        *names,
        size,
        boxes,
        torch.tensor([one.label for one in kept], dtype=torch.int64),
        torch.tensor([one.crowd for one in kept], dtype=torch.bool),
        torch.where(areas.isnan(), own, areas),
        tuple(one.outline for one in kept if one.outline is not None) if masks else None,
    )


def _checked(box: Sequence[float], size: tuple[int, int]) -> tuple[str, Any]:
    """What is wrong with a box, if anything, and the box within its image; None where nothing is left of it."""
    (x0, y0, x1, y1), (height, width) = box, size
    said = f"the box [{x0:g}, {y0:g}, {x1:g}, {y1:g}]"
    if x1 <= x0 or y1 <= y0:
        return f"{said} has no size", None
    inside = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
    if inside[2] <= inside[0] or inside[3] <= inside[1]:
        return f"{said} lies outside of its image of {width}x{height}", None
    out = max(-x0, -y0, x1 - width, y1 - height)
    return f"{said} sticks out of its image of {width}x{height}; it is cut off" if out > ROUNDING else "", inside


def problems_of(listing: Listing, used: Sequence[str]) -> list[Finding]:
    """The problems of a listing that concern the files or folders that are used; a folder ends with a slash."""
    root = shown(f"{listing.root}/")
    return [
        problem
        for problem in listing.problems
        if any(problem.file.removeprefix(root).startswith(shown(name)) for name in used)
    ]


@dataclass(frozen=True)
class FileSource:
    """Pictures decoded from files, at the size at which they are trained on."""

    entries: tuple[Entry, ...]
    annotations: tuple[Annotation, ...]
    shorter: int | None
    longer: int | None

    def size(self, row: int) -> tuple[int, int]:
        """Height and width of this picture, without reading it."""
        return size_within(self.annotations[row].size, self.shorter, self.longer)

    def read(self, row: int) -> Picture:
        """The picture of this row."""
        marked = self.annotations[row]
        pixels = decode_image(self.entries[row].read(), marked.name, 3)
        if tuple(pixels.shape[1:]) != marked.size:
            (h, w), (height, width) = pixels.shape[1:], marked.size
            turned = " (it is stored turned, by EXIF, and is shown upright)" if (w, h) == (height, width) else ""
            raise InputError(
                f"{marked.name} has {w}x{h} pixels{turned} and its annotation says {width}x{height}, so that its boxes "
                "may be anywhere; correct the annotation or the image"
            )
        masks = None if marked.outlines is None else masks_of(marked)
        return scaled(Picture(pixels, marked, masks), self.size(row))


def masks_of(marked: Annotation) -> Tensor:
    """The masks (n, h, w) of an annotation, at the size of its file."""
    height, width = marked.size
    drawn = [mask_of(outline, marked.size, marked.name) for outline in marked.outlines or ()]
    return torch.from_numpy(np.stack(drawn)).bool() if drawn else torch.zeros(0, height, width, dtype=torch.bool)


def mask_of(outline: Outline, size: tuple[int, int], name: str) -> np.ndarray:
    """The mask (h, w) of an outline, uint8."""
    try:
        return coco_masks().decode(run_lengths(outline, size, name))
    except InputError:
        raise
    except Exception as error:  # written in C, it raises whatever it likes
        raise _undrawable(name, error) from error


def check_outline(outline: Outline, size: tuple[int, int], name: str) -> None:
    """Raise InputError for a mask that cannot be drawn, or is of another size."""
    height, width = size
    if isinstance(outline, list) and any(
        not (-width <= x <= 2 * width and -height <= y <= 2 * height)
        for polygon in outline
        for x, y in zip(polygon[::2], polygon[1::2], strict=True)
    ):
        raise InputError(f"{name} has a polygon far outside of its image of {width}x{height}; mend its segmentation")
    if not isinstance(outline, list) and mask_of(outline, size, name).shape != size:
        raise InputError(f"{name} has a mask of another size than its image of {width}x{height}; mend its segmentation")


def run_lengths(outline: Outline, size: tuple[int, int], name: str) -> dict[str, Any]:
    """An outline as compressed run lengths, as COCO's tools take them."""
    try:
        if isinstance(outline, list):
            return coco_masks().merge(coco_masks().frPyObjects(outline, *size))
        if isinstance(outline["counts"], list):
            return coco_masks().frPyObjects(outline, *size)
        return outline
    except Exception as error:
        raise _undrawable(name, error) from error


def _undrawable(name: str, error: Exception) -> InputError:
    return InputError(f"{name} has a mask that cannot be drawn ({type(error).__name__}); mend its segmentation")


def coco_masks() -> Any:
    """The mask functions of faster-coco-eval."""
    try:
        from faster_coco_eval import mask
    except ImportError as error:
        raise InputError(
            f"detection needs the package faster-coco-eval ({error}); install it with "
            "pip install 'jointsearch[detection]'"
        ) from None
    return mask
