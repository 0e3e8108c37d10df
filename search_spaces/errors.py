"""InputError, the exception that reports a user's mistake."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """A value from the user is wrong. The message is one line: what came, what was wanted, what to do.

    Scripts print the message without a traceback and exit with code 2; a notebook sees an ordinary ValueError.
    """


def nearest(name: object, known: Iterable[str], prefix: str = "") -> str:
    """Suggest a correction for a mistyped name: the closest known names, or else the first 20 of them.

    `prefix` is what stands before the name where it was typed, as in recipe.epochs.
    """
    names = list(known)
    close = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    lowered = {entry.lower(): entry for entry in names}
    if str(name).lower() in lowered:
        close = [lowered[str(name).lower()]]
    if close:
        return f"did you mean {' or '.join(f'{prefix}{entry}' for entry in close)}?"
    return f"choose one of {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}"
