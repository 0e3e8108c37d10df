"""Settings as checked values: every field has a type, bounds and a line of help; all mistakes are reported at once.

    @dataclass(frozen=True)
    class Gumbel:
        temperature: float = bounded(0.5, 1e-3, 100.0, help="of the softmax")

A field made by `group` holds one of several classes. Plain data name the class by `_target_`: a dotted name inside our
packages, or a name that was given to `register`. A key that belongs to another class is an unknown key. Where a class
has `WORD`, the name of one of its fields, the value of that field is enough: network=resnet18.
"""

import dataclasses
import importlib
import math
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from search_spaces.errors import InputError, nearest
from search_spaces.plain_json import shown

T = TypeVar("T")

TARGET = "_target_"
PACKAGES = ("jointsearch.", "search_spaces.")
# Words of other programs, and the setting that they mean here; run= names what a policy is taken from.
SHORT = {"lr": "learning_rate", "bs": "batch_size", "wd": "weight_decay", "epoch": "epochs", "run": "policy"}
registered: dict[str, type] = {}  # classes of user code, by the name that stands after _target_


def setting(default: Any = dataclasses.MISSING, help: str = "", words: Mapping[str, Any] | None = None) -> Any:
    """A field without bounds; in plain data, `words` stand for values."""
    return dataclasses.field(default=default, metadata={"help": help, "words": words or {}})


