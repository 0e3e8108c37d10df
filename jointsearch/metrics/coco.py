"""COCO's average precision of boxes and masks, computed by faster-coco-eval."""

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from jointsearch.data.files import shown
from jointsearch.data.marked import coco_masks, run_lengths
from jointsearch.data.objects import Annotation, Objects
from search_spaces.errors import InputError

# The figures of COCO's table, by their place in it.
STATS = {"AP": 0, "AP50": 1, "AP75": 2, "AP_small": 3, "AP_medium": 4, "AP_large": 5, "AR100": 8}
MASK_CHUNK = 32  # masks that are drawn at once


class AveragePrecision:
    """AP over IoU .50 to .95 in percent. Beside it AP50, AP75, by size, of each class, and the same of masks.

    Boxes and masks are compared in pixels of the files. A figure of which there is no object is left out.
    """

    name = "AP"
    unit = "%"
    higher_is_better = True

    def __init__(self, device: torch.device) -> None:
        coco_masks()
        self._truth: list[Annotation] = []
        self._found: list[dict[str, Any]] = []
        self._classes: tuple[str, ...] = ()
        self._curves: dict[str, list[float]] = {}

    def update(self, outputs: Sequence[Mapping[str, Tensor]], labels: Objects) -> None:
        """Take in the detections of a batch."""
        self._classes = labels.classes
        for found, annotation, size in zip(outputs, labels.annotations, labels.sizes.tolist(), strict=True):
            identity = len(self._truth) + 1
            self._truth.append(annotation)
            self._found += detections(found, annotation.size, (size[0], size[1]), identity)

    def compute(self) -> dict[str, float]:
        """The figures of all images so far."""
        masks = any(annotation.outlines is not None for annotation in self._truth)
        figures = self._figures("bbox", "")
        return figures | (self._figures("segm", "mask_") if masks else {})

    def details(self, classes: Sequence[str]) -> dict[str, Any]:
        """What a report draws: the detections as COCO writes them, and precision at 101 recalls, of each class."""
        images = [
            {"id": place, "file_name": shown(one.file), "height": one.size[0], "width": one.size[1]}
            for place, one in enumerate(self._truth, start=1)
        ]
        found = {"detections": self._found, "precision_at_iou_50": self._curves}
        return {"classes": list(classes), "images": images, **found}

    def _figures(self, kind: str, prefix: str) -> dict[str, float]:
        truth = coco_truth(self._truth, self._classes, kind == "segm")
        evaluated = evaluate_coco(truth, self._found, kind)
        figures = {
            f"{prefix}{name}": float(evaluated.stats[place]) * 100
            for name, place in STATS.items()
            if evaluated.stats[place] >= 0
        }
        figures.setdefault(f"{prefix}AP", 0.0)
        precision = evaluated.eval["precision"]  # (IoU, recall, class, size, most detections)
        for place, name in enumerate(self._classes):
            known = precision[:, :, place, 0, -1]
            if known.size and (known > -1).any():
                figures[f"{prefix}AP/{name}"] = float(known[known > -1].mean()) * 100
                if not prefix:
                    self._curves[name] = [round(max(float(value), 0.0), 4) for value in known[0]]
        return figures


def detections(
    found: Mapping[str, Tensor], size: tuple[int, int], scaled: tuple[int, int], identity: int
) -> list[dict[str, Any]]:
    """What a detector found in an image, as COCO writes it, in pixels of the file; `scaled` is the size that it saw."""
    (height, width), (h, w) = size, scaled
    scale = torch.tensor([width / w, height / h], dtype=torch.float64).repeat(2)
    boxes = found["boxes"].detach().cpu().double() * scale
    boxes = boxes.clamp(min=0).minimum(torch.tensor([width, height]).repeat(2))
    sides = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
    scores, labels = found["scores"].detach().float().cpu().tolist(), found["labels"].cpu().tolist()
    rows = [
        {"image_id": identity, "category_id": label + 1, "bbox": [round(side, 3) for side in box], "score": score}
        for box, label, score in zip(sides.tolist(), labels, scores, strict=True)
    ]
    if "masks" in found:
        for row, drawn in zip(rows, _drawn(found["masks"], boxes.float(), size), strict=True):
            row["segmentation"] = drawn
    return rows


def _drawn(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> list[dict[str, Any]]:
    """Masks (n, 1, 28, 28) within their boxes as run lengths of the whole image."""
    drawn: list[dict[str, Any]] = []
    for first in range(0, len(masks), MASK_CHUNK):
        part = slice(first, first + MASK_CHUNK)
        whole = paste_masks_in_image(masks[part].detach().float().cpu(), boxes[part], size)[:, 0] >= 0.5
        for mask in whole.numpy():
            runs = coco_masks().encode(np.asfortranarray(mask.astype(np.uint8)))
            counts = runs["counts"]
            drawn.append({"size": list(size), "counts": counts.decode() if isinstance(counts, bytes) else counts})
    return drawn


def coco_truth(annotations: Sequence[Annotation], classes: Sequence[str], masks: bool) -> dict[str, Any]:
    """Annotations in the form of COCO; images and categories count from 1."""
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for place, one in enumerate(annotations, start=1):
        images.append({"id": place, "height": one.size[0], "width": one.size[1]})
        for row, (x0, y0, x1, y1) in enumerate(one.boxes.tolist()):
            marked = {
                "id": len(objects) + 1,
                "image_id": place,
                "category_id": int(one.labels[row]) + 1,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": float(one.areas[row]),
                "iscrowd": int(one.crowd[row]),
            }
            if masks and one.outlines is not None:
                marked["segmentation"] = run_lengths(one.outlines[row], one.size, one.name)
            objects.append(marked)
    categories = [{"id": place, "name": name} for place, name in enumerate(classes, start=1)]
    return {"info": {}, "images": images, "annotations": objects, "categories": categories}


def evaluate_coco(truth: dict[str, Any], found: Sequence[dict[str, Any]], kind: str) -> Any:
    """COCO's evaluation of detections, "bbox" or "segm": `stats` has the twelve figures, `eval` the curves."""
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise InputError(f"detection needs faster-coco-eval ({error}); pip install 'jointsearch[detection]'") from None
    with contextlib.redirect_stdout(io.StringIO()):
        # It writes into the records.
        annotated = COCO({**truth, "annotations": [dict(one) for one in truth["annotations"]]})
        evaluated = COCOeval_faster(annotated, annotated.loadRes([dict(one) for one in found]), kind)
        evaluated.evaluate()
        evaluated.accumulate()
        evaluated.summarize()
    evaluated.stats = [value if math.isfinite(value) else -1.0 for value in map(float, evaluated.stats)]
    return evaluated
