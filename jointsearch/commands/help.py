"""What --help and --cfg print: every setting with its value and its line of help."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

from jointsearch.compose import CONFIGS, groups, offered, used_groups

INSIDE = ("study", "search")  # their settings stand at the top of the command line, without this name
WIDTH = 44


class Row(NamedTuple):
    """One setting."""

    name: str
    value: Any
    help: str


def rows(settings: Any, prefix: str = "") -> Iterator[Row]:
    """Every setting of an object, by the name under which the command line sets it."""
    for item in fields(settings):
        value, name = getattr(settings, item.name), f"{prefix}{item.name}"
        if prefix and item.name == getattr(settings, "WORD", None):
            name = prefix.removesuffix(".")
        if not is_dataclass(value):
            yield Row(name, value, item.metadata.get("help", ""))
        elif item.name in INSIDE:
            yield from rows(value)
        elif prefix == "searcher." and item.metadata.get("group"):
            yield from rows(value, f"{item.name}.")
        else:
            yield from rows(value, f"{name}.")


def plain_value(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, tuple):
        return "[" + ",".join(map(plain_value, value)) + "]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else f"{value}"


def help_text(config_name: str, settings: Any, most_used: tuple[str, ...]) -> str:
    """The whole help of a command; `settings` have the values that it has now."""
    comments = (CONFIGS / f"{config_name}.yaml").read_text(encoding="utf-8").splitlines()
    lines = [line[2:] for line in comments if line.startswith("# ")]
    every = list(rows(settings))
    first = [row for name in most_used for row in every if row.name == name]
    choices = choices_of(config_name)
    lines += ["", "Most used:"] if most_used else []
    lines += [f"  {name}={'|'.join(choices[name])}" for name in most_used if name in choices]
    lines += [line(row) for row in first]
    lines += ["", "Choices (group=name):"] if choices else []
    lines += [f"  {group}: {', '.join(names)}" for group, names in choices.items()]
    lines += ["", "Settings, with the values that they have now:"]
    lines += [line(row) for row in every]
    lines += ["", "Choices and settings may be combined with --help: it then shows the settings of what was chosen."]
    return "\n".join(lines)


def line(row: Row) -> str:
    """One setting as a line."""
    return f"  {f'{row.name}={plain_value(row.value)}':<{WIDTH}}  # {row.help}".rstrip(" #")


def choices_of(config_name: str) -> dict[str, list[str]]:
    """The choices of every group of a command."""
    own = sorted(used_groups(config_name) - {"specialized"})
    return {group: offered(group, config_name) for group in own if group in groups()}
