"""Training with what a search found as that search would have: its data, network, size of the cells, and recipe."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from jointsearch.commands.found import found_seeds
from jointsearch.commands.help import rows
from jointsearch.commands.help_lines import plain_value
from jointsearch.commands.typed import kept_value
from jointsearch.compose import Composed, class_of, put
from jointsearch.loops.grid import CELLS, CellsSettings
from jointsearch.loops.recipe import Recipe
from jointsearch.networks.network_settings import NetworkSettings
from jointsearch.settings import TARGET, build, target_class
from jointsearch.study import STUDY_FILE
from search_spaces.errors import InputError
from search_spaces.plain_json import read_json

PLACES = ("path", "test_path")  # of data; a run folder holds their last name only


def as_searched(composed: Composed) -> tuple[dict[str, Any], list[str]]:
    """The settings of retrain.py with those of the search that run= names, and what was taken of it.

    What the user or a preset set stays.
    """
    values, run = dict(composed.values), composed.values.get("run")
    of_search = isinstance(run, str) and not (values.get("policy") or values.get("genotype")) and found_seeds(run)
    if not of_search or not Path(str(run), STUDY_FILE).is_file():
        return values, []
    kept = read_json(Path(str(run), STUDY_FILE), "settings of a study")
    named = composed.typed.union(*composed.brought.values())
    taken: dict[str, Any] = {}
    cls = class_of("dataset", kept["dataset"]["name"])
    if cls is not None and ("dataset" not in named or target_class(values["dataset"][TARGET]) is cls):
        plain = _over(kept["dataset"], values, named, "dataset")
        plain |= {name: _place(str(run), name, plain[name]) for name in PLACES if _is_left(kept, plain, name)}
        taken["dataset"] = build(cls, plain, "dataset")
    if "recipe" not in named:
        taken["recipe"] = build(Recipe, _over(kept["recipe"], values, named, "recipe"), "recipe")
    network = kept["network"]
    if network["name"] == CELLS:
        taken["cells"] = build(CellsSettings, _over(kept["cells"], values, named, "cells"), "cells")
    elif "network" not in named:
        plain = {"name": network["name"]} | _over(network, values, named, "network")
        taken["network"] = build(NetworkSettings, plain, "network")
    return values | taken, [word for name in taken for word in _words(name, taken[name], named)]


def _over(kept: dict[str, Any], values: dict[str, Any], named: frozenset[str], group: str) -> dict[str, Any]:
    """The settings of a group as the search had them, but for those that are named here."""
    plain = _without_classes(kept)
    for name in sorted(one for one in named if one.startswith(f"{group}.")):
        value: Any = values
        for part in name.split("."):
            value = value[part]
        put(plain, name.partition(".")[2], value)
    return plain


def _without_classes(kept: Any) -> Any:
    if not isinstance(kept, dict):
        return kept
    return {name: _without_classes(value) for name, value in kept.items() if name not in ("is", "name")}


def _is_left(kept: dict[str, Any], plain: dict[str, Any], name: str) -> bool:
    return plain.get(name) is not None and plain[name] == kept["dataset"].get(name)


def _place(run: str, name: str, last: str) -> str:
    """Where data of this name lie, by the words of the search."""
    place = kept_value(run, f"dataset.{name}")
    if place is None or not Path(place).expanduser().exists():
        raise InputError(
            f"the search in {run} was on dataset.{name}={last}, of which a run folder keeps only the name; give "
            f"dataset.{name}= with its folders"
        )
    return place


def _words(name: str, value: Any, named: frozenset[str]) -> Iterator[str]:
    """What was taken, as words: where it is no default, and was not named here."""
    if name in ("dataset", "network") and name not in named:
        yield f"{name}={value.name}"
    default: dict[str, Any] = {}
    with suppress(TypeError):  # of user code, perhaps without defaults
        default = {row.name: row.value for row in rows(type(value)(), f"{name}.")}
    for row in rows(value, f"{name}."):
        if row.name not in (*named, "network.name") and default.get(row.name, ...) != row.value:
            yield f"{row.name}={plain_value(row.value)}"
