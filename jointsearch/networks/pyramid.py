"""The feature pyramid of a detector (Lin et al. 2017) on the maps of any backbone."""

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from jointsearch.networks.features import FeatureMaps

FINEST = 2  # pixels between two places of the finest level, at least: at 1, every pixel would have its anchors


@dataclass(frozen=True)
class PyramidShape:
    """Which levels a pyramid has. Levels double in size until an anchor has the side `largest`."""

    channels: int
    smallest: float  # pixels of the smallest anchor's side
    largest: float
    cells: int  # places of the finest level along the smallest anchor
    learned: bool  # whether levels beyond the backbone's are made by convolutions
    norm: str

    @property
    def finest(self) -> int:
        """Pixels between two places of the finest level."""
        return max(FINEST, int(self.smallest / self.cells))


class ExtraLevels(ExtraFPNBlock):
    """Coarser levels, each by a convolution of stride 2, or by leaving out every second place."""

    def __init__(self, channels: int, count: int, learned: bool) -> None:
        super().__init__()
        steps = [nn.Conv2d(channels, channels, 3, 2, 1) if learned else nn.MaxPool2d(1, 2) for _ in range(count)]
        self.steps = nn.ModuleList(steps)

    def forward(self, results: list[Tensor], x: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        """All levels with their names."""
        results, names = list(results), list(names)
        for place, step in enumerate(self.steps):
            results.append(step(results[-1] if place == 0 else results[-1].relu()))
            names.append(f"extra{place}")
        return results, names


class Pyramid(nn.Module):
    """The maps of a backbone as levels of equal width."""

    def __init__(self, maps: FeatureMaps, shape: PyramidShape) -> None:
        super().__init__()
        self.maps, self.out_channels = maps, shape.channels
        self.used = [place for place, stride in enumerate(maps.strides) if stride >= shape.finest]
        self.used = self.used or [len(maps.strides) - 1]
        strides = [maps.strides[place] for place in self.used]
        self.anchors = [shape.smallest * stride / strides[0] for stride in strides]  # a side for each level
        while self.anchors[-1] < shape.largest:
            self.anchors.append(2 * self.anchors[-1])
        self.fpn = FeaturePyramidNetwork(
            [maps.channels[place] for place in self.used],
            shape.channels,
            ExtraLevels(shape.channels, len(self.anchors) - len(self.used), shape.learned),
            norm_layer(shape.norm, shape.channels),
        )

    @property
    def own_levels(self) -> list[str]:
        """The levels that are maps of the backbone."""
        return [str(place) for place in range(len(self.used))]

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Images (B, 3, H, W) -> the levels by name, from fine to coarse."""
        found = self.maps(images)
        return self.fpn(OrderedDict((str(place), found[index]) for place, index in enumerate(self.used)))


def smallest_anchor(shorter: int) -> int:
    """Pixels of the smallest anchor's side on images of this size: 32 as published, less on small images."""
    return 32 if shorter >= 512 else 16 if shorter >= 192 else 8


def norm_layer(norm: str, channels: int) -> Any:
    """What makes the normalization of convolutions, by its name; None for none."""
    groups = next(count for count in (32, 16, 8, 4, 2, 1) if channels % count == 0)
    return partial(nn.GroupNorm, groups) if norm == "group" else None
