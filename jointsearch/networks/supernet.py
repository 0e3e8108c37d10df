"""Builds the supernet of a cell search from the name of its space."""

from typing import Any

import torch

from jointsearch.soft.network import SuperNet, SuperNetSettings
from search_spaces.cells.skeleton import Skeleton
from search_spaces.cells.space import CELL_SPACES

SUPERNET = "supernet"  # not registered with timm, because only a cell search can train it


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
