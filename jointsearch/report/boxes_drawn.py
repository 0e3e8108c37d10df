"""Pictures of objects: boxes with class and score, and masks, drawn over an image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from jointsearch.data.marked import mask_of
from jointsearch.data.objects import Annotation

# Eight colors that stay apart for most people who see few; class by class in turn.
COLORS = ("#e69f00", "#56b4e9", "#009e73", "#d55e00", "#cc79a7", "#f0e442", "#0072b2", "#ff5c5c")
LEAST_SIDE = 160  # pixels to which small images are enlarged, so that the words can be read


@dataclass(frozen=True)
class Shown:
    """What is drawn over an image, in its pixels."""

    boxes: Tensor  # (n, 4) as x0 y0 x1 y1
    labels: tuple[int, ...]
    words: tuple[str, ...]
    masks: Tensor | None = None  # (n, H, W) bool


def as_marked(annotation: Annotation, classes: Sequence[str], masks: Tensor | None = None) -> Shown:
    """The objects of an image as they are marked."""
    labels = tuple(annotation.labels.tolist())
    return Shown(annotation.boxes.float(), labels, tuple(classes[label] for label in labels), masks)


def as_found(found: Sequence[dict[str, Any]], classes: Sequence[str], size: tuple[int, int]) -> Shown:
    """Detections in COCO's form."""
    boxes = torch.tensor([one["bbox"] for one in found], dtype=torch.float32).reshape(-1, 4)
    labels = tuple(int(one["category_id"]) - 1 for one in found)
    words = tuple(f"{classes[label]} {one['score']:.2f}" for label, one in zip(labels, found, strict=True))
    masks = None
    if found and all("segmentation" in one for one in found):
        masks = torch.stack([torch.from_numpy(mask_of(one["segmentation"], size, "a picture")) for one in found]).bool()
    return Shown(torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1), labels, words, masks)


def draw(image: Tensor, shown: Shown) -> Tensor:
    """An image (3, H, W) uint8 with objects drawn over it; a small one is enlarged."""
    height, width = image.shape[1:]
    factor = max(1, -(-LEAST_SIDE // min(height, width)))
    picture = interpolate(image[None], scale_factor=factor, mode="nearest")[0] if factor > 1 else image
    colors = [COLORS[label % len(COLORS)] for label in shown.labels]
    if shown.masks is not None and len(shown.masks):
        masks = interpolate(shown.masks[None].float(), scale_factor=factor, mode="nearest")[0].bool()
        picture = draw_segmentation_masks(picture, masks, alpha=0.4, colors=colors)
    boxes = (shown.boxes * factor).clamp(min=0)
    limit = torch.tensor([width, height, width, height]) * factor - 1
    boxes = boxes.minimum(limit)
    keep = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(1)
    if not keep.any():
        return picture
    kept = [place for place, one in enumerate(keep.tolist()) if one]
    return draw_bounding_boxes(
        picture,
        boxes[keep],
        labels=[shown.words[place] for place in kept],
        colors=[colors[place] for place in kept],
        width=max(1, min(height, width) * factor // 200),
    )
