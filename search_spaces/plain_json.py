"""Reads JSON files as plain data; checks size, depth, keys, format and version before it uses any value."""

import json
import math
from pathlib import Path
from typing import Any, NoReturn

from search_spaces.errors import InputError, nearest

# RandAugment with three ops, our largest policy, takes 0.6 MB.
MAX_BYTES = 1_000_000
MAX_DEPTH = 8
MAX_DIGITS = 30


def read_json(path: Path | str, what: str, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> Any:
    """Read one JSON file; `what` names it in errors ("policy", "genotype", ...)."""
    return parse_json(read_text(path, what, max_bytes), f"{what} file {shown_path(path)}", max_depth)


def read_text(path: Path | str, what: str, max_bytes: int = MAX_BYTES) -> str:
    """The UTF-8 text of a regular file of at most `max_bytes`."""
    try:
        return read_bytes(path, what, max_bytes).decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{what} file {shown_path(path)} is not UTF-8 text; save it as plain text") from None


def read_bytes(path: Path | str, what: str, max_bytes: int = MAX_BYTES) -> bytes:
    """The content of a regular file of at most `max_bytes`."""
    path, where = Path(path), f"{what} file {shown_path(path)}"
    try:
        if not path.is_file():
            kind = "a folder" if path.is_dir() else "not a regular file" if path.exists() else "not there"
            raise InputError(f"{where} is {kind}; give the path of a {what} file")
        with path.open("rb") as stream:
            raw = stream.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where} cannot be read ({error}); check its path and permissions") from None
    if len(raw) > max_bytes:
        raise InputError(f"{where} has more than {max_bytes:,} bytes; it cannot be a {what}, check the path")
    return raw


def parse_json(text: str, where: str, max_depth: int = MAX_DEPTH) -> Any:
    """Parse JSON text; `where` starts every error."""
    if _depth(text) > max_depth:
        raise InputError(f"{where} is nested deeper than {max_depth} levels; flatten it")
    try:
        return json.loads(
            text,
            object_pairs_hook=lambda pairs: _unique(pairs, where),
            parse_constant=lambda name: _refuse_number(name, where),
            parse_int=lambda digits: int(digits) if len(digits) <= MAX_DIGITS else _refuse_number(digits[:12], where),
            parse_float=lambda digits: _finite(digits, where),
        )
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where} is not valid JSON at line {error.lineno}, column {error.colno} ({error.msg}); correct it there"
        ) from None


def _depth(text: str) -> int:
    # The depth is counted before parsing: 100,000 open brackets end Python's own parser with a RecursionError.
    deepest = depth = 0
    in_string = escaped = False
    for character in text:
        if in_string:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                in_string = False
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _unique(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise InputError(f"{where} holds the key {shown(key)} twice in one object; keep one of them")
        found[key] = value
    return found


def _finite(digits: str, where: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else _refuse_number(digits[:12], where)


def _refuse_number(digits: str, where: str) -> NoReturn:
    raise InputError(f"{where} holds the number {digits}; only finite numbers of ordinary size are allowed")


def shown(value: Any, limit: int = 60) -> str:
    """Format a value for a one-line error: escaped, and cut off if it is long."""
    text = " ".join(line.strip() for line in ascii(value).splitlines())
    return text if len(text) <= limit else text[:limit] + "..."


def shown_path(path: Path | str) -> str:
    """Format a path for a one-line error: line breaks and escape sequences are written out."""
    text = str(path)
    return text if text.isprintable() else ascii(text)[1:-1]


def check_header(data: Any, wanted: str, versions: tuple[int, ...], keys: set[str], where: str, remedy: str) -> None:
    """Refuse parsed JSON of another format or version; `remedy` ends the error about another format."""
    if not isinstance(data, dict):
        raise InputError(f"{where} holds {shown(data)}; wanted an object with the key format: {wanted!r}")
    if data.get("format") != wanted:
        raise InputError(f"{where}: format is {shown(data.get('format'))}; wanted {wanted!r}. {remedy}")
    found = data.get("version")
    if isinstance(found, bool) or found not in versions:
        known = " and ".join(map(str, versions))
        raise InputError(
            f"{where}: version is {shown(found)}; this code reads version {known}, update jointsearch or save again"
        )
    check_keys(data, keys | {"format", "version", "name"}, where)


def check_keys(data: Any, allowed: set[str], where: str) -> None:
    """Refuse anything but an object with no other keys than these."""
    if not isinstance(data, dict):
        raise InputError(f"{where} is {shown(data)}; wanted an object with the keys {', '.join(sorted(allowed))}")
    for key in data:
        if key not in allowed:
            raise InputError(f"{where} has the unknown key {shown(key)}; {nearest(key, sorted(allowed))}")


def located(where: str, build: Any, *values: Any) -> Any:
    """Build a value; put the place in the file in front of an InputError."""
    try:
        return build(*values)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def check_name(name: Any) -> None:
    """Refuse a name that cannot be printed."""
    if not isinstance(name, str) or not 0 < len(name) <= 200 or not name.isprintable():
        raise InputError(f"name is {shown(name)}; wanted 1 to 200 printable characters")
