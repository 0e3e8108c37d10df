"""Residual networks of two branches that are mixed at random (Gastaldi 2017, "Shake-Shake regularization").

The stem has a bias and no BatchNorm, and a shortcut of two paths leads also to the first stage, where nothing is
halved: as in the PyTorch version on which policies are compared (Fast AutoAugment, DADA). That version has 2,989,002,
26,777,546 and 36,435,402 parameters (10 classes), because it also builds a shortcut in each of the nine blocks that use
none. Here these are left out; docs/networks.md has the numbers.
"""

from typing import Any

import torch
from timm.models import build_model_with_cfg, register_model
from torch import Tensor, nn
from torch.nn.functional import pad, relu

from jointsearch.networks.classifier import ImageClassifier, of_small_images
from jointsearch.networks.shaking import ShakeShake

NAMES = ("shake_shake26_2x32d", "shake_shake26_2x96d", "shake_shake26_2x112d")

default_cfgs = of_small_images(*NAMES)


class TwoPathShortcut(nn.Module):
    """Half of the channels from every pixel, or every second one, and half from its neighbor to the lower right."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.straight = nn.Conv2d(in_channels, channels // 2, 1, stride, bias=False)
        self.shifted = nn.Conv2d(in_channels, channels // 2, 1, stride, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, channels, H / stride, W / stride)."""
        return self.norm(torch.cat([self.straight(x), self.shifted(pad(x, (-1, 1, -1, 1)))], dim=1))


def _branch(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
    )


class ShakeBlock(nn.Module):
    """Two branches of two convolutions, mixed, and a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.branch1 = _branch(in_channels, channels, stride)
        self.branch2 = _branch(in_channels, channels, stride)
        self.mix = ShakeShake()
        self.shortcut = None if in_channels == channels else TwoPathShortcut(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, channels, H / stride, W / stride)."""
        activated = relu(x)
        mixed = self.mix(self.branch1(activated), self.branch2(activated))
        return mixed.add_(x if self.shortcut is None else self.shortcut(activated))


def shake_shake(
    depth: int,
    width: int,
    num_classes: int = 10,
    in_chans: int = 3,
    drop_rate: float = 0.0,
    global_pool: str = "avg",
) -> ImageClassifier:
    """Shake-Shake depth 2x{width}d; `drop_rate` is before the classifier."""
    if (depth - 2) % 6:
        raise ValueError(f"depth {depth} of a Shake-Shake network must be 6n + 2; use for example 8 or 26")
    channels = (16, width, 2 * width, 4 * width)
    parts: dict[str, nn.Module] = {"stem": nn.Conv2d(in_chans, channels[0], 3, padding=1)}
    for stage, stride in enumerate((1, 2, 2), start=1):
        first = ShakeBlock(channels[stage - 1], channels[stage], stride)
        others = [ShakeBlock(channels[stage], channels[stage], 1) for _ in range((depth - 2) // 6 - 1)]
        parts[f"stage{stage}"] = nn.Sequential(first, *others)
    parts["activation"] = nn.ReLU(inplace=True)
    parts["dropout"] = nn.Dropout(drop_rate)
    feature_info = [
        {"num_chs": channels[0], "reduction": 1, "module": "stem"},
        {"num_chs": channels[1], "reduction": 1, "module": "stage1"},
        {"num_chs": channels[2], "reduction": 2, "module": "stage2"},
        {"num_chs": channels[3], "reduction": 4, "module": "activation"},
    ]
    return ImageClassifier(parts, feature_info, num_classes, global_pool)


def _build(name: str, width: int, pretrained: bool, **kwargs: Any) -> nn.Module:
    features = {"out_indices": (0, 1, 2, 3)}
    return build_model_with_cfg(shake_shake, name, pretrained, feature_cfg=features, depth=26, width=width, **kwargs)


@register_model
def shake_shake26_2x32d(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Shake-Shake 26 2x32d, 2.9 million parameters."""
    return _build("shake_shake26_2x32d", 32, pretrained, **kwargs)


@register_model
def shake_shake26_2x96d(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Shake-Shake 26 2x96d, 26.2 million parameters."""
    return _build("shake_shake26_2x96d", 96, pretrained, **kwargs)


@register_model
def shake_shake26_2x112d(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Shake-Shake 26 2x112d, 35.6 million parameters."""
    return _build("shake_shake26_2x112d", 112, pretrained, **kwargs)
