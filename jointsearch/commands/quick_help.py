"""--help in a fraction of a second: from a table of all settings, without torch.

The table is `configs/help.json`, made of the settings classes and YAML files by `python -m
jointsearch.commands.help_table`. Words that need more than it holds, as plugins and presets, get None here, and the
settings are then built. Both ways print the same; only what settings forbid each other is not looked for here.
"""

import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jointsearch.commands.help_lines import INSIDE, Row, help_lines

TABLE = Path(__file__).resolve().parents[1] / "configs" / "help.json"
TARGET = "_target_"
NEEDS_MORE = ("plugins", "preset", "experiment", "budget", "run")
MAIN = "joint_search"  # its settings are a study's, and stand without the names of the groups that hold them
GROUPS_OF_SEARCHERS = ("policy_space", "estimator")
PLAIN_WORD = re.compile(r"(?!true$|false$|null$|nan$|inf$|[-+.\d])[\w./@-]+", re.IGNORECASE)


class Unknown(Exception):
    """The table does not say it."""


def quick_help(name: str, words: Sequence[str]) -> str | None:
    """What --help prints; None where the settings have to be built."""
    try:
        command = table()["commands"][name]
        given = dict(word.split("=", 1) for word in words)
        picked = {group: value for group, value in given.items() if group in command["choices"]}
        every = list(_rows(_settings(name, _composed(name, given, picked), set(given)), ""))
    except (Unknown, ValueError, KeyError, OSError):
        return None
    comments = [comments_of(f"{group}/{value}") for group, value in picked.items() if value != "null"]
    return help_lines(command["most_used"], command["choices"], [comments_of(name), *comments], every)


@cache
def table() -> dict[str, Any]:
    """The table of all settings."""
    return json.loads(TABLE.read_text(encoding="utf-8"))


def comments_of(file: str) -> list[str]:
    """The comment with which a YAML file begins, without what Hydra reads of it."""
    lines = (TABLE.parent / f"{file}.yaml").read_text(encoding="utf-8").splitlines()
    return [line[2:] for line in lines if line.startswith("# ") and not line.startswith("# @package")]


def _composed(name: str, given: dict[str, str], picked: dict[str, str]) -> dict[str, Any]:
    """The values of the YAML files that are chosen, and of the words."""
    files, command = table()["files"], table()["commands"][name]
    if any(word.partition(".")[0] in NEEDS_MORE for word in given):
        raise Unknown
    for group, value in picked.items():
        if value not in command["choices"][group]:
            raise Unknown
    chosen: dict[str, Any] = command["defaults"] | picked
    for group in ("search", "searcher"):
        brought = files.get(f"{group}/{chosen.get(group)}", {"chosen": {}})["chosen"]
        chosen |= {other: value for other, value in brought.items() if other not in picked}
    values: dict[str, Any] = {}
    for group, value in chosen.items():
        place = re.sub(r"\$\{(\w+)\}", lambda found: str(chosen.get(found[1])), f"{group}/{value}")
        file = files.get(place)
        if file is not None:
            _merge(values, file["values"] if file["global"] else {group: file["values"]})
    for word, value in given.items():
        if word not in picked:
            inner: Any = _read(value)
            for part in reversed(word.split(".")):
                inner = {part: inner}
            _merge(values, inner)
    return values


def _merge(values: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(values.get(key), str):
            raise Unknown  # a word that stands for settings, and more of these
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            _merge(values[key], value)
        else:
            values[key] = json.loads(json.dumps(value))


def _read(value: str) -> Any:
    """A value of the command line, where it is a number, a word, or a list of them."""
    if value.startswith("[") and value.endswith("]"):
        return [_read(one) for one in value[1:-1].split(",")] if value != "[]" else []
    if PLAIN_WORD.fullmatch(value):
        return value
    read = json.loads(value)  # a ValueError where it is anything else
    if isinstance(read, dict | list):
        raise Unknown
    return read


def _settings(name: str, values: dict[str, Any], given: set[str]) -> dict[str, Any]:
    """The settings of a command with these values."""
    classes, command = table()["classes"], table()["commands"][name]
    values = {key: value for key, value in values.items() if value != {}}
    if name != MAIN:
        return _built(command["settings"], values, None)
    searches = classes[values["search"][TARGET]]["fields"]
    for holder in ("searcher", "search"):
        if isinstance(values.get(holder), dict) and (holder in searches or holder == "search"):
            own = classes[values[holder][TARGET]]["fields"]
            values[holder] |= {one: values.pop(one) for one in own if one in values and one != holder}
    study = classes[command["study"]]["fields"]
    typed = {word.partition(".")[0] for word in given}
    if any(one not in study and (one in typed or one not in command["choices"]) for one in values):
        raise Unknown  # it would be refused
    built = _built(command["study"], {key: value for key, value in values.items() if key in study}, None)
    return _built(command["settings"], {}, None) | {"study": built}


def _built(cls: str, data: dict[str, Any], base: dict[str, Any] | None) -> dict[str, Any]:
    """Settings of a class, as values by name; what the data leave out is as in `base`, or as the class has it."""
    cls = data.get(TARGET, cls)
    known = table()["classes"][cls]
    before = base if base is not None and base[TARGET] == cls else known["values"]
    if any(key not in known["fields"] and key != TARGET for key in data):
        raise Unknown
    settings: dict[str, Any] = {TARGET: cls}
    for name, (_, kind) in known["fields"].items():
        value, old = data.get(name, before[name]), before[name]
        if isinstance(value, str) and kind and "word" in table()["classes"][kind]:
            value = {table()["classes"][kind]["word"]: value}
        if isinstance(value, dict):
            value = _built(kind, value, old) if value is not old else old
        elif (kind and name in data and value is not None) or (isinstance(old, float) and type(value) is int):
            raise Unknown  # what is refused, or converted
        settings[name] = value
    return settings


def _rows(settings: dict[str, Any], prefix: str) -> Iterator[Row]:
    """Every setting, by the name under which the command line sets it."""
    known = table()["classes"][settings[TARGET]]
    for item, (said, _) in known["fields"].items():
        value, name = settings[item], f"{prefix}{item}"
        if prefix and item == known.get("word"):
            name = prefix.removesuffix(".")
        if not isinstance(value, dict):
            yield Row(name, tuple(value) if isinstance(value, list) else value, said)
        elif item in INSIDE:
            yield from _rows(value, "")
        elif prefix == "searcher." and item in GROUPS_OF_SEARCHERS:
            yield from _rows(value, f"{item}.")
        else:
            yield from _rows(value, f"{name}.")
