"""InputError, the exception that reports a user's mistake."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

FEW = 12


class InputError(ValueError):
    """A value from the user is wrong. The message is one line: what came, what was wanted, what to do.

    Scripts print the message without a traceback and exit with code 2; a notebook sees an ordinary ValueError.
    """


def nearest(name: object, known: Iterable[str], prefix: str = "") -> str:
    """Suggest a correction for a mistyped name: the closest known names, else all where they are few, else three.

    `prefix` is what stands before the name where it was typed, as in recipe.epochs.
    """
    names = list(known)
    close = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    lowered = {entry.lower(): entry for entry in names}
    if str(name).lower() in lowered:
        close = [lowered[str(name).lower()]]
    if close:
        return f"did you mean {' or '.join(f'{prefix}{entry}' for entry in close)}?"
    if len(names) <= FEW:
        return f"choose one of {', '.join(names)}"
    close = difflib.get_close_matches(str(name), names, n=3, cutoff=0.0)
    return f"choose one of the {len(names)} known ones, the nearest are {', '.join(close)}"


def check_distinct(where: str, values: Sequence[Any]) -> None:
    """Refuse a list that names something twice."""
    if len(set(values)) < len(values):
        raise InputError(f"{where} is {list(values)}, with one of them twice; name each once")
