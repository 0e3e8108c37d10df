"""A policy as an augmentation of kornia's, for its pipelines: boxes, masks and keypoints move with the pixels."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, NoReturn

import torch
from kornia.augmentation import GeometricAugmentationBase2D
from kornia.constants import Resample
from kornia.geometry.boxes import Boxes
from kornia.geometry.keypoints import Keypoints
from torch import Tensor

from jointsearch.estimators.draw import draw_noise
from jointsearch.estimators.sample import draw_sample
from jointsearch.soft.policy import SoftPolicy
from search_spaces.augment.apply import PolicyDraw, apply_draw, check_images, draw_matrix, draw_policy
from search_spaces.augment.geometry import warp
from search_spaces.augment.table import OPS
from search_spaces.errors import InputError
from search_spaces.policy import Policy


class KorniaPolicy(GeometricAugmentationBase2D):
    """A finished or soft policy as one step of a kornia pipeline; every image has its own draw.

    `AugmentationSequential(KorniaPolicy(policy), data_keys=["input", "bbox_xyxy", "mask", "keypoints"])` changes the
    images as `apply_policy` does, and moves boxes, masks (nearest neighbour) and keypoints by the same draw. Colors and
    Cutout leave them alone. SamplePairing is refused beside them, because the other image brings objects of its own.

    Under a `SoftPolicy` the gradient of the pixels reaches its magnitudes. Which sub-policy and which ops were drawn
    has no gradient through pixels: `sub_policy` and `op` of this module's parameters say what was drawn, and
    `jointsearch.estimators` makes gradients for logits of such draws. Boxes, masks and keypoints are labels and carry
    no gradient. A replay of parameters repeats the draw with the magnitudes of now.

    Draws come from `noise`, or from a generator of this module's own, which starts the same in every run; torch's
    global generator is left alone. `state_dict` holds the generator's state. The policy stays on the CPU, where draws
    are made, and images are changed where they are.
    """

    def __init__(self, policy: Policy | SoftPolicy, noise: torch.Generator | None = None) -> None:
        super().__init__(p=1.0)
        if not isinstance(policy, Policy | SoftPolicy):
            raise InputError(
                f"policy came as {type(policy).__name__}; give a Policy or SoftPolicy, as Policy.load does"
            )
        self.policy = policy
        self.noise = torch.Generator() if noise is None else noise

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> dict[str, Tensor]:
        """What every image is about to undergo: the fields of a `PolicyDraw`."""
        if self.same_on_batch:
            raise InputError("same_on_batch=True asks for one draw, and here every image has its own; leave it out")
        with torch.no_grad():
            draw = self._drawn(batch_shape[0])
        return {field.name: getattr(draw, field.name) for field in fields(draw)}

    def compute_transformation(self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any]) -> Tensor:
        """How points move, (B, 3, 3), in kornia's pixels."""
        with torch.no_grad():
            matrix = draw_matrix(self._draw(params), *input.shape[-2:])
        # Our pixel 0 covers 0 to 1, kornia's is centred at 0.
        half = torch.tensor([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        return (half.inverse() @ matrix @ half).to(input.device, input.dtype, non_blocking=True)

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Change the images."""
        check_images(input)
        return apply_draw(input, self._draw(params))

    def apply_transform_mask(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Move masks stage by stage: what left the image in one does not come back in the next."""
        self._refuse_mixing()
        draw, mode = self._draw(params), flags.get("resample", Resample.NEAREST).name.lower()
        for k in range(draw.op.shape[1]):
            stage = replace(draw, **{name: getattr(draw, name)[:, [k]] for name in ("op", "magnitude", "sign")})
            matrix = draw_matrix(stage, *input.shape[-2:]).detach()
            input = warp(input, matrix.to(input.device, input.dtype, non_blocking=True), mode)
        return input

    def apply_transform_box(
        self, input: Boxes, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Boxes:
        """Move the corners; kornia frames them again."""
        self._refuse_mixing()
        return super().apply_transform_box(input, params, flags, transform)

    def apply_transform_keypoint(
        self, input: Keypoints, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Keypoints:
        """Move the points."""
        self._refuse_mixing()
        return super().apply_transform_keypoint(input, params, flags, transform)

    def inverse_transform(
        self,
        input: Tensor,
        flags: dict[str, Any],
        transform: Tensor | None = None,
        size: tuple[int, int] | None = None,
    ) -> NoReturn:
        """Refuse: boxes and keypoints can be moved back, pixels cannot."""
        raise InputError(
            "a policy cannot be undone in images and masks, whose colors and borders are lost; give inverse() boxes or "
            "keypoints only, as data_keys=['bbox_xyxy']"
        )

    def get_extra_state(self) -> Tensor:
        """The generator's state, for `state_dict`."""
        return self.noise.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Go on drawing where a `state_dict` was made."""
        self.noise.set_state(state.cpu())

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> "KorniaPolicy":
        return self  # what .to() would move is the soft policy, and draws are made on the CPU

    def _drawn(self, batch: int) -> PolicyDraw:
        if isinstance(self.policy, Policy):
            return draw_policy(self.policy, batch, self.noise)
        logits = self.policy.logits()
        sample = draw_sample(logits, draw_noise(logits, batch, "hierarchical", self.noise), "hierarchical")
        return self.policy.draw(sample.sub_policy, sample.acts, self.noise)

    def _draw(self, params: dict[str, Tensor]) -> PolicyDraw:
        draw = PolicyDraw(**{field.name: params[field.name] for field in fields(PolicyDraw)})
        if isinstance(self.policy, SoftPolicy):
            # Kept parameters have no graph: modules that hold one can neither be copied nor pickled.
            return replace(draw, magnitude=self.policy.magnitudes()[draw.sub_policy])
        return draw

    def _refuse_mixing(self) -> None:
        policy = self.policy.start if isinstance(self.policy, SoftPolicy) else self.policy
        acting = (choice for one in policy.sub_policies if one.weight for choice in one.ops if choice.probability)
        if any(OPS[choice.op].uses == "partner" for choice in acting):
            raise InputError(
                "SamplePairing mixes another image in, whose boxes, masks and keypoints would be missing; take it out "
                "of the policy, or give data_keys=['input']"
            )
