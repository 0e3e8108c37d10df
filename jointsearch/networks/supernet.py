"""The supernet of a cell search: its settings, and how it is built from the name of its space."""

from dataclasses import dataclass
from typing import Any

import torch

from jointsearch.settings import bounded, check_fields, choice
from jointsearch.soft.network import SuperNet, SuperNetSettings
from search_spaces.cells.skeleton import Skeleton
from search_spaces.cells.space import CELL_SPACES

SUPERNET = "supernet"  # not registered with timm, because only a cell search can train it

VARIANTS: dict[str, dict[str, Any]] = {
    "darts": {},
    "pc_darts": {"channel_share": 4},
    "darts_minus": {"auxiliary_skip": True},
    "gdas": {"single_path": True},
}


@dataclass(frozen=True)
class SupernetSettings:
    """The network whose cells are searched. The defaults are those of DARTS."""

    space: str = choice("darts", *CELL_SPACES, help="the candidates of an edge; small has five, in cells of two nodes")
    channels: int = bounded(16, 1, 4096, help="of the first cells")
    layers: int = bounded(8, 3, 1000, help="cells, one after the other")
    variant: str = choice(
        "darts", *VARIANTS, help="pc_darts: a quarter of the channels; darts_minus: an extra skip; gdas: one path"
    )

    def __post_init__(self) -> None:
        check_fields(self)

    def options(self) -> dict[str, Any]:
        """The options of the network."""
        return {"space": self.space, "channels": self.channels, "layers": self.layers, **VARIANTS[self.variant]}


def supernet(
    space: str = "darts",
    channel_share: int | None = None,
    auxiliary_skip: bool = False,
    single_path: bool = False,
    **measures: Any,
) -> SuperNet:
    """A supernet over a named space; `measures` are fields of Skeleton: channels, layers, num_classes, in_chans."""
    options = SuperNetSettings(channel_share, auxiliary_skip, single_path)
    network = SuperNet(CELL_SPACES[space], Skeleton(**measures), torch.default_generator, options)
    # The search itself updates the architecture, after the weights of a step.
    for logits in network.architecture().values():
        logits.requires_grad_(False)
    return network
