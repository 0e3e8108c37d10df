"""Python values in the place of words: what a notebook hands to `compose_study`."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jointsearch.networks.network_settings import NetworkSettings
from jointsearch.settings import is_settings
from search_spaces.errors import InputError

NAMED = {"network": NetworkSettings.WORD}  # beside network=NAME stand its settings, as network.pretrained=true


def plain(value: Any) -> Any:
    """A value as settings take it: paths as text, sequences and arrays as lists. Settings objects stay."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | range):
        return [plain(entry) for entry in value]
    return plain(value.tolist()) if hasattr(value, "tolist") else value


def check_beside(values: Mapping[str, Any], names: Iterable[str]) -> None:
    """Refuse settings beside an object that holds them all."""
    for name, value in values.items():
        if is_settings(value) and (beside := [one for one in names if one.startswith(f"{name}.")]):
            raise InputError(
                f"{beside[0]} is given beside {name}={type(value).__name__}(...), which holds it; set it in that object"
            )


def put(settings: dict[str, Any], name: str, value: Any) -> None:
    """Set what a dotted name names; a dict sets what it holds, and leaves the rest."""
    first, _, rest = name.partition(".")
    if first in NAMED and isinstance(settings.get(first), str) and (rest or isinstance(value, Mapping)):
        settings[first] = {NAMED[first]: settings[first]}
    if first in NAMED and isinstance(settings.get(first), Mapping) and isinstance(value, str):
        rest = rest or NAMED[first]
    if not rest and not isinstance(value, Mapping):
        settings[first] = value
        return
    inner = settings.get(first)
    inner = settings[first] = dict(inner) if isinstance(inner, Mapping) else {}
    for key, entry in [(rest, value)] if rest else value.items():
        put(inner, key, entry)
