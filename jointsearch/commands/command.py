"""Runs a command: words in, an exit code out. A user's mistake is one line and exit code 2."""

import errno
import importlib
import logging
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Protocol, cast

from jointsearch.commands.help import help_text, plain_value, rows
from jointsearch.commands.names import COMMANDS, INSTALLED, as_started
from jointsearch.commands.typed import TYPED, with_kept
from jointsearch.compose import Composed, compose_words
from jointsearch.loops.journal import Interrupted
from jointsearch.runs.checkpoint import CheckpointError
from jointsearch.settings import build
from search_spaces.errors import InputError, nearest

DISK_ERROR = 74
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
        return _fail(f"{words[0]} is not a command; {nearest(words[0], COMMANDS)}", 2)
    return run(COMMANDS[words[0]], words[1:])


def run(name: str, arguments: Sequence[str] | None = None) -> int:
    """Run a command by the name of its module and configuration."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(format="%(message)s")
    composed = Composed({})
    try:
        command = cast(Command, _module(name))
        flags = [word for word in arguments if word.startswith("-")]
        given_words = [word for word in arguments if word not in ("--cfg", "job", *HELP)]
        words = [_word(word, command.SUBJECT, given_words) for word in given_words]
        words = getattr(command, "own_words", list)(words)  # a sweep hands words on
        words, kept = with_kept(name, words)
        composed = compose_words(name, words)
        # Most commands have one class of settings; that of joint_search composes a study.
        read: Callable[[Composed], Any] = getattr(command, "read", lambda one: build(command.Settings, one.values))
        given = read(composed)
        if set(HELP) & set(flags):
            print(as_started(help_text(name, given, command.MOST_USED)))
        elif "--cfg" in flags:
            print("\n".join(f"{row.name}={plain_value(row.value)}" for row in rows(given)))
        else:
            if kept is not None:
                print(f"With the words of {kept}: {' '.join(words)}")
            _carry_out(name, words, command, given)
    except InputError as error:
        return _fail(composed.explained(str(error)), 2)
    except CheckpointError as error:
        return _fail(str(error), DISK_ERROR)
    except OSError as error:
        if error.errno not in FULL:
            raise
        what = error.filename or "a file of the run"
        return _fail(f"{what} cannot be written ({error.strerror}); free some space, then go on with run=", DISK_ERROR)
    except Interrupted as interrupted:
        return _fail(str(interrupted), interrupted.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted; what was finished before is kept, the same command with run= goes on", 130)
    return 0


HELP = ("-h", "--help")


def _carry_out(name: str, words: list[str], command: Command, given: Any) -> None:
    before = TYPED.set((name, tuple(words)))
    try:
        command.main(given)
    finally:
        TYPED.reset(before)


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"jointsearch.commands.{name}")


def _overview() -> str:
    lines = [f"  {word:<10} {(_module(name).__doc__ or '').splitlines()[0]}" for word, name in COMMANDS.items()]
    return "\n".join([*lines, "", "jointsearch COMMAND --help lists its settings."])


def _word(word: str, subject: str | None, words: Sequence[str]) -> str:
    """A word of the command line as name=value; that which a command is about may come without its name."""
    if word.startswith("-") and "=" in word:
        raise InputError(f"{word} has dashes before its name; settings are written without: {word.lstrip('-')}")
    if "=" in word or word.startswith("~"):
        return word
    if word.startswith("-"):
        raise InputError(f"{word} is not an option; settings are written name=value, and --help lists them")
    if subject is None:
        raise InputError(f"{word} is not a setting; settings are written name=value, as in seeds=[0]")
    if others := [other for other in words if other != word and (other.startswith(f"{subject}=") or "=" not in other)]:
        raise InputError(f"{word} stands beside {others[0]}, and only one of them can be {subject}=; name the other")
    return f"{subject}={word}"


def _fail(message: str, code: int) -> int:
    print(f"error: {as_started(message)}", file=sys.stderr)
    return code
