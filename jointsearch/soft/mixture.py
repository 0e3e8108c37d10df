"""Gradients of a draw through pixels, in the acting bits, the weights of sub-policies, and the magnitudes."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from jointsearch.soft.policy import SoftPolicy
from search_spaces.augment.apply import PolicyDraw, apply_draw
from search_spaces.augment.op import per_image

# Images per call when every sub-policy is applied to every image: enough to use all cores, little memory.
CHUNK_IMAGES = 4096


def apply_blended(
    images: Tensor, draw: PolicyDraw, op: Tensor, acts: Tensor, apply: Callable[[Tensor, PolicyDraw, Tensor], Tensor]
) -> Tensor:
    """`apply_draw`, differentiable in `acts` (B, K): each stage is acts * op(images) + (1 - acts) * images.

    `op` (B, K) also names the ops that do not act; `apply` is apply_draw or pushed.
    """
    changed = images
    for stage in range(op.shape[1]):
        only = replace(draw, op=op[:, stage : stage + 1], **_stage(draw, stage))
        share = per_image(acts[:, stage]).to(images.device)
        changed = changed + share * (apply(changed, only, images) - changed)
    return changed


def pushed(images: Tensor, draw: PolicyDraw, pool: Tensor | None = None) -> Tensor:
    """`apply_draw` with DADA's gradient (Eq. 10): each magnitude has slope 1 in every pixel, not the true slope."""
    changed = apply_draw(images, replace(draw, magnitude=draw.magnitude.detach()), pool)
    acting = torch.where(draw.op >= 0, draw.magnitude, 0.0).sum(1).to(changed.device)  # (B,)
    return changed + per_image(acting - acting.detach())


@torch.no_grad()
def candidate_scores(soft: SoftPolicy, images: Tensor, draw: PolicyDraw, acts: Tensor, gradient: Tensor) -> Tensor:
    """<gradient_i, image i under sub-policy n> as (B, N): the slope of an objective in the weight of each sub-policy.

    `acts` (B, N, K) says which ops of each sub-policy act; directions and places are those of the draw.
    """
    batch, sub_policies = acts.shape[:2]
    magnitudes = soft.magnitudes()  # (N, K)
    together = max(1, CHUNK_IMAGES // batch)
    scores = []
    for first in range(0, sub_policies, together):
        rows = torch.arange(first, min(first + together, sub_policies))
        count = len(rows)
        op = torch.where(acts[:, rows] > 0, soft.op[rows], -1).transpose(0, 1).flatten(0, 1)  # (n * B, K)
        shift = torch.arange(count).repeat_interleave(batch).unsqueeze(1) * batch
        many = PolicyDraw(
            rows.repeat_interleave(batch),
            op,
            magnitudes[rows].repeat_interleave(batch, 0),
            draw.sign.repeat(count, 1),
            draw.position.repeat(count, 1, 1),
            draw.partner.repeat(count, 1) + shift,
        )
        changed = apply_draw(images.repeat(count, 1, 1, 1), many).unflatten(0, (count, batch))
        scores.append((changed * gradient).flatten(2).sum(2).T)  # (B, n)
    return torch.cat(scores, 1)


def _stage(draw: PolicyDraw, stage: int) -> dict[str, Tensor]:
    names = ("magnitude", "sign", "position", "partner")
    return {name: getattr(draw, name)[:, stage : stage + 1] for name in names}
