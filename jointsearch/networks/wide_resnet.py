"""Wide residual networks (Zagoruyko & Komodakis, BMVC 2016), registered with timm.

The convolutions carry a bias although a BatchNorm follows: with it WRN-40-2 has 2,246,474 parameters and WRN-28-10
has 36,489,290 (10 classes), as in the published policy-search code, with whose results ours are compared.
"""

from typing import Any

from timm.models import build_model_with_cfg, register_model
from torch import Tensor, nn

from jointsearch.networks.classifier import ImageClassifier, of_small_images

NAMES = ("wide_resnet16_1", "wide_resnet16_2", "wide_resnet28_10", "wide_resnet40_2")

default_cfgs = of_small_images(*NAMES)


class WideBlock(nn.Module):
    """Two pre-activated 3x3 convolutions, dropout between them, and a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, drop_rate: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.dropout = nn.Dropout(drop_rate)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        # ReLU may overwrite a BatchNorm's output: the BatchNorm's backward reads its input, ReLU's its own output.
        self.relu = nn.ReLU(inplace=True)
        same_shape = stride == 1 and in_channels == out_channels
        self.shortcut = None if same_shape else nn.Conv2d(in_channels, out_channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H / stride, W / stride)."""
        activated = self.relu(self.norm1(x))
        residual = self.conv2(self.dropout(self.relu(self.norm2(self.conv1(activated)))))
        # If the shape changes, both branches share the activation (He et al. 2016, "Identity mappings").
        carried = x if self.shortcut is None else self.shortcut(activated)
        return residual.add_(carried)


def wide_resnet(
    depth: int,
    width: int,
    num_classes: int = 10,
    in_chans: int = 3,
    drop_rate: float = 0.0,
    global_pool: str = "avg",
) -> ImageClassifier:
    """WRN-depth-width. `drop_rate` is the paper's: between a block's convolutions, not before the classifier."""
    if (depth - 4) % 6:
        raise ValueError(f"depth {depth} of a Wide-ResNet must be 6n + 4; use for example 16, 28 or 40")
    blocks = (depth - 4) // 6
    channels = (16, 16 * width, 32 * width, 64 * width)
    parts: dict[str, nn.Module] = {"stem": nn.Conv2d(in_chans, channels[0], 3, padding=1)}
    for stage, stride in enumerate((1, 2, 2), start=1):
        first = WideBlock(channels[stage - 1], channels[stage], stride, drop_rate)
        others = [WideBlock(channels[stage], channels[stage], 1, drop_rate) for _ in range(blocks - 1)]
        parts[f"stage{stage}"] = nn.Sequential(first, *others)
    parts["activation"] = nn.Sequential(nn.BatchNorm2d(channels[3]), nn.ReLU(inplace=True))
    feature_info = [
        {"num_chs": channels[0], "reduction": 1, "module": "stem"},
        {"num_chs": channels[1], "reduction": 1, "module": "stage1"},
        {"num_chs": channels[2], "reduction": 2, "module": "stage2"},
        {"num_chs": channels[3], "reduction": 4, "module": "activation"},
    ]
    return ImageClassifier(parts, feature_info, num_classes, global_pool)


def _build(name: str, depth: int, width: int, pretrained: bool, **kwargs: Any) -> nn.Module:
    features = {"out_indices": (0, 1, 2, 3)}
    return build_model_with_cfg(wide_resnet, name, pretrained, feature_cfg=features, depth=depth, width=width, **kwargs)


@register_model
def wide_resnet16_1(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """WRN-16-1, 175 thousand parameters: for quick runs."""
    return _build("wide_resnet16_1", 16, 1, pretrained, **kwargs)


@register_model
def wide_resnet16_2(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """WRN-16-2, 692 thousand parameters: for studies on few images."""
    return _build("wide_resnet16_2", 16, 2, pretrained, **kwargs)


@register_model
def wide_resnet28_10(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """WRN-28-10, 36.5 million parameters: the large network of policy-search papers."""
    return _build("wide_resnet28_10", 28, 10, pretrained, **kwargs)


@register_model
def wide_resnet40_2(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """WRN-40-2, 2.2 million parameters: the network on which policies are searched."""
    return _build("wide_resnet40_2", 40, 2, pretrained, **kwargs)
