"""Augment images with objects: what moves pixels moves boxes and masks, and objects that are gone are left out."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from jointsearch.data.objects import Objects, Padded, tight_boxes
from jointsearch.data.sets import Batch
from jointsearch.data.standard import ORDERS, Standard, normalize
from jointsearch.protocols import Moment
from search_spaces.augment.apply import PolicyDraw, apply_draw, draw_policy
from search_spaces.augment.objects import acting, check_moves_objects, move_masks, move_objects
from search_spaces.errors import InputError
from search_spaces.policy import Policy
from search_spaces.schedule import PolicySchedule

LEAST_VISIBLE = 0.25  # an object of which less is left is not marked any more
LEAST_SIDE = 1.0  # pixels that a side of a moved box has at least


class WithPolicyOnObjects:
    """Flip, the policy of the epoch, and normalization; all images of one size at once."""

    def __init__(self, policy: Policy | PolicySchedule, standard: Standard) -> None:
        check_moves_objects(policy)
        for name in ("crop_padding", "cutout"):
            if getattr(standard, name):
                raise InputError(
                    f"dataset.standard.{name} is {getattr(standard, name)}, and would hide objects that stay marked; "
                    "set it to 0 for a detector"
                )
        self.policy, self.standard = policy, standard

    def __call__(self, batch: Batch, network: nn.Module, at: Moment, noise: torch.Generator) -> Batch:
        """The batch as it is trained on."""
        policy = self.policy if isinstance(self.policy, Policy) else self.policy.at(at.epoch)
        images: Padded = batch.images
        objects: Objects = batch.labels
        mirrored = torch.rand(len(images), generator=noise) < 0.5
        if not self.standard.flip:
            mirrored = torch.zeros(len(images), dtype=torch.bool)
        draw = draw_policy(policy, len(images), noise)
        pixels = torch.zeros(images.pixels.shape, device=images.pixels.device)
        boxes, labels = objects.boxes.clone(), objects.labels.clone()
        masks = None if objects.masks is None else torch.zeros_like(objects.masks)
        for (h, w), places in images.groups():
            part = _Part(images.pixels[places, :, :h, :w] / 255, boxes[places], labels[places], None)
            if objects.masks is not None:
                part.masks = objects.masks[places, :, :h, :w]
            if self.standard.order == ORDERS[0]:
                part.mirror(mirrored[places])
                part.move(draw.rows(places))
            else:
                part.move(draw.rows(places))
                part.mirror(mirrored[places])
            pixels[places, :, :h, :w] = normalize(part.pixels, self.standard)
            boxes[places], labels[places] = part.boxes, part.labels
            if masks is not None and part.masks is not None:
                masks[places, :, :h, :w] = part.masks
        changed = replace(objects, boxes=boxes, labels=labels, masks=masks)
        return Batch(Padded(pixels, images.sizes), changed, batch.index)


class _Part:
    """The images of one size with their objects, on their way."""

    def __init__(self, pixels: Tensor, boxes: Tensor, labels: Tensor, masks: Tensor | None) -> None:
        self.pixels, self.boxes, self.labels, self.masks = pixels, boxes, labels, masks

    def mirror(self, rows: Tensor) -> None:
        """Mirror some of the images left and right."""
        rows = rows.to(self.pixels.device)
        x0, y0, x1, y1 = self.boxes.unbind(-1)
        width = self.pixels.shape[-1]
        self.boxes = torch.where(rows[:, None, None], torch.stack([width - x1, y0, width - x0, y1], -1), self.boxes)
        self.pixels = torch.where(rows[:, None, None, None], self.pixels.flip(-1), self.pixels)
        if self.masks is not None:
            self.masks = torch.where(rows[:, None, None, None], self.masks.flip(-1), self.masks)

    def move(self, draw: PolicyDraw) -> None:
        """Apply a draw, and leave out the objects that it pushed out or covered."""
        self.pixels = apply_draw(self.pixels, draw)
        rows = acting(draw).nonzero().flatten()
        if not len(rows):
            return
        draw = draw.rows(rows)
        moved = move_objects(self.boxes[rows], draw, *self.pixels.shape[-2:])
        boxes, visible = moved.boxes, moved.visible
        if self.masks is not None:
            before = self.masks[rows].sum((2, 3)).clamp(min=1)
            masks = move_masks(self.masks[rows], draw)
            tight, empty = tight_boxes(masks)
            # Around what is left of the object itself: a box around a turned box has room to spare.
            boxes = torch.where(empty[..., None], boxes, tight)
            visible = visible.minimum(masks.sum((2, 3)) / before)
            self.masks = self.masks.index_copy(0, rows.to(masks.device), masks)
        gone = (visible < LEAST_VISIBLE) | ((boxes[..., 2:] - boxes[..., :2]) < LEAST_SIDE).any(-1)
        self.boxes[rows], self.labels[rows] = boxes, self.labels[rows].masked_fill(gone, -1)
