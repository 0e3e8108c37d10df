"""Settings as checked values: every field has a type and bounds, and all mistakes are told at once."""

import dataclasses
import math
import re
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

from search_spaces.errors import InputError, nearest
from search_spaces.plain_json import shown

T = TypeVar("T")


def bounded(default: Any = dataclasses.MISSING, low: float = -math.inf, high: float = math.inf) -> Any:
    """A number (or None where the type allows it) between low and high, both included."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high})


def choice(default: Any, *options: Any) -> Any:
    """One of a few values; None stands for nothing where the type allows it."""
    return dataclasses.field(default=default, metadata={"options": options})


def build(cls: type[T], data: Mapping[str, Any], where: str = "") -> T:
    """A settings object from plain data; `where` starts the name of every field in the errors."""
    problems: list[str] = []
    built = _build(cls, data, where, problems)
    if problems:
        raise InputError("; ".join(problems))
    return typing.cast(T, built)


def check_fields(settings: Any) -> None:
    """What `build` checks, for a settings object that was made in Python; called by its __post_init__."""
    hints = typing.get_type_hints(type(settings))
    problems: list[str] = []
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        if not dataclasses.is_dataclass(value):
            _convert(value, hints[item.name], item.metadata, f"{type(settings).__name__}.{item.name}", problems)
    if problems:
        raise InputError("; ".join(problems))


def as_plain(settings: Any) -> Any:
    """A settings object as dicts, lists and plain values, ready for JSON."""
    if dataclasses.is_dataclass(settings):
        return {field.name: as_plain(getattr(settings, field.name)) for field in dataclasses.fields(settings)}
    if isinstance(settings, tuple | list):
        return [as_plain(entry) for entry in settings]
    return settings


def leaves(data: Any, name: str = "") -> set[tuple[str, str]]:
    """Plain data as (dotted name, value) pairs: two sets of settings are compared by the difference of theirs."""
    if isinstance(data, dict):
        return {leaf for key, value in data.items() for leaf in leaves(value, f"{name}.{key}" if name else key)}
    return {(name, repr(data))}


def changed(settings: Any, where: str, among: Collection[str] | None = None) -> list[str]:
    """The dotted names of plain settings, of those `among`, that are not at their default; `where` names the group."""
    return [
        f"{where}.{field.name}"
        for field in dataclasses.fields(settings)
        if (among is None or field.name in among) and getattr(settings, field.name) != field.default
    ]


def refuse_unread(names: Sequence[str], reason: str, remedy: str) -> None:
    """Refuse settings that would change nothing, as they would look as if they had been tried."""
    if names:
        raise InputError(f"{', '.join(names)} has no effect, as {reason}; {remedy}")


def called(text: str, group: str, name: str) -> str:
    """What an error says of the settings of a group, said of them under another name."""
    return re.sub(rf"(?<!\w){re.escape(group)}[.]", f"{name}.", text) if group else text


def _build(cls: Any, data: Any, where: str, problems: list[str]) -> Any:
    if not isinstance(data, Mapping):
        first = dataclasses.fields(cls)[0].name
        problems.append(f"{where} is {shown(data)}; wanted a group of settings, as in {where}.{first}=")
        return None
    prefix = f"{where}." if where else ""
    told = len(problems)
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for key in data:
        if key not in fields:
            problems.append(f"{prefix}{key} is not a setting; {nearest(key, fields)}")
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _convert(data[name], hints[name], field.metadata, f"{prefix}{name}", problems)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            problems.append(f"{prefix}{name} is missing; give it a value")
    if len(problems) > told:
        return None
    try:
        return cls(**values)
    except InputError as error:  # what only all fields together can tell
        problems.append(called(str(error), getattr(cls, "GROUP", where), where))
        return None


def _convert(value: Any, hint: Any, metadata: Mapping[str, Any], where: str, problems: list[str]) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, where, problems)
    kinds = _kinds(hint)
    if value is None and type(None) in kinds:
        return None
    sequence = next((kind for kind in kinds if typing.get_origin(kind) is tuple), None)
    if sequence is not None and isinstance(value, list | tuple):
        inner = typing.get_args(sequence)[0]
        return tuple(_convert(entry, inner, metadata, f"{where}[{n}]", problems) for n, entry in enumerate(value))
    matched = _scalar(value, kinds)
    if matched is None:
        listed = f", as in {where}=[{value}]" if sequence is not None and not isinstance(value, dict) else ""
        problems.append(f"{where} is {shown(value)}; wanted {_wanted(kinds, metadata)}{_unquote(value)}{listed}")
    elif not _inside(matched, metadata):
        problems.append(f"{where} is {shown(value)}; wanted {_wanted(kinds, metadata)}")
    return matched


def _kinds(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _scalar(value: Any, kinds: tuple[Any, ...]) -> Any:
    # Python counts True as 1; in a setting it is a mistake.
    if isinstance(value, bool):
        return value if bool in kinds else None
    if isinstance(value, int) and int in kinds:
        return value
    if isinstance(value, int | float) and float in kinds:
        return float(value) if math.isfinite(value) else None
    return value if isinstance(value, str) and str in kinds else None


def _inside(value: Any, metadata: Mapping[str, Any]) -> bool:
    if "options" in metadata:
        return value in metadata["options"]
    if "low" in metadata and not isinstance(value, str):
        return bool(metadata["low"] <= value <= metadata["high"])
    return True


def _wanted(kinds: tuple[Any, ...], metadata: Mapping[str, Any]) -> str:
    if "options" in metadata:
        # An option with a comma in it needs its quotes on the command line, too.
        return "one of " + ", ".join(f"'{one}'" if "," in str(one) else str(one) for one in metadata["options"])
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "null"}
    text = " or ".join(names.get(kind, "a list") for kind in kinds if not (kind is int and float in kinds))
    low, high = metadata.get("low", -math.inf), metadata.get("high", math.inf)
    if math.isfinite(low) and math.isfinite(high):
        return f"{text} from {low:g} to {high:g}"
    return f"{text}, at least {low:g}" if math.isfinite(low) else text


def _unquote(value: Any) -> str:
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return ""
        return ", without quotes (1.0e-3 needs its dot in YAML)"
    return ""
