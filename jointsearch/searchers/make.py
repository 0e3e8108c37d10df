"""One door to every search algorithm, by the name in its settings."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from jointsearch.data.standard import Standard
from jointsearch.searchers.differentiable import DifferentiableSearcher
from jointsearch.searchers.faster_aa import FasterSearch, FasterSearcher
from jointsearch.searchers.random import RandomSearch, RandomSearcher
from jointsearch.searchers.settings import PolicySearch
from jointsearch.searchers.table import TableSearch, TableSearcher
from jointsearch.settings import build
from search_spaces.errors import InputError, nearest

AnySearch: TypeAlias = PolicySearch | RandomSearch | FasterSearch | TableSearch
AnySearcher: TypeAlias = DifferentiableSearcher | RandomSearcher | FasterSearcher | TableSearcher
SEARCHES: dict[str, type[AnySearch]] = {
    "differentiable": PolicySearch,
    "random": RandomSearch,
    "faster_aa": FasterSearch,
    "table": TableSearch,
}


def search_settings(groups: Mapping[str, Any]) -> AnySearch:
    """Checked settings from the plain groups searcher, policy_space and estimator."""
    searcher = groups.get("searcher")
    name = searcher.get("name") if isinstance(searcher, Mapping) else searcher
    if name not in SEARCHES:
        raise InputError(f"searcher.name is {name!r}; {nearest(str(name), SEARCHES)}")
    settings = build(SEARCHES[name], groups)
    settings.policy_space.policy()  # a space that cannot be made is told now
    return settings


def new_searcher(
    settings: AnySearch, standard: Standard, seed: int
) -> Callable[[nn.Module, Callable[[Tensor, Tensor], Tensor], torch.Generator], AnySearcher]:
    """What the search loop calls with its network, its training step and its noise."""
    if isinstance(settings, RandomSearch):
        return lambda network, train_step, noise: RandomSearcher(settings, seed)
    if isinstance(settings, FasterSearch):
        return lambda network, train_step, noise: FasterSearcher(settings, network, standard, noise)
    if isinstance(settings, TableSearch):
        return lambda network, train_step, noise: TableSearcher(settings, network, train_step, standard, noise)
    return lambda network, train_step, noise: DifferentiableSearcher(settings, network, train_step, standard, noise)
