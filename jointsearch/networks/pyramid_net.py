"""PyramidNet (Han et al. 2017) with ShakeDrop (Yamada et al. 2019): each block is a little wider than the last."""

from typing import Any

from timm.models import build_model_with_cfg, register_model
from torch import Tensor, nn
from torch.nn.functional import pad

from jointsearch.networks.classifier import ImageClassifier, of_small_images
from jointsearch.networks.shaking import ShakeDrop

WIDENS = 4  # of a bottleneck, from its 3x3 convolution to its output
LAST_SURVIVAL = 0.5

default_cfgs = of_small_images("pyramidnet272_shakedrop", first_conv="stem.0")


class PyramidBlock(nn.Module):
    """A bottleneck that begins and ends with a BatchNorm, shaken, beside a shortcut without weights."""

    def __init__(self, in_channels: int, width: int, stride: int, survival: float) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, WIDENS * width, 1, bias=False),
            nn.BatchNorm2d(WIDENS * width),
        )
        self.shake = ShakeDrop(survival)
        # Rounds an odd side up, as the convolution does.
        self.pool = None if stride == 1 else nn.AvgPool2d(stride, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, 4 * width, H / stride, W / stride)."""
        shaken = self.shake(self.branch(x))
        carried = x if self.pool is None else self.pool(x)
        # The channels that are new have nothing to carry.
        return shaken.add_(pad(carried, (0, 0, 0, 0, 0, shaken.shape[1] - carried.shape[1])))


def survival(block: int, blocks: int) -> float:
    """With which probability a block, counted from 1, keeps its branch whole: it falls linearly to 1/2."""
    return 1 - (1 - LAST_SURVIVAL) * block / blocks


def pyramid_net(
    depth: int,
    alpha: int,
    num_classes: int = 10,
    in_chans: int = 3,
    drop_rate: float = 0.0,
    global_pool: str = "avg",
) -> ImageClassifier:
    """PyramidNet-depth of bottlenecks whose widths rise from 16 by `alpha`; `drop_rate` is before the classifier."""
    if (depth - 2) % 9:
        raise ValueError(f"depth {depth} of a PyramidNet of bottlenecks must be 9n + 2; use for example 11 or 272")
    blocks = (depth - 2) // 3
    channels = 16
    parts: dict[str, nn.Module] = {
        "stem": nn.Sequential(nn.Conv2d(in_chans, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
    }
    feature_info = [{"num_chs": channels, "reduction": 1, "module": "stem"}]
    for stage in range(3):
        built: list[nn.Module] = []
        for block in range(stage * blocks // 3 + 1, (stage + 1) * blocks // 3 + 1):
            width = round(16 + alpha * block / blocks)
            built.append(PyramidBlock(channels, width, 2 if stage and not built else 1, survival(block, blocks)))
            channels = WIDENS * width
        parts[f"stage{stage + 1}"] = nn.Sequential(*built)
        module = "activation" if stage == 2 else f"stage{stage + 1}"
        feature_info.append({"num_chs": channels, "reduction": 2**stage, "module": module})
    parts["activation"] = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
    parts["dropout"] = nn.Dropout(drop_rate)
    return ImageClassifier(parts, feature_info, num_classes, global_pool)


@register_model
def pyramidnet272_shakedrop(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """PyramidNet-272 of bottlenecks with alpha 200 and ShakeDrop, 26.2 million parameters."""
    features = {"out_indices": (0, 1, 2, 3)}
    return build_model_with_cfg(
        pyramid_net, "pyramidnet272_shakedrop", pretrained, feature_cfg=features, depth=272, alpha=200, **kwargs
    )
