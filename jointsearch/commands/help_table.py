"""Writes configs/help.json, from which --help is printed: python -m jointsearch.commands.help_table

To be run after a change of a setting, of its help, or of a YAML file.
"""

import importlib
import json
import re
import typing
from dataclasses import MISSING, fields, is_dataclass
from types import UnionType
from typing import Any

from jointsearch.commands.help import choices_of
from jointsearch.commands.names import COMMANDS
from jointsearch.commands.quick_help import TABLE, TARGET
from jointsearch.compose import CONFIGS, content
from jointsearch.compose.files import chosen, class_of, defaults_of
from jointsearch.registry import groups
from jointsearch.runs.run_folder import replace_file
from jointsearch.study import Study


def help_table() -> dict[str, Any]:
    """Commands, YAML files and settings classes, as plain data."""
    modules = {name: importlib.import_module(f"jointsearch.commands.{name}") for name in COMMANDS.values()}
    commands = {
        name: {
            "doc": (module.__doc__ or "").splitlines()[0],
            "subject": module.SUBJECT,
            "most_used": module.MOST_USED,
            "choices": choices_of(name),
            "defaults": dict(defaults_of(name)),
            "settings": name_of(module.Settings),
            "study": name_of(Study),
        }
        for name, module in modules.items()
    }
    files = {
        f"{path.parent.name}/{path.stem}": {
            "values": content(path),
            "global": bool(re.match(r"# @package _global_", path.read_text(encoding="utf-8"))),
            "chosen": chosen(path),
        }
        for path in sorted(CONFIGS.glob("*/*.yaml"))
    }
    classes: dict[str, Any] = {}
    choices = [class_of(group, name) for group, names in groups().items() for name in names if group != "specialized"]
    for cls in [Study, *(module.Settings for module in modules.values()), *(cls for cls in choices if cls)]:
        _add(cls, classes)
    return {"commands": commands, "files": files, "classes": dict(sorted(classes.items()))}


def as_text() -> str:
    """The table as it stands in its file: a line for each command, YAML file and class."""
    parts = [
        f' "{part}": {{\n'
        + ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in held.items())
        + "\n }"
        for part, held in help_table().items()
    ]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def name_of(cls: type) -> str:
    """How a YAML file names a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


def _add(cls: type, classes: dict[str, Any]) -> None:
    """A class, and those of its groups: help, the class of a group that is set in part, and the defaults."""
    if name_of(cls) in classes:
        return
    hints = typing.get_type_hints(cls)
    about: dict[str, tuple[str, str | None]] = {}
    word = {"word": cls.WORD} if hasattr(cls, "WORD") else {}
    # Not those of an object: a study without a recipe takes one that suits its search.
    values = {
        item.name: item.default if item.default_factory is MISSING else item.default_factory() for item in fields(cls)
    }
    classes[name_of(cls)] = {"fields": about, "values": {TARGET: name_of(cls), **_plain(values)}, **word}
    for item in fields(cls):
        default = None if item.default_factory is MISSING else item.default_factory()
        kinds: list[Any] = [type(default)] if is_dataclass(default) else []
        hint = hints[item.name]
        possible = typing.get_args(hint) if isinstance(hint, UnionType) else (hint,)
        kinds += [kind for kind in possible if is_dataclass(kind)]
        about[item.name] = (item.metadata.get("help", ""), name_of(kinds[0]) if kinds else None)
        for kind in kinds:
            _add(kind, classes)


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {TARGET: name_of(type(value))} | {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple | list) else value


if __name__ == "__main__":
    replace_file(TABLE, as_text().encode())
