"""D-FINE (Peng et al. 2025) of the package transformers on any backbone; the package is imported when it is built."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from jointsearch.data.objects import Objects, Padded
from jointsearch.networks.detectors import BATCH_NORM_MODE, FROZEN_STAGES, SMALLEST, freeze, keep_frozen
from jointsearch.networks.features import FeatureMaps
from jointsearch.networks.pyramid import FINEST, smallest_anchor
from jointsearch.settings import bounded, check_fields
from search_spaces.errors import InputError

LEVELS = 3  # at most, the coarsest ones
CELLS = 4  # places of the finest level along the smallest object


class MapsOfBackbone(nn.Module):
    """The maps of a backbone in the form in which transformers' encoders read them."""

    def __init__(self, maps: FeatureMaps, used: list[int]) -> None:
        super().__init__()
        self.maps, self.used = maps, used

    def forward(self, images: Tensor) -> Any:
        """Images (B, 3, H, W) -> an object with `feature_maps`."""
        found = self.maps(images)
        return SimpleNamespace(feature_maps=[found[place] for place in self.used])


class QueryDetector(nn.Module):
    """A detector of transformers that takes `Padded` images and `Objects`."""

    def __init__(self, model: nn.Module, maps: FeatureMaps, most: int) -> None:
        super().__init__()
        self.model, self.most = model, most
        self._maps = (maps,)  # not a second child: its weights are those of the model

    def train(self, mode: bool = True) -> "QueryDetector":
        """As torch's; BatchNorm whose weights are frozen keeps its statistics too."""
        super().train(mode)
        keep_frozen(self)
        return self

    def forward(self, images: Padded, objects: Objects | None = None) -> Any:
        """The loss where objects are given; else boxes, labels and scores of each image."""
        pixels = self._whole_steps(images.pixels)
        height, width = pixels.shape[-2:]
        sides = torch.tensor([width, height, width, height]).to(pixels, non_blocking=True)
        with self._maps[0].alone_in_bf16(pixels):
            if objects is not None:
                return {"loss": self.model(pixel_values=pixels, labels=_targets(objects, sides)).loss}
            found = self.model(pixel_values=pixels)
        scores = found.logits.float().sigmoid()
        best = scores.flatten(1).topk(min(self.most, scores[0].numel()))
        query, label = best.indices // scores.shape[-1], best.indices % scores.shape[-1]
        centre, size = found.pred_boxes.float().split(2, -1)
        corners = torch.cat([centre - size / 2, centre + size / 2], -1) * sides
        boxes = corners.gather(1, query[..., None].expand(-1, -1, 4))
        rows = zip(boxes, label, best.values, strict=True)
        return [{"boxes": box, "labels": one, "scores": score} for box, one, score in rows]

    def _whole_steps(self, pixels: Tensor) -> Tensor:
        """Images (B, C, H, W) with zeros below and beside, so that every map has half the places of the one before."""
        step = max(32, *self._maps[0].strides)
        height, width = pixels.shape[-2:]
        return nn.functional.pad(pixels, (0, -width % step, 0, -height % step))


@dataclass(frozen=True)
class DFine:
    """D-FINE: a set of queries finds all objects at once, without anchors. Needs jointsearch[detr]."""

    name: ClassVar[str] = "d_fine"
    masks: ClassVar[bool] = False

    channels: int = bounded(256, 16, 4096, help="of encoder and decoder")
    queries: int = bounded(300, 1, 10_000, help="objects that an image may have, at most")
    decoder_layers: int = bounded(6, 1, 32, help="steps in which boxes are refined")
    smallest: float | None = SMALLEST
    frozen_stages: int = FROZEN_STAGES
    batch_norm: str = BATCH_NORM_MODE

    def __post_init__(self) -> None:
        check_fields(self)
        if self.channels % 8:
            raise InputError(f"detector.channels is {self.channels}, shared by 8 heads; give a multiple of 8")

    def build(self, maps: FeatureMaps, classes: int, shorter: int) -> QueryDetector:
        """Up to three of the coarsest maps are encoded, and decoded by the queries."""
        config_class, model_class, backbone_class = _transformers()
        finest = max(FINEST, int((self.smallest or smallest_anchor(shorter)) / CELLS))
        used = [place for place, stride in enumerate(maps.strides) if stride >= finest][-LEVELS:]
        used = used or [len(maps.strides) - 1]
        channels, count = self.channels, len(used)
        config = config_class(
            backbone_config=backbone_class(backbone="resnet10t", out_indices=list(range(1, 1 + count))),
            freeze_backbone_batch_norms=False,
            encoder_in_channels=[channels] * count,
            feat_strides=[maps.strides[place] for place in used],
            encode_proj_layers=[count - 1],
            encoder_hidden_dim=channels,
            encoder_ffn_dim=4 * channels,
            d_model=channels,
            decoder_in_channels=[channels] * count,
            decoder_ffn_dim=4 * channels,
            num_feature_levels=count,
            decoder_n_points=[4] * count,
            decoder_layers=self.decoder_layers,
            num_queries=self.queries,
            num_labels=classes,
        )
        model = model_class(config)
        # Its configuration can name a network of timm, but not one that was changed for small images or found here.
        model.model.backbone.model = MapsOfBackbone(maps, used)
        model.model.encoder_input_proj = nn.ModuleList(_to_width(maps.channels[place], channels) for place in used)
        freeze(maps, self.frozen_stages, self.batch_norm)
        return QueryDetector(model, maps, 100)


def _targets(objects: Objects, sides: Tensor) -> list[dict[str, Tensor]]:
    """Classes and boxes of each image, boxes as centre and size in shares of the frame."""
    targets = []
    for boxes, labels in zip(objects.boxes / sides, objects.labels, strict=True):
        here = labels >= 0
        low, high = boxes[here].split(2, -1)
        targets.append({"class_labels": labels[here], "boxes": torch.cat([(low + high) / 2, high - low], -1)})
    return targets


def _to_width(channels: int, width: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width))


def _transformers() -> tuple[Any, Any, Any]:
    try:
        from transformers import DFineConfig, DFineForObjectDetection, TimmBackboneConfig
    except ImportError as error:
        raise InputError(
            f"detector=d_fine needs the package transformers ({error}); pip install 'jointsearch[detr]'"
        ) from None
    return DFineConfig, DFineForObjectDetection, TimmBackboneConfig
