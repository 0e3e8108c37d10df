"""Runs a command: words in, an exit code out. A user's mistake is one line and exit code 2."""

import importlib
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Protocol, cast

from jointsearch.commands.names import COMMANDS, INSTALLED, as_started
from jointsearch.commands.quick_help import quick_help, table
from search_spaces.errors import nearest


class Command(Protocol):
    """A module of this folder."""

    SUBJECT: str | None  # the setting that may be given without its name
    MOST_USED: tuple[str, ...]  # shown first by --help
    Settings: type  # a dataclass

    def main(self, given: Any) -> None:
        """Carry it out with settings."""


def entry_point() -> int:
    """`jointsearch COMMAND name=value ...`."""
    words = sys.argv[1:]
    before = INSTALLED.set(True)
    try:
        return _command(words)
    finally:
        INSTALLED.reset(before)


def _command(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(f"usage: jointsearch {{{','.join(COMMANDS)}}} name=value ...\n\n{_overview()}")
        return 0
    if words[0] not in COMMANDS:
        print(f"error: {words[0]} is not a command; {nearest(words[0], COMMANDS)}", file=sys.stderr)
        return 2
    return run(COMMANDS[words[0]], words[1:])


def run(name: str, arguments: Sequence[str] | None = None) -> int:
    """Run a command by the name of its module and configuration."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if set(HELP) & set(arguments):
        text = quick_help(name, [word for word in arguments if word not in HELP])
        if text is not None:
            print(as_started(text))
            return 0
    # Only now torch is imported, which takes seconds.
    from jointsearch.commands.carry_out import carry_out

    return carry_out(name, cast(Command, _module(name)), arguments)


HELP = ("-h", "--help")


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"jointsearch.commands.{name}")


def _overview() -> str:
    lines = [f"  {word:<12} {table()['commands'][name]['doc']}" for word, name in COMMANDS.items()]
    return "\n".join([*lines, "", "jointsearch COMMAND --help lists its settings."])
