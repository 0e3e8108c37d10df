"""Dual path networks (Chen et al. 2017) for small images: a sum and a growing concatenation share every block.

timm has them for large images, as `dpn92`. Here a stem of one 3x3 convolution and 3 halvings leave a 4x4 map of a 32x32
image, and blocks normalize after their convolutions: the form in use for CIFAR, whose 34.2 million parameters are those
that OHL-Auto-Aug gives.
"""

from dataclasses import dataclass
from typing import Any

import torch
from timm.models import build_model_with_cfg, register_model
from torch import Tensor, nn
from torch.nn.functional import relu

from jointsearch.networks.classifier import ImageClassifier, of_small_images

GROUPS = 32
STEM = 64

default_cfgs = of_small_images("dpn92_cifar", first_conv="stem.0", pool_size=(4, 4))


@dataclass(frozen=True)
class Stage:
    """Blocks of one size: how wide their 3x3 convolution, their sum, and what each adds to the concatenation."""

    blocks: int
    width: int
    summed: int
    added: int


DPN92 = (Stage(3, 96, 256, 16), Stage(4, 192, 512, 32), Stage(20, 384, 1024, 24), Stage(3, 768, 2048, 128))


class DualPathBlock(nn.Module):
    """A bottleneck whose first channels are added to those of its input, and whose last are set beside them."""

    def __init__(self, in_channels: int, stage: Stage, stride: int, is_first: bool) -> None:
        super().__init__()
        self.summed = stage.summed
        channels = stage.summed + stage.added
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, stage.width, 1, bias=False),
            nn.BatchNorm2d(stage.width),
            nn.ReLU(inplace=True),
            nn.Conv2d(stage.width, stage.width, 3, stride, padding=1, groups=GROUPS, bias=False),
            nn.BatchNorm2d(stage.width),
            nn.ReLU(inplace=True),
            nn.Conv2d(stage.width, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if is_first:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, wider, H / stride, W / stride): one block's `added` more, or a fresh start."""
        carried, found = self.shortcut(x), self.branch(x)
        parts = (
            carried[:, : self.summed] + found[:, : self.summed],
            carried[:, self.summed :],
            found[:, self.summed :],
        )
        return relu(torch.cat(parts, dim=1))


def dual_path(
    stages: tuple[Stage, ...],
    num_classes: int = 10,
    in_chans: int = 3,
    drop_rate: float = 0.0,
    global_pool: str = "avg",
) -> ImageClassifier:
    """A dual path network of stages, each but the first at half the size; `drop_rate` is before the classifier."""
    stem = (nn.Conv2d(in_chans, STEM, 3, padding=1, bias=False), nn.BatchNorm2d(STEM), nn.ReLU(inplace=True))
    parts: dict[str, nn.Module] = {"stem": nn.Sequential(*stem)}
    feature_info, channels = [], STEM
    for number, stage in enumerate(stages):
        built: list[nn.Module] = []
        for place in range(stage.blocks):
            built.append(DualPathBlock(channels, stage, 2 if number and not place else 1, place == 0))
            channels = stage.summed + (place + 2) * stage.added
        parts[f"stage{number + 1}"] = nn.Sequential(*built)
        feature_info.append({"num_chs": channels, "reduction": 2**number, "module": f"stage{number + 1}"})
    parts["dropout"] = nn.Dropout(drop_rate)
    return ImageClassifier(parts, feature_info, num_classes, global_pool)


@register_model
def dpn92_cifar(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """DPN-92 for small images, 34.2 million parameters."""
    features = {"out_indices": (0, 1, 2, 3)}
    return build_model_with_cfg(dual_path, "dpn92_cifar", pretrained, feature_cfg=features, stages=DPN92, **kwargs)
