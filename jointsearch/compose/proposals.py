"""Searches by name, whose findings another search judges."""

from collections.abc import Sequence
from typing import Any

from jointsearch.compose.words import compose_words
from jointsearch.registry import built_in, groups
from jointsearch.search_kinds import PolicyOnly, Proposal, has_population
from search_spaces.errors import InputError, nearest


def proposals_of(given: Any, kind_of: Any) -> Any:
    """Proposals for the names of searchers and presets; `kind_of` makes the kind of search of a configuration."""
    if not isinstance(given, Sequence) or isinstance(given, str):
        return given  # refused when the settings are built
    return [_proposal(one, kind_of) if isinstance(one, str) else one for one in given]


def _proposal(name: str, kind_of: Any) -> Proposal:
    searchers, presets = groups()["searcher"], built_in("preset")
    if name not in (*searchers, *presets):
        raise InputError(f"proposals has {name}, which is no searcher and no preset; {nearest(name, searchers)}")
    word = f"searcher={name}" if name in searchers else f"preset={name}"
    kind = kind_of(compose_words("joint_search", ["search=policy"] * (name in searchers) + [word]))
    if not isinstance(kind, PolicyOnly) or has_population(kind.searcher):
        raise InputError(f"proposals has {name}, which is no search of a policy inside one training; leave it out")
    return Proposal(name, kind)
