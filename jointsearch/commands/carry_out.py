"""Builds the settings of a command from its words and carries it out; a mistake of the user is one line."""

import contextlib
import errno
import io
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from jointsearch.commands.help import help_text, rows
from jointsearch.commands.help_lines import plain_value
from jointsearch.commands.names import as_started
from jointsearch.commands.typed import TYPED, with_kept
from jointsearch.compose import Composed, compose_words
from jointsearch.distributed import failed_elsewhere, is_first, processes, tell, together
from jointsearch.loops.journal import Interrupted
from jointsearch.runs.checkpoint import CheckpointError
from jointsearch.settings import build
from search_spaces.errors import InputError

if TYPE_CHECKING:
    from jointsearch.commands.command import Command

DISK_ERROR = 74
SHARED = ("joint_search", "retrain", "detect")  # commands that several processes of torchrun carry out together
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
HELP = {"-h", "--help"}


def carry_out(name: str, command: "Command", arguments: Sequence[str]) -> int:
    """The exit code of a command with these words."""
    with together(), contextlib.nullcontext() if is_first() else contextlib.redirect_stdout(io.StringIO()):
        logging.basicConfig(format="%(message)s", level=logging.WARNING if is_first() else logging.CRITICAL)
        return _carried_out(name, command, arguments)


def _carried_out(name: str, command: "Command", arguments: Sequence[str]) -> int:
    composed = Composed({})
    try:
        _check_processes(name)
        flags = {word for word in arguments if word.startswith("-") and "=" not in word}
        given_words = [word for word in arguments if word not in ("--cfg", "job", *HELP)]
        given_words, several = _several(command, given_words)
        named = [_word(word, command.SUBJECT, given_words) for word in given_words]
        own = getattr(command, "own_words", list)(named)  # a sweep hands words on
        words, kept = with_kept(name, own)
        composed = compose_words(name, words, several)
        # Most commands have one class of settings; that of joint_search composes a study.
        read: Callable[[Composed], Any] = getattr(command, "read", lambda one: build(command.Settings, one.values))
        given = read(composed)
        if HELP & flags:
            print(as_started(help_text(name, given, command.MOST_USED, words)))
        elif "--cfg" in flags:
            print("\n".join(f"{row.name}={plain_value(row.value)}" for row in rows(given)))
        else:
            if kept is not None:
                print(f"With the words of {kept}: {' '.join(words)}")
            _main(name, words, command, given)
    except InputError as error:
        return _fail(composed.explained(str(error)), 2)
    except RuntimeError:  # of a message that another process did not answer
        if (reason := failed_elsewhere()) is None:
            raise
        return _fail(reason, 1) if reason else 1
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


def _check_processes(name: str) -> None:
    if processes() > 1 and name not in SHARED:
        raise InputError(f"{name} does its work in one process; start it without torchrun")


def _main(name: str, words: list[str], command: "Command", given: Any) -> None:
    before = TYPED.set((name, tuple(words)))
    try:
        command.main(given)
    finally:
        TYPED.reset(before)


def _several(command: "Command", words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Other words, and those without a name of a command that may be about several things: any path may be one."""
    subject = command.SUBJECT
    if subject is None or tuple[str, ...] not in get_args(get_type_hints(command.Settings).get(subject)):
        return list(words), {}
    named = re.compile(r"[\w.]+=|[-~]")  # a folder of a sweep holds = too, after a slash or as seeds=0,search=joint
    found = [word for word in words if not named.match(word) or os.path.exists(word)]
    if found and (others := [word for word in words if word.startswith(f"{subject}=")]):
        raise InputError(f"{found[0]} stands beside {others[0]}; give all of them without {subject}=")
    return [word for word in words if word not in found], {
        subject: found[0] if len(found) == 1 else found
    } if found else {}


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
    tell(message, lambda text: print(f"error: {as_started(text)}", file=sys.stderr, flush=True))
    return code
