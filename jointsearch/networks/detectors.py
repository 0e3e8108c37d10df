"""torchvision's detectors on any backbone: RetinaNet, Faster R-CNN and Mask R-CNN with a feature pyramid.

    settings = RetinaNet(channels=64)
    detector = settings.build(maps, classes=3, shorter=120)

Anchors follow the images: the finest one has a side of `smallest` pixels, and levels are added until an anchor covers
half of an image. On images of 800 pixels and more that gives the anchors and levels of the published detectors.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models import detection as torchvision_detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign

from jointsearch.data.objects import Objects, Padded
from jointsearch.networks.features import PROBE, FeatureMaps
from jointsearch.networks.pyramid import Pyramid, PyramidShape, norm_layer, smallest_anchor
from jointsearch.settings import bounded, check_fields, choice
from search_spaces.errors import InputError

NORMS = ("group", "none")
BATCH_NORM = ("train", "frozen")
CHANNELS = bounded(256, 8, 4096, help="of the feature pyramid")
NORM = choice("group", *NORMS, help="normalization in pyramid and heads; none as published, for pretrained backbones")
FROZEN_STAGES = bounded(0, 0, 16, help="finest maps of the backbone whose weights stay as they are")
BATCH_NORM_MODE = choice("train", *BATCH_NORM, help="BatchNorm of the backbone; frozen keeps statistics and weights")
REGIONS = bounded(512, 8, 4096, help="regions of each image that the second stage learns from")
SMALLEST = bounded(None, 2, 512, help="side in pixels of the smallest anchor; null: 8, 16 or 32 by the images' size")


class DetectorSettings(Protocol):
    """Settings of a detector: a frozen dataclass that builds it."""

    name: ClassVar[str]
    masks: ClassVar[bool]  # whether it learns masks

    def build(self, maps: FeatureMaps, classes: int, shorter: int) -> nn.Module:
        """The detector for images whose shorter side has so many pixels."""


class Unscaled(GeneralizedRCNNTransform):
    """Puts images into one batch. It does not scale or normalize them, because the data set and augmenter do."""

    def __init__(self) -> None:
        super().__init__(1, 1, [0.0], [1.0])

    def normalize(self, image: Tensor) -> Tensor:
        """The image as it is: the augmenter normalizes it."""
        return image

    def resize(self, image: Tensor, target: Any = None) -> Any:
        """The image as it is: the data set scales it, with its boxes."""
        return image, target

    def postprocess(self, result: Any, image_shapes: Any, original_image_sizes: Any) -> Any:
        """The detections as they are: boxes in pixels of the scaled image, masks of 28x28 within their boxes."""
        return result


class Detector(nn.Module):
    """A torchvision detector that takes `Padded` images and `Objects`; parts of its backbone may stay frozen."""

    def __init__(
        self, model: nn.Module, maps: FeatureMaps, background: bool, frozen_stages: int, batch_norm: str
    ) -> None:
        super().__init__()
        model.transform = Unscaled()
        self.model = model
        self._maps = (maps,)  # not a second child: its weights are those of the model
        self.background = int(background)  # classes that the model counts before ours
        freeze(maps, frozen_stages, batch_norm)

    def train(self, mode: bool = True) -> "Detector":
        """As torch's; BatchNorm whose weights are frozen keeps its statistics too."""
        super().train(mode)
        keep_frozen(self)
        return self

    def forward(self, images: Padded, objects: Objects | None = None) -> Any:
        """Losses by name where objects are given; else boxes, labels, scores and masks of each image."""
        with self._maps[0].alone_in_bf16(images.pixels):
            if objects is not None:
                return self.model(images.each(), self._targets(objects))
            found = self.model(images.each())
        return [one | {"labels": one["labels"] - self.background} for one in found]

    def _targets(self, objects: Objects) -> list[dict[str, Tensor]]:
        targets = []
        for row, labels in enumerate(objects.labels):
            here = labels >= 0
            target = {"boxes": objects.boxes[row][here], "labels": labels[here] + self.background}
            if objects.masks is not None:
                target["masks"] = objects.masks[row][here].to(torch.uint8)
            targets.append(target)
        return targets


@dataclass(frozen=True)
class RetinaNet:
    """RetinaNet (Lin et al. 2017): one stage, with the focal loss."""

    name: ClassVar[str] = "retinanet"
    masks: ClassVar[bool] = False

    channels: int = CHANNELS
    norm: str = NORM
    smallest: float | None = SMALLEST
    frozen_stages: int = FROZEN_STAGES
    batch_norm: str = BATCH_NORM_MODE

    def __post_init__(self) -> None:
        check_fields(self)

    def build(self, maps: FeatureMaps, classes: int, shorter: int) -> Detector:
        """Anchors of three sizes and three shapes at every place of every level."""
        smallest = self.smallest or smallest_anchor(shorter)
        pyramid = Pyramid(maps, PyramidShape(self.channels, smallest, shorter / 2, 4, True, self.norm))
        sizes = [tuple(side * 2 ** (third / 3) for third in range(3)) for side in pyramid.anchors]
        anchors = AnchorGenerator(tuple(sizes), ((0.5, 1.0, 2.0),) * len(sizes))
        head = RetinaNetHead(self.channels, 9, classes, norm_layer(self.norm, self.channels))
        model = torchvision_detection.RetinaNet(
            pyramid, classes, anchor_generator=anchors, head=head, detections_per_img=100
        )
        return Detector(model, maps, False, self.frozen_stages, self.batch_norm)


