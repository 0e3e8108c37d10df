"""Reads the tables of Fast AutoAugment and DADA: [[(op, probability, level), ...], ...] in Python source.

A level from 0 to 1 runs from the low to the high end of an op's range: value = level * (high - low) + low. Level .5
thus changes nothing where the middle of the range is the identity (shears, shifts, rotation, the four color ops). Here
magnitude 0 changes nothing. A value without an exact counterpart is approximated, and the difference is listed.
"""

import ast
from collections import ChainMap
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search_spaces.errors import InputError
from search_spaces.plain_json import parse_json, read_text, shown, shown_path
from search_spaces.readers.conversion import (
    FORM,
    IN_PIXELS,
    NEAREST_PIXEL,
    PIXELS_OF_A_SIDE,
    Dialect,
    ImportedPolicy,
    TheirOp,
    policy_from_rows,
)

# Fast AutoAugment's archive, the longest such file, has 128,000 characters.
MAX_BYTES = 300_000
# Its tables that are sums of lists have about 200 rows in total.
MAX_ADDED_ROWS = 20_000
CHANGING = {"append", "extend", "insert", "remove", "pop", "clear", "sort", "reverse"}

OTHER_SQUARE = "the original is up to a pixel wider and stays inside at the left and top border, here it is clipped"


def _same(value: float) -> float:
    return value


def _ranged(op: str, low: float, high: float, to_ours: Callable[[float], float] = _same, *differs: str) -> TheirOp:
    return TheirOp(op, lambda level: to_ours(level * (high - low) + low), differs=differs)


def _moving(op: str, low: float, high: float) -> TheirOp:
    return TheirOp(op, lambda level: level * (high - low) + low, True, (NEAREST_PIXEL,))


def _pixels(op: str, pixels: float) -> TheirOp:
    return TheirOp(op, lambda level: level * pixels / PIXELS_OF_A_SIDE, True, (NEAREST_PIXEL, IN_PIXELS))


def _threshold(value: float) -> float:
    return value / 255


def _share(pixels: float) -> float:
    return pixels / PIXELS_OF_A_SIDE


_SWITCHES = {name: TheirOp(name) for name in ("AutoContrast", "Invert", "Equalize")}
_ENHANCE = ("Contrast", "Color", "Brightness", "Sharpness")

TUPLES = Dialect(
    {
        "ShearX": _moving("ShearX", -0.3, 0.3),
        "ShearY": _moving("ShearY", -0.3, 0.3),
        "TranslateX": _moving("TranslateX", -0.45, 0.45),
        "TranslateY": _moving("TranslateY", -0.45, 0.45),
        "TranslateXAbs": _pixels("TranslateX", 10),
        "TranslateYAbs": _pixels("TranslateY", 10),
        "Rotate": _moving("Rotate", -30, 30),
        **_SWITCHES,
        **{name: _ranged(name, 0.1, 1.9) for name in _ENHANCE},
        "Solarize": _ranged("Solarize", 0, 256, _threshold),
        # The published code truncates to whole bits, and so does this: the magnitude is a multiple of 1/4.
        "Posterize": _ranged("Posterize", 4, 8, int),
        "Posterize2": _ranged("Posterize", 0, 4),  # wholly beyond the range here
        "Cutout": _ranged("Cutout", 0, 0.2, _same, OTHER_SQUARE),
        "CutoutAbs": _ranged("Cutout", 0, 20, _share, OTHER_SQUARE, IN_PIXELS),
    },
    top=1,
    remedy="; divide levels from 0 to 10 by 10",
)
# Functions of the archive under this decorator hold AutoAugment's own tables, with levels from 0 to 10.
TEN_LEVELS = "autoaug2arsaug"
TEN = Dialect(
    {
        "ShearX": _moving("ShearX", 0, 0.03),
        "ShearY": _moving("ShearY", 0, 0.03),
        "TranslateXAbs": _pixels("TranslateX", 1),
        "TranslateYAbs": _pixels("TranslateY", 1),
        "Rotate": TheirOp("Rotate", lambda level: int(3 * level), True, (NEAREST_PIXEL,)),
        **_SWITCHES,
        **{name: _ranged(name, 0.1, 0.28) for name in _ENHANCE},
        "Solarize": TheirOp("Solarize", lambda level: (256 - int(25.6 * level)) / 255),
        "Posterize2": TheirOp("Posterize", lambda level: 4 - int(0.4 * level)),
        "CutoutAbs": _ranged("Cutout", 0, 2, lambda pixels: int(pixels) / PIXELS_OF_A_SIDE, OTHER_SQUARE, IN_PIXELS),
    },
    top=10,
)


@dataclass(frozen=True)
class Table:
    """The rows of one table, its names in the file, and the conventions of its ops and levels."""

    rows: Any
    names: tuple[str, ...] = ()
    dialect: Dialect = TUPLES


def read_tuples(path: Path | str, name: str | None = None, skip_unknown: bool = False) -> ImportedPolicy:
    """Read a .json file or Python source, which is parsed and never run; `name` chooses among several tables."""
    table = find_table(path, name)
    return policy_from_rows(table.rows, table.dialect, name or Path(path).stem, skip_unknown)


