"""What --help and --cfg print: every setting with its value and its line of help, from settings that were built."""

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from jointsearch.commands.help_lines import INSIDE, Row, help_lines
from jointsearch.commands.quick_help import comments_of
from jointsearch.compose import groups, offered, used_groups
from jointsearch.registry import built_in


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


def help_text(config_name: str, settings: Any, most_used: Sequence[str], words: Sequence[str]) -> str:
    """The whole help of a command; `settings` have the values that these words give them."""
    pairs = [word.split("=", 1) for word in words if "=" in word]
    files = [config_name, *(f"{group}/{value}" for group, value in pairs if value in chosen_from(group))]
    return help_lines(most_used, choices_of(config_name), [comments_of(file) for file in files], list(rows(settings)))


def chosen_from(group: str) -> Sequence[str]:
    """The choices of a group that have a YAML file."""
    return built_in(group) if group in groups() else ()


def choices_of(config_name: str) -> dict[str, list[str]]:
    """The choices of every group of a command."""
    own = sorted(used_groups(config_name) - {"specialized"})
    return {group: offered(group, config_name) for group in own if group in groups()}
