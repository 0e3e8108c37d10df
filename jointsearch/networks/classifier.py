"""The class of all hand-written networks: named parts in order, then timm's classifier head."""

from collections.abc import Mapping, Sequence
from typing import Any

from timm.layers import ClassifierHead
from timm.models import generate_default_cfgs
from torch import Tensor, nn


def of_small_images(
    *names: str, first_conv: str = "stem", classifier: str = "head.fc", pool_size: tuple[int, int] = (8, 8)
) -> dict[str, Any]:
    """What timm has to know of networks for 32x32 pixels and 10 classes, that nobody trained before."""
    return generate_default_cfgs(
        {
            name: {
                "url": "",
                "num_classes": 10,
                "input_size": (3, 32, 32),
                "pool_size": pool_size,
                "first_conv": first_conv,
                "classifier": classifier,
            }
            for name in names
        }
    )


class ImageClassifier(nn.Module):
    """Runs `parts` in order, pools and classifies. It has timm's interface, so that timm's tools work with it."""

    def __init__(
        self,
        parts: Mapping[str, nn.Module],
        feature_info: list[dict[str, Any]],
        num_classes: int,
        global_pool: str = "avg",
    ) -> None:
        super().__init__()
        self.part_names = tuple(parts)
        for name, part in parts.items():
            self.add_module(name, part)
        self.feature_info = feature_info
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = int(feature_info[-1]["num_chs"])
        self.head = ClassifierHead(self.num_features, num_classes, pool_type=global_pool)
        self.apply(_initialize)

    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh last layer for `num_classes`; 0 removes it."""
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)

    def forward_features(self, x: Tensor) -> Tensor:
        """The last feature map, activated, before pooling: (B, num_features, h, w)."""
        for name in self.part_names:
            x = getattr(self, name)(x)
        return x

    def forward_intermediates(
        self, x: Tensor, indices: Sequence[int] | None = None, intermediates_only: bool = False, **formats: Any
    ) -> Any:
        """The maps of `feature_info` at these places, as timm's networks give them; alone, or after the last map."""
        wanted = range(len(self.feature_info)) if indices is None else indices
        modules = [self.feature_info[place]["module"] for place in wanted]
        found = {}
        for name in self.part_names:
            x = getattr(self, name)(x)
            found[name] = x
        maps = [found[module] for module in modules]
        return maps if intermediates_only else (x, maps)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Feature map -> logits (B, num_classes), or the pooled features (B, num_features)."""
        return self.head(x, pre_logits=pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> logits (B, num_classes)."""
        return self.forward_head(self.forward_features(x))


def _initialize(module: nn.Module) -> None:
    """Initialize as He et al. 2015: in a ReLU network, scaling by the output fan keeps the variance of gradients."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
