"""Networks that a test can train: about twenty thousand parameters, for any image of 8x8 or more."""

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from jointsearch.networks.classifier import ImageClassifier

default_cfgs = generate_default_cfgs(
    {
        "tiny_cnn": {
            "url": "",
            "num_classes": 10,
            "input_size": (3, 32, 32),
            "pool_size": (8, 8),
            "first_conv": "stage1.0",
            "classifier": "head.fc",
        },
        "tiny_mlp": {
            "url": "",
            "num_classes": 10,
            "input_size": (3, 12, 12),
            "pool_size": (1, 1),
            "first_conv": None,
            "classifier": "head.fc",
        },
    }
)
MLP_SIDE = 12
MLP_WIDTH = 128


def three_stage_network(
    num_classes: int = 10, in_chans: int = 3, drop_rate: float = 0.0, global_pool: str = "avg"
) -> ImageClassifier:
    """Three convolutions of 16, 32 and 64 channels with BatchNorm, the last two of stride 2; dropout after the last."""
    channels = (in_chans, 16, 32, 64)
    parts: dict[str, nn.Module] = {}
    for stage, stride in enumerate((1, 2, 2), start=1):
        parts[f"stage{stage}"] = nn.Sequential(
            # No bias: the BatchNorm after it has one.
            nn.Conv2d(channels[stage - 1], channels[stage], 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels[stage]),
            nn.ReLU(inplace=True),
        )
    parts["dropout"] = nn.Dropout(drop_rate)
    feature_info = [
        {"num_chs": 16, "reduction": 1, "module": "stage1"},
        {"num_chs": 32, "reduction": 2, "module": "stage2"},
        {"num_chs": 64, "reduction": 4, "module": "stage3"},
    ]
    return ImageClassifier(parts, feature_info, num_classes, global_pool)


class ToSide(nn.AdaptiveAvgPool2d):
    """Resizes images to a side. Images of that size stay as they are, where torch would average each pixel."""

    def forward(self, input: Tensor) -> Tensor:
        """Images (B, C, H, W) -> (B, C, side, side)."""
        side = self.output_size
        return input if input.shape[-2:] == (side, side) else super().forward(input)


def one_layer_network(
    num_classes: int = 10, in_chans: int = 3, drop_rate: float = 0.0, global_pool: str = "avg"
) -> ImageClassifier:
    """One hidden layer over all pixels, so without any translation invariance of its own."""
    hidden = nn.Sequential(
        ToSide(MLP_SIDE),
        nn.Flatten(),
        nn.Linear(in_chans * MLP_SIDE**2, MLP_WIDTH),
        nn.ReLU(inplace=True),
        nn.Unflatten(1, (MLP_WIDTH, 1, 1)),
    )
    parts = {"hidden": hidden, "dropout": nn.Dropout(drop_rate)}
    feature_info = [{"num_chs": MLP_WIDTH, "reduction": MLP_SIDE, "module": "hidden"}]
    return ImageClassifier(parts, feature_info, num_classes, global_pool)


@register_model
def tiny_cnn(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Three convolutions and a classifier, for tests and examples."""
    features = {"out_indices": (0, 1, 2)}
    return build_model_with_cfg(three_stage_network, "tiny_cnn", pretrained, feature_cfg=features, **kwargs)


@register_model
def tiny_mlp(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """One hidden layer and a classifier, for data that need an invariance which the network lacks."""
    features = {"out_indices": (0,)}
    return build_model_with_cfg(one_layer_network, "tiny_mlp", pretrained, feature_cfg=features, **kwargs)
