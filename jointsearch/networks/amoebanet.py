"""AmoebaNet-B (Real et al. 2019), cells that were found by evolution, in the skeleton that all our cells have.

A genotype cannot hold them: a node may read one source twice, and a cell outputs only the nodes that no other reads.
"""

from typing import Any

import torch
from timm.models import build_model_with_cfg, register_model
from torch import Tensor, nn

from jointsearch.networks.cells import CellFeatures
from jointsearch.networks.classifier import of_small_images
from search_spaces.cells.derived import DropPath, set_drop_path
from search_spaces.cells.ops import CELL_OPS, CellOp
from search_spaces.cells.skeleton import CellNetwork, Skeleton

OPS: dict[str, CellOp] = {
    **CELL_OPS,
    "max_pool_2x2": lambda channels, stride, affine: nn.MaxPool2d(2, stride, ceil_mode=True),  # an odd side rounds up
}
# (op, source) twice for every node. As in a genotype, source 0 is the cell before the last, 1 the last, 2 node 0.
NORMAL = (
    (("nor_conv_1x1", 0), ("max_pool_3x3", 0)),
    (("skip_connect", 0), ("sep_conv_3x3", 1)),
    (("nor_conv_1x1", 0), ("sep_conv_3x3", 1)),
    (("nor_conv_1x1", 2), ("skip_connect", 2)),
    (("avg_pool_3x3", 0), ("nor_conv_1x1", 5)),
)
REDUCTION = (
    (("max_pool_2x2", 1), ("max_pool_3x3", 1)),
    (("skip_connect", 2), ("nor_conv_3x3", 0)),
    (("dil_conv_5x5", 2), ("max_pool_3x3", 2)),
    (("skip_connect", 3), ("sep_conv_3x3", 0)),
    (("avg_pool_3x3", 4), ("nor_conv_1x1", 3)),
)

default_cfgs = of_small_images("amoebanet_b_6_128", first_conv="stem.conv", classifier="classifier")


class AmoebaBody(nn.Module):
    """The nodes of one cell: each is the sum of its two edges."""

    def __init__(self, channels: int, is_reduction: bool) -> None:
        super().__init__()
        self.nodes = REDUCTION if is_reduction else NORMAL
        self.outputs = outputs(self.nodes)
        self.edges = nn.ModuleList()
        for name, source in (edge for node in self.nodes for edge in node):
            op = OPS[name](channels, 2 if is_reduction and source < 2 else 1, True)
            self.edges.append(op if isinstance(op, nn.Identity) else nn.Sequential(op, DropPath()))

    def forward(self, before: Tensor, last: Tensor, mixture: None = None) -> Tensor:
        """Twice (B, channels, H, W) -> (B, outputs * channels, h, w)."""
        states = [before, last]
        edges = iter(self.edges)
        for (_, first), (_, second) in self.nodes:
            states.append(next(edges)(states[first]) + next(edges)(states[second]))
        return torch.cat([states[place] for place in self.outputs], dim=1)


def outputs(nodes: tuple[tuple[tuple[str, int], tuple[str, int]], ...]) -> list[int]:
    """The places of the nodes that no other node reads."""
    read = {source for node in nodes for _, source in node}
    return [place for place in range(2, len(nodes) + 2) if place not in read]


def amoebanet_b(
    repeats: int, channels: int, drop_path_rate: float = 0.0, drop_rate: float = 0.0, **measures: Any
) -> CellNetwork:
    """AmoebaNet-B (N, F): three times N = `repeats` normal cells, F = `channels` at first, reductions between them.

    `measures` are fields of Skeleton: num_classes, in_chans, stem.
    """
    skeleton = Skeleton(channels, 3 * repeats + 2, **measures)
    counts = (len(outputs(NORMAL)), len(outputs(REDUCTION)))
    network = CellNetwork(skeleton, counts, AmoebaBody, drop_rate=drop_rate)
    set_drop_path(network, drop_path_rate)
    return network


@register_model
def amoebanet_b_6_128(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """AmoebaNet-B (6, 128), 33.4 million parameters."""
    features = {"out_indices": 3, "feature_cls": CellFeatures}
    return build_model_with_cfg(
        amoebanet_b, "amoebanet_b_6_128", pretrained, feature_cfg=features, repeats=6, channels=128, **kwargs
    )