def policy_from_tuples(rows: Any, name: str = "imported", skip_unknown: bool = False) -> ImportedPolicy:
    """Convert a table with levels from 0 to 1; all sub-policies are equally likely."""
    return policy_from_rows(rows, TUPLES, name, skip_unknown)


def find_table(path: Path | str, name: str | None = None) -> Table:
    """The table of that name in a file, or its only table."""
    where = f"policy table file {shown_path(path)}"
    text = read_text(path, "policy table", MAX_BYTES)
    if Path(path).suffix.lower() == ".json":
        tables = [Table(parse_json(text, where))]
    else:
        tables = list(_Source(where).tables(_parsed(text, where)))
    chosen = [table for table in tables if name is None or name in table.names]
    if not tables:
        raise InputError(f"{where} holds no table written out as {FORM}; give a file that does")
    if not chosen or (name is None and len(chosen) > 1):
        known = ", ".join(table.names[0] for table in tables[:20] if table.names) or "one without a name"
        raise InputError(f"{where} holds these tables: {known}; name is {shown(name)}, give name= one of them")
    return chosen[-1]


def _parsed(text: str, where: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise InputError(f"{where} is not Python ({shown(str(error))}); give literal lists, as in {FORM}") from None
    except (RecursionError, MemoryError):
        # Seen on Python 3.11 to 3.13 for some 10,000 nested operators; brackets end at 200 with a SyntaxError.
        raise InputError(f"{where} is nested too deeply for a table; give literal lists, as in {FORM}") from None


class _Source:
    """Finds the tables of one Python file: literal lists, names of lists, and sums of both."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._rows_left = MAX_ADDED_ROWS

    def tables(self, module: ast.Module) -> Iterator[Table]:
        """Tables written as NAME = [...], as def NAME(): return [...], or as a list alone."""
        scope: dict[str, Any] = {}
        computed = _computed_names(module.body)
        for node in module.body:
            table = self._table(node, scope)
            if table.rows and isinstance(table.rows[0], list | tuple) and not computed & set(table.names):
                yield table

    def _table(self, node: ast.stmt, scope: MutableMapping[str, Any]) -> Table:
        if isinstance(node, ast.Expr):
            return Table(self._value(node.value, scope))
        if not isinstance(node, ast.FunctionDef):
            return Table(*self._assigned(node, scope))
        decorators = [getattr(entry, "id", None) for entry in node.decorator_list]
        if decorators not in ([], [TEN_LEVELS]):
            return Table(None)
        return Table(self._returned(node, scope), (node.name,), TEN if decorators else TUPLES)

    def _assigned(self, node: ast.stmt, scope: MutableMapping[str, Any]) -> tuple[Any, tuple[str, ...]]:
        if isinstance(node, ast.Assign):
            targets, source = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value:
            targets, source = [node.target], node.value
        elif isinstance(node, ast.AugAssign):
            targets, source = [node.target], ast.BinOp(node.target, node.op, node.value)
        else:
            return None, ()
        names = tuple(target.id for target in targets if isinstance(target, ast.Name))
        value = self._value(source, scope) if names else None
        scope.update(dict.fromkeys(names, value))
        return value, names

    def _returned(self, function: ast.FunctionDef, scope: MutableMapping[str, Any]) -> Any:
        local: MutableMapping[str, Any] = ChainMap({}, scope)
        computed = _computed_names(function.body)
        for node in function.body:
            if isinstance(node, ast.Return) and node.value is not None:
                return self._value(node.value, local)
            self._assigned(node, local)
            local.update(dict.fromkeys(computed))
        return None

    def _value(self, node: ast.expr, scope: MutableMapping[str, Any]) -> Any:
        right = []
        while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            right.append(node.right)
            node = node.left
        parts = [_term(term, scope) for term in (node, *reversed(right))]
        if len(parts) == 1 or None in parts:
            return parts[0] if len(parts) == 1 else None
        self._rows_left -= sum(map(len, parts))
        if self._rows_left < 0:
            raise InputError(f"{self._where} adds up more than {MAX_ADDED_ROWS:,} rows; write the table out")
        return [row for part in parts for row in part]


def _computed_names(body: list[ast.stmt]) -> set[str]:
    """Names of lists that the code changes later: their literal value is not the final table."""
    names = set()
    for node in body:
        inner = isinstance(node, ast.For | ast.While | ast.If | ast.With | ast.Try)
        for part in () if isinstance(node, ast.FunctionDef | ast.ClassDef) else ast.walk(node):
            if isinstance(part, ast.Name) and inner and isinstance(part.ctx, ast.Store):
                names.add(part.id)
            if isinstance(part, ast.Attribute | ast.Subscript) and isinstance(part.value, ast.Name) and _changes(part):
                names.add(part.value.id)
    return names


def _changes(part: ast.Attribute | ast.Subscript) -> bool:
    return part.attr in CHANGING if isinstance(part, ast.Attribute) else not isinstance(part.ctx, ast.Load)


def _term(node: ast.expr, scope: MutableMapping[str, Any]) -> Any:
    if isinstance(node, ast.Name):
        return scope.get(node.id)
    if not isinstance(node, ast.List | ast.Tuple):
        return None
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError, MemoryError):
        return None  # code computes the value, and code is never run here