@dataclass(frozen=True)
class FasterRcnn:
    """Faster R-CNN (Ren et al. 2015) with a feature pyramid: proposals, then their classes."""

    name: ClassVar[str] = "faster_rcnn"
    masks: ClassVar[bool] = False

    channels: int = CHANNELS
    norm: str = NORM
    regions: int = REGIONS
    smallest: float | None = SMALLEST
    frozen_stages: int = FROZEN_STAGES
    batch_norm: str = BATCH_NORM_MODE

    def __post_init__(self) -> None:
        check_fields(self)

    def build(self, maps: FeatureMaps, classes: int, shorter: int) -> Detector:
        """An anchor of three shapes at every place of every level."""
        pyramid, common = _two_stages(self, maps, shorter)
        predictor = FastRCNNPredictor(4 * self.channels, classes + 1)
        model = torchvision_detection.FasterRCNN(pyramid, box_predictor=predictor, **common)
        return Detector(model, maps, True, self.frozen_stages, self.batch_norm)


@dataclass(frozen=True)
class MaskRcnn:
    """Mask R-CNN (He et al. 2017): Faster R-CNN with a mask of every object."""

    name: ClassVar[str] = "mask_rcnn"
    masks: ClassVar[bool] = True

    channels: int = CHANNELS
    norm: str = NORM
    regions: int = REGIONS
    smallest: float | None = SMALLEST
    frozen_stages: int = FROZEN_STAGES
    batch_norm: str = BATCH_NORM_MODE

    def __post_init__(self) -> None:
        check_fields(self)

    def build(self, maps: FeatureMaps, classes: int, shorter: int) -> Detector:
        """Masks of 28x28 within each box."""
        pyramid, common = _two_stages(self, maps, shorter)
        pool = MultiScaleRoIAlign(pyramid.own_levels, 14, 2)
        model = torchvision_detection.MaskRCNN(
            pyramid,
            box_predictor=FastRCNNPredictor(4 * self.channels, classes + 1),
            mask_roi_pool=pool,
            mask_head=MaskRCNNHeads(self.channels, (self.channels,) * 4, 1),
            mask_predictor=MaskRCNNPredictor(self.channels, self.channels, classes + 1),
            **common,
        )
        return Detector(model, maps, True, self.frozen_stages, self.batch_norm)


def _two_stages(settings: FasterRcnn | MaskRcnn, maps: FeatureMaps, shorter: int) -> tuple[Pyramid, dict[str, Any]]:
    """The pyramid of a detector with proposals, and the arguments of its torchvision class."""
    smallest = settings.smallest or smallest_anchor(shorter)
    pyramid = Pyramid(maps, PyramidShape(settings.channels, smallest, shorter / 2, 8, False, settings.norm))
    common: dict[str, Any] = {
        "rpn_anchor_generator": AnchorGenerator(
            tuple((side,) for side in pyramid.anchors), ((0.5, 1.0, 2.0),) * len(pyramid.anchors)
        ),
        "box_roi_pool": MultiScaleRoIAlign(pyramid.own_levels, 7, 2),
        "box_head": TwoMLPHead(settings.channels * 49, 4 * settings.channels),
        "box_batch_size_per_image": settings.regions,
        "rpn_post_nms_top_n_train": 4 * settings.regions,
    }
    return pyramid, common


def freeze(maps: FeatureMaps, frozen_stages: int, batch_norm: str) -> None:
    """Keep the weights of the finest maps of a backbone, and those of its BatchNorm, as they are."""
    for parameter in _of_stages(maps, frozen_stages):
        parameter.requires_grad_(False)
    for part in maps.modules():
        if batch_norm == "frozen" and isinstance(part, _BatchNorm):
            part.requires_grad_(False)


def keep_frozen(network: nn.Module) -> None:
    """BatchNorm whose weights are frozen keeps its statistics too."""
    for part in network.modules():
        weights = [one.requires_grad for one in part.parameters(recurse=False)]
        if isinstance(part, _BatchNorm) and weights and not any(weights):
            part.eval()


def _of_stages(maps: FeatureMaps, count: int) -> list[nn.Parameter]:
    """The weights that take part in the finest `count` maps of a backbone: those that such a map has a gradient in."""
    if not count:
        return []
    if count > len(maps.strides):
        raise InputError(
            f"detector.frozen_stages is {count}, and the backbone has maps of {len(maps.strides)} sizes; lower it"
        )
    weights, was_training = list(maps.parameters()), maps.training
    found = maps.eval()(torch.zeros(2, 3, *PROBE))
    maps.train(was_training)
    gradients = torch.autograd.grad(found[count - 1].sum(), weights, allow_unused=True)
    return [weight for weight, gradient in zip(weights, gradients, strict=True) if gradient is not None]
