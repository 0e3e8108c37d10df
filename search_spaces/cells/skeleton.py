"""Stem, cells and head, which a derived network and a supernet share. The caller provides the body of each cell.

A body is a module: body(before, last, mixture) -> (B, nodes * channels, h, w), its nodes concatenated. `before` and
`last` are the outputs of the two previous cells, both (B, channels, H, W). The body of a reduction cell halves height
and width. `mixture` is the input of a supernet to its normal or reduction cells in this pass; otherwise it is None.
"""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from search_spaces.cells.ops import FactorizedReduce, relu_conv_norm
from search_spaces.errors import InputError, nearest

MIN_LAYERS = 3
AUXILIARY_WINDOW = 5

# (channels, is_reduction) -> the body of one cell
MakeBody = Callable[[int, bool], nn.Module]


@dataclass(frozen=True)
class Skeleton:
    """The sizes of a network of cells. Reduction cells at 1/3 and 2/3 of the depth double the channels."""

    channels: int = 16
    layers: int = 8
    num_classes: int = 10
    in_chans: int = 3
    stem: str = "cifar"

    def __post_init__(self) -> None:
        for name, smallest in (("channels", 2), ("layers", MIN_LAYERS), ("num_classes", 0), ("in_chans", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
                raise InputError(f"{name}={value!r} of a network of cells; wanted a whole number, {smallest} or more")
        if self.stem not in STEMS:
            raise InputError(f"stem={self.stem!r} of a network of cells; {nearest(self.stem, STEMS)}")

    @property
    def reductions(self) -> tuple[int, int]:
        """The indices of the two reduction cells."""
        return self.layers // 3, 2 * self.layers // 3


@dataclass(frozen=True)
class FeatureMap:
    """The output of a cell or stem, as the next cells read it: channels, reduction, and its module."""

    channels: int
    reduction: int
    module: str


class CifarStem(nn.Module):
    """One 3x3 convolution with three times the channels; the first cell reads its output twice."""

    pooling_stride = 3

    def __init__(self, skeleton: Skeleton) -> None:
        super().__init__()
        channels = 3 * skeleton.channels
        self.conv = nn.Conv2d(skeleton.in_chans, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.maps = [FeatureMap(channels, 1, "stem")] * 2

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, in_chans, H, W) -> twice (B, 3 * channels, H, W)."""
        features = self.norm(self.conv(images))
        return features, features


class ImageNetStem(nn.Module):
    """Three 3x3 convolutions of stride 2; the first cell reads the outputs of the second and the third."""

    pooling_stride = 2

    def __init__(self, skeleton: Skeleton) -> None:
        super().__init__()
        channels = skeleton.channels
        half = channels - channels // 2
        self.first = nn.Sequential(
            nn.Conv2d(skeleton.in_chans, half, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.second = relu_conv_norm(channels, channels, 3, 2, affine=True)
        self.maps = [FeatureMap(channels, 4, "stem.first"), FeatureMap(channels, 8, "stem.second")]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, in_chans, H, W) -> (B, channels, H / 4, W / 4) and (B, channels, H / 8, W / 8)."""
        before = self.first(images)
        return before, self.second(before)


STEMS: dict[str, type[CifarStem] | type[ImageNetStem]] = {"cifar": CifarStem, "imagenet": ImageNetStem}


class Cell(nn.Module):
    """Brings the outputs of the two previous cells to one shape, and passes them to its body."""

    def __init__(
        self, before: FeatureMap, last: FeatureMap, channels: int, body: nn.Module, affine: bool = True
    ) -> None:
        super().__init__()
        self.prepare_before: nn.Module
        if before.reduction < last.reduction:
            self.prepare_before = FactorizedReduce(before.channels, channels, affine)
        else:
            self.prepare_before = relu_conv_norm(before.channels, channels, 1, 1, affine)
        self.prepare_last = relu_conv_norm(last.channels, channels, 1, 1, affine)
        self.body = body

    def forward(self, before: Tensor, last: Tensor, mixture: Any = None) -> Tensor:
        """The outputs of the two previous cells -> (B, nodes * channels, h, w)."""
        return self.body(self.prepare_before(before), self.prepare_last(last), mixture)


class CellNetwork(nn.Module):
    """Stem, cells, average pooling and a linear classifier, with the interface of timm's networks.

    `nodes` is how many nodes a cell concatenates: one number, or those of a normal and of a reduction cell. `affine`
    False leaves the cells' BatchNorms without scale and shift, as in a supernet.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        nodes: int | tuple[int, int],
        make_body: MakeBody,
        affine: bool = True,
        auxiliary: bool = False,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.skeleton = skeleton
        self.num_classes = skeleton.num_classes
        self.stem = STEMS[skeleton.stem](skeleton)
        self.cells = nn.ModuleList()
        self.maps: list[FeatureMap] = list(self.stem.maps)
        channels, outputs = skeleton.channels, (nodes, nodes) if isinstance(nodes, int) else nodes
        for place in range(skeleton.layers):
            before, last = self.maps[-2:]
            is_reduction = place in skeleton.reductions
            factor = 2 if is_reduction else 1
            channels *= factor
            self.cells.append(Cell(before, last, channels, make_body(channels, is_reduction), affine))
            width = outputs[is_reduction] * channels
            self.maps.append(FeatureMap(width, factor * last.reduction, f"cells.{place}"))
        self.num_features = self.head_hidden_size = self.maps[-1].channels
        self.dropout = nn.Dropout(drop_rate)
        self.classifier = _linear(self.num_features, self.num_classes)
        self.auxiliary: AuxiliaryHead | None = None
        if auxiliary:
            read = self.maps[skeleton.reductions[1] + 2].channels
            self.auxiliary = AuxiliaryHead(read, self.num_classes, self.stem.pooling_stride)

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """timm's description of the last map of every size, and its place in `self.maps`."""
        last_of_size = {found.reduction: (place, found) for place, found in enumerate(self.maps)}
        return [
            {"num_chs": found.channels, "reduction": found.reduction, "module": found.module, "place": place}
            for place, found in last_of_size.values()
        ]

    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        return self.classifier

    def reset_classifier(self, num_classes: int) -> None:
        """Fresh last layers for `num_classes`; 0 removes them."""
        self.num_classes = num_classes
        self.classifier = _linear(self.num_features, num_classes)
        if self.auxiliary is not None:
            self.auxiliary.classifier = _linear(AuxiliaryHead.features, num_classes)

    def forward_maps(
        self, images: Tensor, wanted: Container[int] = (), mixtures: Sequence[Any] = (None, None)
    ) -> tuple[Tensor, list[Tensor]]:
        """The last map, and those at the `wanted` places of `self.maps`; `mixtures` for (normal, reduction) cells."""
        before, last = self.stem(images)
        kept = [found for place, found in enumerate((before, last)) if place in wanted]
        for place, cell in enumerate(self.cells):
            before, last = last, cell(before, last, mixtures[place in self.skeleton.reductions])
            if place + 2 in wanted:
                kept.append(last)
        return last, kept

    def forward_intermediates(
        self, images: Tensor, indices: Sequence[int] | None = None, intermediates_only: bool = False, **formats: Any
    ) -> Any:
        """The last map of each size at these places of `feature_info`, as timm's networks give them."""
        wanted = range(len(self.feature_info)) if indices is None else indices
        last, maps = self.forward_maps(images, [self.feature_info[index]["place"] for index in wanted])
        return maps if intermediates_only else (last, maps)

    def forward_features(self, images: Tensor, mixtures: Sequence[Any] = (None, None)) -> Tensor:
        """Images (B, in_chans, H, W) -> the last map (B, num_features, h, w), before pooling."""
        return self.forward_maps(images, (), mixtures)[0]

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """The last map -> logits (B, num_classes), or the pooled features (B, num_features)."""
        pooled = self.dropout(features.mean((2, 3)))
        return pooled if pre_logits else self.classifier(pooled)

    def forward(self, images: Tensor, mixtures: Sequence[Any] = (None, None)) -> Tensor:
        """Images (B, in_chans, H, W) -> logits (B, num_classes)."""
        return self.forward_head(self.forward_features(images, mixtures))

    def forward_with_auxiliary(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images -> logits and auxiliary logits, both (B, num_classes); for training a network with `auxiliary`."""
        if self.auxiliary is None:
            raise InputError("this network of cells has no auxiliary head; build it with auxiliary=True")
        last, (middle,) = self.forward_maps(images, wanted=(self.skeleton.reductions[1] + 2,))
        return self.forward_head(last), self.auxiliary(middle)


class AuxiliaryHead(nn.Module):
    """A second classifier behind the last reduction, whose loss helps training; evaluation never runs it."""

    features = 768

    def __init__(self, channels: int, num_classes: int, pooling_stride: int) -> None:
        super().__init__()
        self.smallest = AUXILIARY_WINDOW + pooling_stride
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.AvgPool2d(AUXILIARY_WINDOW, pooling_stride),  # DARTS's 8x8 or 7x7 maps become 2x2
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(inplace=True),
            nn.Conv2d(128, self.features, 2, bias=False),
            nn.BatchNorm2d(self.features),
            nn.ReLU(inplace=True),
        )
        self.classifier = _linear(self.features, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """(B, channels, h, w) -> logits (B, num_classes); the outputs of maps larger than DARTS's are averaged."""
        height, width = features.shape[2:]
        if min(height, width) < self.smallest:
            raise InputError(
                f"the auxiliary head got {height}x{width} maps and needs {self.smallest}x{self.smallest} or more; "
                "give larger images, or leave it out (auxiliary=False; in a script cells.auxiliary=false)"
            )
        return self.classifier(self.layers(features).mean((2, 3)))


def _linear(features: int, num_classes: int) -> nn.Module:
    return nn.Linear(features, num_classes) if num_classes else nn.Identity()
