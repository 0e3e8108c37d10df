"""Draws sub-policies from a soft policy and augments batches with them."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Generator, Tensor

from jointsearch.data.sets import Batch
from jointsearch.data.standard import Standard
from jointsearch.estimators.draw import Draw, EstimatorSettings, draw_noise
from jointsearch.front_end import augment_with
from jointsearch.soft.mixture import apply_blended
from jointsearch.soft.policy import SoftPolicy
from search_spaces.augment.apply import PolicyDraw, apply_draw

Apply = Callable[..., Tensor]  # images (B, C, H, W) and a PolicyDraw in, images out


@dataclass(frozen=True)
class Augmented:
    """A batch on its way through the policy: one draw for each image, or one for all."""

    draw: Draw
    ops: PolicyDraw
    pixels: Tensor  # (B, C, H, W) before the policy
    changed: Tensor  # after it, differentiable in what is learned through pixels
    images: Tensor  # as the network sees them
    labels: Tensor


class DrawnPolicy:
    """A soft policy, the estimator that draws from it, and the standard augmentation around it.

    `apply` carries out the drawn ops; it decides how magnitudes get a gradient.
    """

    def __init__(
        self,
        soft: SoftPolicy,
        estimator: EstimatorSettings,
        standard: Standard,
        noise: Generator,
        apply: Apply = apply_draw,
    ) -> None:
        self.soft, self.standard, self.noise, self.apply = soft, standard, noise, apply
        self.one_for_batch = estimator.draws == "batch"
        self.estimator = estimator.build(len(soft.visits), soft.stages)

    def augmented(self, train: Batch) -> Augmented:
        """Draw from the soft policy, and augment."""
        batch = len(train.labels)
        logits = self.soft.logits()
        draw = self.estimator(
            logits, draw_noise(logits, 1 if self.one_for_batch else batch, self.estimator.scoring, self.noise)
        )
        acts = draw.acts.expand(batch, -1)
        ops = self.soft.draw(draw.sub_policy.expand(batch), acts, self.noise)
        before: list[Tensor] = []
        after: list[Tensor] = []

        def transform(pixels: Tensor) -> Tensor:
            before.append(pixels)
            after.append(self._changed(pixels, draw, ops, acts))
            return after[0]

        images = augment_with(transform, train.images, self.standard, self.noise)
        return Augmented(draw, ops, before[0], after[0], images, train.labels)

    def _changed(self, pixels: Tensor, draw: Draw, ops: PolicyDraw, acts: Tensor) -> Tensor:
        """The images after the policy."""
        if draw.weights is None:
            return self.apply(pixels, ops)
        # The weights of all sub-policies learn from the gradient of the pixels, also where nothing else does.
        blended = apply_blended(pixels, ops, self.soft.op[ops.sub_policy], acts, self.apply)
        return blended if blended.requires_grad else blended.requires_grad_()
