"""Applies a finished policy to a batch: one draw per image, without a Python loop over images."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from search_spaces.augment.geometry import warp
from search_spaces.augment.op import AugOp, exactly_at_zero, partner_from, sign_from
from search_spaces.augment.table import op_tables
from search_spaces.errors import InputError
from search_spaces.policy import Policy, PolicyTables

OF_STAGES = ("op", "magnitude", "sign", "position", "partner")  # fields of a draw that have a column for each stage
CHUNK_ELEMENTS = 2**20  # 4 MB of float32


@dataclass(frozen=True)
class PolicyDraw:
    """The random draw of B images at K stages. It can be stored, shared and applied again."""

    sub_policy: Tensor  # (B,) which sub-policy was drawn; (B, D) where a policy draws D times
    op: Tensor  # (B, K) place in OPS, -1 for nothing; stays on the CPU, so that grouping never waits for a GPU
    magnitude: Tensor  # (B, K)
    sign: Tensor  # (B, K)
    position: Tensor  # (B, K, 2)
    partner: Tensor  # (B, K)

    def to(self, device: torch.device) -> "PolicyDraw":
        """The same draw with all but `op` on another device."""
        names = ("sub_policy", "magnitude", "sign", "position", "partner")
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in names})

    def rows(self, part: slice | Tensor) -> "PolicyDraw":
        """The draw of some images, by a slice or their places; partners still point into the whole batch."""
        return PolicyDraw(*(getattr(self, field.name)[part] for field in fields(self)))


def draw_policy(policy: Policy, batch: int, noise: torch.Generator) -> PolicyDraw:
    """Draw a sub-policy, its acting ops and all their randomness for every image, as often as the policy says."""
    tables, draws = policy.tables, policy.draws
    stages = tables.op.shape[1]
    numbers = 1 + (6 if tables.has_ranges else 5) * stages  # of a draw
    uniform = torch.rand(draws * numbers, batch, generator=noise, device=noise.device).cpu()
    found = [_drawn(tables, one) for one in uniform.view(draws, numbers, batch)]
    if draws == 1:
        return found[0]
    joined = {name: torch.cat([getattr(one, name) for one in found], 1) for name in OF_STAGES}
    return PolicyDraw(torch.stack([one.sub_policy for one in found], 1), **joined)


def _drawn(tables: PolicyTables, uniform: Tensor) -> PolicyDraw:
    """One draw for every image by (R, B) uniform numbers."""
    stages = tables.op.shape[1]
    sub_policy = torch.searchsorted(tables.cumulative, uniform[0].double(), right=True)
    sub_policy = sub_policy.clamp_(max=len(tables.cumulative) - 1)  # the last share may round to just below 1
    acts = tables.probability[sub_policy] > uniform[1 : 1 + stages].T  # (B, K)
    op = torch.where(acts, tables.op[sub_policy], -1)
    magnitude = tables.magnitude[sub_policy]
    if tables.has_ranges:
        magnitude = magnitude + tables.span[sub_policy] * uniform[1 + 5 * stages :].T
    return draw_of(sub_policy, op, magnitude, uniform[1 + stages : 1 + 5 * stages])


def draw_of(sub_policy: Tensor, op: Tensor, magnitude: Tensor, uniform: Tensor) -> PolicyDraw:
    """A draw of given ops (B, K) and magnitudes; (4 * K, B) uniform numbers make directions, places and partners."""
    sign, x, y, partner = uniform.reshape(4, op.shape[1], len(op)).transpose(1, 2)  # (B, K) each
    return PolicyDraw(sub_policy, op, magnitude, sign_from(sign), torch.stack([x, y], -1), partner_from(partner))


def apply_draw(images: Tensor, draw: PolicyDraw, pool: Tensor | None = None) -> Tensor:
    """Apply a draw to (B, C, H, W) images, floating point in [0, 1] or uint8; they come back in their own type.

    Differentiable in the draw's magnitudes, and in floating point images. `pool` holds the images that partners point
    into, these by default.
    """
    if not len(images):
        return images
    if not draw.magnitude.requires_grad:
        # At magnitude 0 pixels must stay identical, but a warp by the unit matrix rounds in the last bit.
        idle = (draw.magnitude.cpu() == 0) & op_tables().has_magnitude[draw.op]
        draw = replace(draw, op=torch.where(idle, -1, draw.op))
    pool = images if pool is None else pool
    draw = draw.to(images.device)
    size = _chunk(images)
    if len(images) <= size:
        return _apply_stages(images, pool, draw)
    starts = range(0, len(images), size)
    return torch.cat([_apply_stages(images[s : s + size], pool, draw.rows(slice(s, s + size))) for s in starts])


def apply_policy(policy: Policy, images: Tensor, noise: torch.Generator) -> Tensor:
    """Augment a batch of images, as `apply_draw` takes them: draw a policy for every image, and apply it."""
    check_images(images)
    return apply_draw(images, draw_policy(policy, len(images), noise))


def check_images(images: Tensor) -> None:
    """Refuse the image formats of other libraries, which would be augmented wrongly without an error."""
    if not isinstance(images, Tensor):
        raise InputError(f"images came as {type(images).__name__}; give a torch.Tensor of (B, C, H, W)")
    if images.ndim != 4 or (images.shape[1] > 4 and images.shape[3] in (1, 3, 4)):
        raise InputError(f"images came as shape {tuple(images.shape)}; give (B, C, H, W), channels before rows")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise InputError(f"images came as {images.dtype}; give torch.uint8, or floating point in [0, 1]")
    # On other devices this check would wait for the device.
    if images.is_floating_point() and images.device.type == "cpu" and images.numel() and float(images.amax()) > 2:
        raise InputError(
            f"images reach {float(images.amax()):g}, and floating point images lie in [0, 1]; divide by 255, or give "
            "torch.uint8"
        )


def draw_matrix(draw: PolicyDraw, height: int, width: int) -> Tensor:
    """The motion of points in a draw, as (B, 3, 3) matrices, for `warp`."""
    total = torch.eye(3, device=draw.magnitude.device).repeat(len(draw.op), 1, 1)
    for matrix in stage_matrices(draw, height, width):
        total = matrix @ total
    return total


def stage_matrices(draw: PolicyDraw, height: int, width: int) -> Tensor:
    """The motion of points in each stage of a draw, (K, B, 3, 3); where nothing moves, the unit matrix."""
    found = torch.empty(draw.op.shape[1], len(draw.op), 3, 3, device=draw.magnitude.device)
    for stage in range(draw.op.shape[1]):
        matrices = torch.eye(3, device=draw.magnitude.device).repeat(len(draw.op), 1, 1)
        order = draw.op[:, stage].argsort()
        for op, part in _slices(draw.op[:, stage][order]):
            if op.matrix is not None:
                rows = order[part].to(matrices.device)
                amount = op.amount(draw.magnitude[rows, stage], draw.sign[rows, stage])
                matrices = matrices.index_copy(0, rows, op.matrix(amount, height, width).to(matrices.dtype))
        found[stage] = matrices
    return found


def _chunk(images: Tensor) -> int:
    # On a CPU the images of a chunk stay in its cache: 64 images of 224x224 take 2.4 times as long in one piece.
    if images.device.type != "cpu":
        return len(images)
    return max(1, CHUNK_ELEMENTS // max(1, images[0].numel()))


def _apply_stages(images: Tensor, pool: Tensor, draw: PolicyDraw) -> Tensor:
    changed = _as_float(images)
    amounts = _amounts(draw).to(changed.dtype)
    for stage in range(draw.op.shape[1]):
        if int(draw.op[:, stage].max()) >= 0:
            changed = _apply_stage(changed, pool, draw, amounts, stage)
    return changed.to(images.dtype) if images.is_floating_point() else changed.mul(255).round_().to(images.dtype)


def _as_float(images: Tensor) -> Tensor:
    # Half precision does not distinguish the 8-bit levels of bright pixels, so its images are augmented in float32.
    if images.dtype in (torch.float16, torch.bfloat16):
        return images.float()
    return images if images.is_floating_point() else images / 255


def _apply_stage(images: Tensor, pool: Tensor, draw: PolicyDraw, amounts: Tensor, stage: int) -> Tensor:
    order = draw.op[:, stage].argsort(stable=True)
    op_row = draw.op[:, stage][order]
    rows = order.to(images.device, non_blocking=True)
    amount = amounts[rows, stage]
    learns = draw.magnitude.requires_grad
    places, results = [], []
    warps, matrices = [], []
    for op, part in _slices(op_row):
        if _is_warp(op):
            warps.append(rows[part])
            matrices.append(op.matrix(amount[part], *images.shape[-2:]))  # type: ignore[misc]
            continue
        own = images.index_select(0, rows[part])
        if op.uses == "position":
            result = op.fn(own, amount[part], draw.position[rows[part], stage])
        elif op.uses == "partner":
            result = op.fn(own, amount[part], _as_float(pool[draw.partner[rows[part], stage]]))
        else:
            result = op.fn(own, amount[part])
        if learns and op.has_magnitude:
            result = exactly_at_zero(own, draw.magnitude[rows[part], stage], result)
        places.append(rows[part])
        results.append(result)
    if warps:
        # All shears, shifts and rotations of a stage in one warp: five small ones cost three times as much.
        moved = torch.cat(warps)
        own = images.index_select(0, moved)
        result = warp(own, torch.cat(matrices))
        if learns:
            result = exactly_at_zero(own, draw.magnitude[moved, stage], result)
        places.append(moved)
        results.append(result)
    # Written at once: backward, each writing would copy the gradient of all images.
    return images.index_copy(0, torch.cat(places), torch.cat(results))


def _amounts(draw: PolicyDraw) -> Tensor:
    # AugOp.amount for all images and stages at once: one column of the table for each.
    identity, span, signed = op_tables().scales[:, draw.op].to(draw.magnitude.device, non_blocking=True)
    return identity + torch.where(signed > 0, draw.sign, 1.0) * draw.magnitude * span  # (B, K)


def _is_warp(op: AugOp) -> bool:
    return op.matrix is not None and op.has_magnitude


def _slices(op: Tensor) -> Iterator[tuple[AugOp, slice]]:
    # op is sorted and lives on the CPU; images without an op (-1) come first and are skipped.
    end = 0
    for place, count in enumerate(torch.bincount(op + 1).tolist()):
        start, end = end, end + count
        if place and count:
            yield op_tables().ops[place - 1], slice(start, end)
