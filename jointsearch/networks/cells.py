"""Networks of cells, registered with timm. The genotype is given by value, by file or by its published name."""

from typing import Any

from timm.models import FeatureInfo, build_model_with_cfg, register_model
from torch import Tensor, nn

from jointsearch.networks.classifier import of_small_images
from search_spaces.cells.derived import derived_network
from search_spaces.cells.skeleton import CellNetwork, Skeleton
from search_spaces.genotype import Genotype, resolve_genotype

default_cfgs = of_small_images("jointsearch_cells", first_conv="stem.conv", classifier="classifier")


class CellFeatures(nn.Module):
    """The last map of every size, for `features_only`; cells after the last wanted map are removed."""

    def __init__(self, network: CellNetwork, out_indices: int | tuple[int, ...]) -> None:
        super().__init__()
        self.feature_info = FeatureInfo(network.feature_info, out_indices)
        self.places = self.feature_info.get("place")
        network.reset_classifier(0)
        network.auxiliary = None
        network.cells = network.cells[: max(1, *self.places) - 1]
        self.network = network

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (B, in_chans, H, W) -> a map (B, channels, H / reduction, W / reduction) for every index."""
        return self.network.forward_maps(images, self.places)[1]


def cell_network(
    genotype: Genotype | str = "DARTS_V2",
    auxiliary: bool = False,
    drop_path_rate: float = 0.0,
    drop_rate: float = 0.0,
    **measures: Any,
) -> CellNetwork:
    """The network of a genotype; `measures` are fields of Skeleton: channels, layers, num_classes, in_chans, stem."""
    return derived_network(resolve_genotype(genotype), Skeleton(**measures), auxiliary, drop_path_rate, drop_rate)


@register_model
def jointsearch_cells(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """A network of cells: by default DARTS_V2 with 16 channels and 8 cells; see genotype=, channels= and layers=."""
    # Detectors read the last three sizes. The ImageNet stem has a fourth, at a quarter of the input.
    features = {"out_indices": 3, "feature_cls": CellFeatures}
    return build_model_with_cfg(cell_network, "jointsearch_cells", pretrained, feature_cfg=features, **kwargs)
