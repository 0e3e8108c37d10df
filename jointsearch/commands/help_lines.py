"""The lines that --help prints. Nothing of torch is imported for them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

INSIDE = ("study", "search")  # their settings stand at the top of the command line, without this name
WIDTH = 44


class Row(NamedTuple):
    """One setting."""

    name: str
    value: Any
    help: str


def plain_value(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, tuple):
        return "[" + ",".join(map(plain_value, value)) + "]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else f"{value}"


def help_lines(
    most_used: Sequence[str], choices: dict[str, list[str]], comments: Sequence[Sequence[str]], every: Sequence[Row]
) -> str:
    """The whole help of a command; `comments` are those of its YAML file and of the files that were chosen."""
    first = [row for name in most_used for row in every if row.name == name]
    lines = [line for part in comments for line in ("", *part)][1:]
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