def bounded(default: Any = dataclasses.MISSING, low: float = -math.inf, high: float = math.inf, help: str = "") -> Any:
    """A number (or None where the type allows it) between low and high, both included."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high, "help": help})


def choice(default: Any, *options: Any, help: str = "") -> Any:
    """One of a few values."""
    return dataclasses.field(default=default, metadata={"options": options, "help": help})


def group(default: Callable[[], Any], help: str = "") -> Any:
    """Settings of their own; where several classes are possible, plain data name one by `_target_`."""
    return dataclasses.field(default_factory=default, metadata={"help": help, "group": True})


def register(name: str, cls: type) -> None:
    """Make a class of user code known under a name, for `_target_`."""
    registered[name] = cls


def target_class(name: str) -> type:
    """The settings class that `_target_` names."""
    if name in registered:
        return registered[name]
    module, _, attribute = name.rpartition(".")
    if not name.startswith(PACKAGES):
        raise InputError(
            f"{TARGET}={name} is not a class of ours and none that was registered; use register(name, cls)"
        )
    found = getattr(importlib.import_module(module), attribute, None)
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise InputError(f"{TARGET}={name} is not a settings class; name a dataclass")
    return found


def is_settings(value: Any) -> bool:
    """Whether this is a settings object, and not its class."""
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def lacks(thing: Any, interface: type) -> list[str]:
    """The methods and properties of an interface that a settings class, or an object of one, does not have."""
    own = {item.name for item in dataclasses.fields(thing)} if dataclasses.is_dataclass(thing) else set()
    wanted = {name: part for name, part in vars(interface).items() if isinstance(part, types.FunctionType | property)}
    return [name for name in wanted if name[0] != "_" and name not in own and not hasattr(thing, name)]


def build(cls: type[T], data: Mapping[str, Any], where: str = "") -> T:
    """A settings object from plain data; `where` starts the name of every field in the errors."""
    problems: list[str] = []
    built = _build(cls, data, where, problems)
    if problems:
        raise InputError("; ".join(problems))
    return typing.cast(T, built)


def check_fields(settings: Any) -> None:
    """Check what `build` checks, for a settings object that was made in Python; called by its __post_init__.

    A text in the place of settings with a `WORD` becomes these settings, as in PolicyOnly(network="resnet18").
    """
    hints = typing.get_type_hints(type(settings))
    problems: list[str] = []
    for item in dataclasses.fields(settings):
        hint, where = hints[item.name], f"{type(settings).__name__}.{item.name}"
        value = _meant(getattr(settings, item.name), item.metadata, hint)
        object.__setattr__(settings, item.name, value)
        if is_settings(value):
            _check_class(value, hint, where, problems)
        elif item.metadata.get("group") and not (value is None and type(None) in _kinds(hint)):
            example = f"{item.name}={type(item.default_factory()).__name__}()"  # type: ignore[operator]
            words = f", or compose_study({item.name}={value!r})" if isinstance(value, str) else ""
            problems.append(f"{where} is {shown(value)}; wanted settings, as in {example}{words}")
        else:
            _convert(value, hint, item.metadata, where, problems)
    if problems:
        raise InputError("; ".join(problems))


def as_plain(settings: Any) -> Any:
    """A settings object as dicts, lists and plain values, ready for JSON; `is` names the class of a group."""
    if is_settings(settings):
        plain: dict[str, Any] = {}
        for item in dataclasses.fields(settings):
            value = getattr(settings, item.name)
            named = {"is": type(value).__name__} if item.metadata.get("group") and value is not None else {}
            plain[item.name] = named | as_plain(value) if named else as_plain(value)
        return plain
    if isinstance(settings, tuple | list):
        return [as_plain(entry) for entry in settings]
    return settings


def leaves(data: Any, name: str = "") -> set[tuple[str, str]]:
    """Plain data as (dotted name, value) pairs: the difference of two such sets compares two sets of settings."""
    if isinstance(data, dict):
        return {leaf for key, value in data.items() for leaf in leaves(value, f"{name}.{key}" if name else key)}
    return {(name, repr(data))}


def called(text: str, group_name: str, name: str) -> str:
    """An error about the settings of one group, rewritten for a group of another name."""
    return re.sub(rf"(?<!\w){re.escape(group_name)}[.]", f"{name}.", text) if group_name else text


def names_within(cls: Any) -> list[str]:
    """Dotted names of all settings of a class, and of the groups within it as they are by default."""
    found = []
    for item in dataclasses.fields(cls):
        default = None if item.default_factory is dataclasses.MISSING else item.default_factory()
        inner = names_within(default) if is_settings(default) else []
        found += [item.name, *(f"{item.name}.{name}" for name in inner)]
    return found


def meant(key: str, names: Sequence[str], prefix: str = "") -> str:
    """What a name that is no setting may mean: a setting of a group within, or of its own place; else one like it."""
    wanted = SHORT.get(key, key)
    within = [name for name in names if name.rpartition(".")[2] == wanted]
    direct = [name for name in names if "." not in name]
    if within:
        return f"did you mean {' or '.join(f'{prefix}{name}' for name in within)}?"
    return nearest(key, direct, prefix)


def _build(cls: Any, data: Any, where: str, problems: list[str], base: Any = None) -> Any:
    """Settings of a class; what the data leave out is as in `base`, or as the class has it."""
    if not isinstance(data, Mapping):
        first = dataclasses.fields(cls)[0].name
        problems.append(f"{where} is {shown(data)}; wanted a group of settings, as in {where}.{first}=")
        return None
    if TARGET in data:
        cls = target_class(data[TARGET])
    if not isinstance(base, cls):
        base = None
    prefix = f"{where}." if where else ""
    before = len(problems)
    hints = typing.get_type_hints(cls)
    fields = {item.name: item for item in dataclasses.fields(cls)}
    for key in data:
        if key not in fields and key != TARGET:
            of = f" of {where}={cls.__name__}" if TARGET in data else ""
            remedy = meant(key, names_within(cls), prefix) if fields else f"it has none; choose another {where}= before"
            problems.append(f"{prefix}{key} is not a setting{of}; {remedy}")
    values = {}
    for name, item in fields.items():
        if name in data:
            values[name] = _field(data[name], hints[name], item, f"{prefix}{name}", problems)
        elif base is not None:
            values[name] = getattr(base, name)
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            problems.append(f"{prefix}{name} is missing; give it a value")
    if len(problems) > before:
        return None
    try:
        return cls(**values)
    except InputError as error:  # errors that involve several fields
        problems.append(called(str(error), getattr(cls, "GROUP", where), where))
        return None


def _field(value: Any, hint: Any, item: Any, where: str, problems: list[str]) -> Any:
    """A field: settings of their own, or a plain value."""
    kinds = _kinds(hint)
    classes: list[Any] = [kind for kind in kinds if dataclasses.is_dataclass(kind)]
    value = _meant(value, item.metadata, hint)
    if not classes and not item.metadata.get("group"):
        return _convert(value, hint, item.metadata, where, problems)
    if value is None and type(None) in kinds:
        return None
    if is_settings(value):
        built = value
    else:
        base = None if item.default_factory is dataclasses.MISSING else item.default_factory()
        if base is None and not classes and not (isinstance(value, Mapping) and TARGET in value):
            problems.append(f"{where} is {shown(value)}; choose one of the group first, as in {where}=NAME")
            return None
        built = _build(classes[0] if base is None and classes else type(base), value, where, problems, base)
    if built is not None:
        _check_class(built, hint, where, problems)
    return built


def _check_class(settings: Any, hint: Any, where: str, problems: list[str]) -> None:
    """Whether settings are of one of the classes of a field, or have what its interface names."""
    kinds = _kinds(hint)
    classes: list[Any] = [kind for kind in kinds if dataclasses.is_dataclass(kind)]
    name = type(settings).__name__
    if classes and not isinstance(settings, tuple(classes)):
        wanted = " or ".join(cls.__name__.lower() for cls in classes)
        problems.append(f"{where}={name.lower()} does not fit here; use {where}={wanted}")
    elif not classes and all(lacking := [lacks(settings, kind) for kind in kinds if kind is not type(None)]):
        missing = ", ".join(lacking[0])
        problems.append(f"{where}={name} does not fit here, because it has no {missing}; use another class")


def _meant(value: Any, metadata: Mapping[str, Any], hint: Any) -> Any:
    """What a text stands for: a word of the field, or the settings that a word names; any other value as it is."""
    if not isinstance(value, str):
        return value
    named = next((kind for kind in _kinds(hint) if hasattr(kind, "WORD")), None)
    return metadata.get("words", {}).get(value, value) if named is None else named(**{named.WORD: value})


def _convert(value: Any, hint: Any, metadata: Mapping[str, Any], where: str, problems: list[str]) -> Any:
    kinds = _kinds(hint)
    if value is None and type(None) in kinds:
        return None
    sequence = next((kind for kind in kinds if typing.get_origin(kind) is tuple), None)
    if sequence is not None and isinstance(value, list | tuple):
        inner = typing.get_args(sequence)[0]
        return tuple(_convert(entry, inner, metadata, f"{where}[{n}]", problems) for n, entry in enumerate(value))
    if is_settings(value) and type(value) in kinds:
        return value
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
    parts = [names.get(kind, "a list") for kind in kinds if not (kind is int and float in kinds)]
    text, low = " or ".join([*parts, *metadata.get("words", {})]), metadata.get("low", -math.inf)
    high = metadata.get("high", math.inf)
    if math.isfinite(low) and math.isfinite(high):
        return f"{text} from {low:g} to {high:g}"
    return f"{text}, at least {low:g}" if math.isfinite(low) else text


def _unquote(value: Any) -> str:
    is_number = isinstance(value, str) and re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", value, re.IGNORECASE)
    return ", without quotes (1.0e-3 needs its dot in YAML)" if is_number else ""
