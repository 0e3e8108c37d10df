"""What becomes of the objects of an image under a draw: boxes and masks move with the pixels, and some leave.

    moved = move_objects(boxes, draw, height, width)   # boxes (B, M, 4) as x0 y0 x1 y1 in pixels
    masks = move_masks(masks, draw)                    # (B, M, H, W)

An op that moves pixels cuts off what it pushes out of the image, and a later one cannot bring it back. So what is left
of a box is its own moved rectangle within the moved frames of all stages: a convex region.
"""

from dataclasses import dataclass, replace
from itertools import combinations

import torch
from torch import Tensor

from search_spaces.augment.apply import PolicyDraw, apply_draw, stage_matrices
from search_spaces.augment.table import OPS, op_tables
from search_spaces.errors import InputError
from search_spaces.policy import Policy
from search_spaces.schedule import PolicySchedule

TOLERANCE = 1e-3  # pixels by which a corner may lie outside of a line that goes through it


@dataclass(frozen=True)
class MovedBoxes:
    """Boxes after a draw."""

    boxes: Tensor  # (B, M, 4) the upright box around what is left of each
    visible: Tensor  # (B, M) the share of each that is left: neither pushed out of the image nor covered


def check_moves_objects(policy: Policy | PolicySchedule) -> None:
    """Refuse a policy with an op that puts another image's objects into an image."""
    policies = (policy,) if isinstance(policy, Policy) else [one for _, one in policy.spans]
    ops = {choice.op for one in policies for sub_policy in one.sub_policies for choice in sub_policy.ops}
    mixing = sorted(name for name in ops if OPS[name].uses == "partner")
    if mixing:
        raise InputError(
            f"policy {policies[0].name or 'of this run'} uses {', '.join(mixing)}, which mixes in another image "
            "without its objects; give a policy without it"
        )


def acting(draw: PolicyDraw) -> Tensor:
    """Which images of a draw have an op that moves or covers objects (B,), on the CPU."""
    touches = torch.tensor([*(op.matrix is not None or op.uses == "position" for op in op_tables().ops), False])
    return touches[draw.op].any(1)


def move_objects(boxes: Tensor, draw: PolicyDraw, height: int, width: int) -> MovedBoxes:
    """Move the boxes (B, M, 4) of images of one size as `apply_draw` moves and covers their pixels."""
    matrices = stage_matrices(draw.to(boxes.device), height, width)  # (K, B, 3, 3)
    later = [torch.eye(3, device=boxes.device).expand(len(boxes), 3, 3)]  # what happens after each stage, last first
    for matrix in matrices.flip(0):
        later.append(later[-1] @ matrix)
    frame = torch.tensor([0.0, 0.0, width, height]).to(boxes, non_blocking=True).expand(len(boxes), 1, 4)
    frames = [_moved_corners(frame, matrix) for matrix in later[:-1]]
    region = torch.stack(
        [_moved_corners(boxes, later[-1]), *(one.expand(-1, boxes.shape[1], 4, 2) for one in frames)], 2
    )
    left, area = _intersection(region)
    for stage, square in _covered(draw, height, width):
        moved = _moved_corners(square.to(boxes, non_blocking=True)[:, None], later[len(matrices) - 1 - stage])
        covered = torch.cat([region, moved.expand(-1, boxes.shape[1], 4, 2)[:, :, None]], 2)
        # Squares of two stages may overlap; what both cover counts twice, so that an object rather goes than stays.
        area = area - _intersection(covered)[1]
    whole = _area(region[:, :, 0])
    return MovedBoxes(left, (area / whole.clamp(min=1e-12)).clamp(0, 1))


def move_masks(masks: Tensor, draw: PolicyDraw) -> Tensor:
    """Move masks (B, M, H, W), of any type, as the pixels below them; a pixel belongs to what covers half of it."""
    count, objects, height, width = masks.shape
    geometric = torch.tensor([*(op.matrix is not None for op in op_tables().ops), False])
    each = draw.rows(torch.arange(count).repeat_interleave(objects))
    each = replace(each, op=torch.where(geometric[each.op], each.op, -1))
    moved = apply_draw(masks.reshape(-1, 1, height, width).float(), each)
    return (moved.reshape(masks.shape) >= 0.5).to(masks.dtype)


