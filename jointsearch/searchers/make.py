"""One door to every search algorithm, by the name in its settings."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeAlias, get_type_hints

import torch
from torch import nn

from jointsearch.data.standard import Standard
from jointsearch.searchers.differentiable import DifferentiableSearcher
from jointsearch.searchers.faster_aa import FasterSearch, FasterSearcher
from jointsearch.searchers.first_order import FirstOrderSearch, FirstOrderSearcher
from jointsearch.searchers.random import RandomSearch, RandomSearcher
from jointsearch.searchers.settings import ArchitectureSettings, DifferentiableSearch
from jointsearch.searchers.table import TableSearcher
from jointsearch.searchers.table_settings import TableSearch
from jointsearch.settings import build, changed, refuse_unread
from jointsearch.train_step import TrainStep
from search_spaces.errors import InputError, nearest
from search_spaces.policy import Policy

AnySearch: TypeAlias = DifferentiableSearch | FirstOrderSearch | RandomSearch | FasterSearch | TableSearch
AnySearcher: TypeAlias = DifferentiableSearcher | FirstOrderSearcher | RandomSearcher | FasterSearcher | TableSearcher
SEARCHES: dict[str, type[AnySearch]] = {
    "differentiable": DifferentiableSearch,
    "first_order": FirstOrderSearch,
    "random": RandomSearch,
    "faster_aa": FasterSearch,
    "table": TableSearch,
}
POLICY_ONLY = ("policy",)


def search_settings(groups: Mapping[str, Any]) -> AnySearch:
    """Checked settings from the plain groups searcher, policy_space, estimator, architecture, and what search names."""
    searcher, searched = groups.get("searcher"), groups.get("search", "policy")
    name = searcher.get("name") if isinstance(searcher, Mapping) else searcher
    if name not in SEARCHES:
        raise InputError(f"searcher.name is {name!r}; {nearest(str(name), SEARCHES)}")
    called = "trials or table" if name == "table" else name
    if searched not in searched_by(name):
        raise InputError(
            f"searcher={called} does not know search={searched}; use search={' or '.join(searched_by(name))}, or "
            "searcher=differentiable"
        )
    if searched_by(name) == POLICY_ONLY:
        # There are no cells, and a mistake in their settings is one all the same.
        build(ArchitectureSettings, groups.get("architecture") or {}, "architecture")
        groups = {key: value for key, value in groups.items() if key not in ("search", "architecture")}
    check_space(name, groups.get("policy_space"))
    settings = build(SEARCHES[name], groups)
    if isinstance(settings, DifferentiableSearch):
        settings.check_something_is_learned()
    else:
        reason = f"searcher.name={name} estimates no gradient of a draw"
        remedy = "leave estimator out, or use searcher=differentiable policy_space=pairs"
        refuse_unread(changed(settings.estimator, "estimator"), reason, remedy)
    settings.policy_space.policy()  # a space that cannot be made is told now
    return settings


def searched_by(name: str) -> tuple[str, ...]:
    """What this searcher can search, as written in search=."""
    return next((field.metadata["options"] for field in fields(SEARCHES[name]) if field.name == "search"), POLICY_ONLY)


def check_space(name: str, space: Any) -> None:
    """Refuse the space of another searcher in one sentence, and not setting by setting."""
    names = [field.name for field in fields(get_type_hints(SEARCHES[name])["policy_space"])]
    if isinstance(space, Mapping) and len(set(space) - set(names)) > 1:
        settings = ", ".join(f"policy_space.{one}" for one in names)
        raise InputError(
            f"policy_space is one that searcher.name={name} does not search; leave policy_space out (its settings "
            f"are {settings}), or use searcher={'faster_aa' if name == 'differentiable' else 'differentiable'}"
        )


def new_searcher(
    settings: AnySearch, standard: Standard, seed: int, epochs: int, start: Policy | None = None
) -> Callable[[nn.Module, TrainStep, torch.Generator], AnySearcher]:
    """What the search loop calls with its network, its training step and its noise.

    `start` takes the place of the starting policy of the settings, where cells are searched under one found before.
    """
    if isinstance(settings, RandomSearch):
        return lambda network, train_step, noise: RandomSearcher(settings, seed)
    if isinstance(settings, FasterSearch):
        return lambda network, train_step, noise: FasterSearcher(settings, network, standard, noise)
    if isinstance(settings, TableSearch):
        return lambda network, train_step, noise: TableSearcher(settings, network, train_step, standard, noise, epochs)
    if isinstance(settings, FirstOrderSearch):
        return lambda network, train_step, noise: FirstOrderSearcher(
            settings, network, train_step, standard, noise, epochs
        )
    return lambda network, train_step, noise: DifferentiableSearcher(
        settings, network, train_step, standard, noise, epochs, start
    )