def _covered(draw: PolicyDraw, height: int, width: int) -> list[tuple[int, Tensor]]:
    """Of each stage with an op that covers a square, the squares (B, 4); empty ones where it did not act."""
    found = []
    for stage in range(draw.op.shape[1]):
        squares = torch.zeros(len(draw.op), 4)
        for place, op in enumerate(op_tables().ops):
            rows = (draw.op[:, stage] == place).nonzero().flatten()
            if op.uses == "position" and len(rows):
                amount = op.amount(draw.magnitude[rows, stage].cpu(), draw.sign[rows, stage].cpu())
                half = amount[:, None] * min(height, width) / 2
                centre = draw.position[rows, stage].cpu() * torch.tensor([width, height])
                squares[rows] = torch.cat([centre - half, centre + half], 1)
        if squares.any():
            found.append((stage, squares))
    return found


def _moved_corners(boxes: Tensor, matrix: Tensor) -> Tensor:
    """The corners (B, M, 4, 2), in their order around the box, of boxes (B, M, 4) moved by matrices (B, 3, 3)."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    corners = torch.stack([torch.stack(one, -1) for one in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))], -2)
    return torch.einsum("bij,bmkj->bmki", matrix[:, :2, :2], corners) + matrix[:, None, None, :2, 2]


def _intersection(shapes: Tensor) -> tuple[Tensor, Tensor]:
    """The upright box (B, M, 4) around what Q convex quadrangles (B, M, Q, 4, 2) share, and its area (B, M).

    Its corners are among the points where two of their 4 Q edges meet: those that lie in all quadrangles.
    """
    start, end = shapes.flatten(2, 3), shapes.roll(-1, 3).flatten(2, 3)  # (B, M, 4Q, 2)
    along = end - start
    normal = torch.stack([-along[..., 1], along[..., 0]], -1)
    normal = normal / normal.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    middle = shapes.mean(3, keepdim=True).expand_as(shapes).flatten(2, 3)
    normal = normal * ((middle - start) * normal).sum(-1, keepdim=True).sign()  # points inwards, also when mirrored
    offset = (start * normal).sum(-1)
    pairs = torch.tensor(list(combinations(range(start.shape[2]), 2)))
    first, second = pairs.to(shapes.device, non_blocking=True).T
    (a, b), (c, d) = normal[:, :, first].unbind(-1), normal[:, :, second].unbind(-1)
    divisor = a * d - b * c  # 0 for parallel edges, which meet nowhere
    scaled = 1 / torch.where(divisor.abs() < 1e-6, torch.inf, divisor)
    x = (d * offset[:, :, first] - b * offset[:, :, second]) * scaled
    y = (a * offset[:, :, second] - c * offset[:, :, first]) * scaled
    points = torch.stack([x, y], -1)  # (B, M, P, 2)
    inside = torch.einsum("bmpi,bmei->bmpe", points, normal) - offset[:, :, None] >= -TOLERANCE
    corner = inside.all(-1) & (divisor.abs() >= 1e-6)
    low = points.masked_fill(~corner[..., None], torch.inf).amin(2)
    high = points.masked_fill(~corner[..., None], -torch.inf).amax(2)
    empty = ~corner.any(-1, keepdim=True)
    box = torch.cat([low, high], -1).masked_fill(empty, 0)
    return box, _area(_around(points, corner))


def _around(points: Tensor, corner: Tensor) -> Tensor:
    """The corners among points (B, M, P, 2) in their order around the polygon; the others repeat the first one."""
    found = corner[..., None]
    middle = (points * found).nan_to_num().sum(2, keepdim=True) / found.sum(2, keepdim=True).clamp(min=1)
    x, y = (points - middle).unbind(-1)
    angle = torch.atan2(y, x).masked_fill(~corner, torch.inf)
    order = angle.argsort(-1)
    ordered = points.gather(2, order[..., None].expand_as(points))
    known = corner.gather(2, order)[..., None]
    return torch.where(known, ordered, ordered[:, :, :1]).masked_fill(~known.any(2, keepdim=True), 0)


def _area(corners: Tensor) -> Tensor:
    """The area of polygons (..., P, 2)."""
    x, y = (corners - corners[..., :1, :]).unbind(-1)
    return (x * y.roll(-1, -1) - y * x.roll(-1, -1)).sum(-1).abs() / 2
