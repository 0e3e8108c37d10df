"""Policies published elsewhere: the [[(op, probability, level), ...], ...] tables of Fast AutoAugment and DADA.

There a level from 0 to 1 runs from the low to the high end of an op's range, value = level * (high - low) + low, so
level .5 changes nothing where the middle of the range is the identity (shears, shifts, rotation, the four color ops).
Here magnitude 0 changes nothing. What our form cannot say exactly becomes its nearest, and is listed with the policy.
"""

import ast
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search_spaces.augment.table import OPS
from search_spaces.errors import InputError, nearest
from search_spaces.plain_json import parse_json, read_text, shown, shown_path
from search_spaces.policy import OpChoice, Policy, SubPolicy

# Fast AutoAugment's archive, the longest such file, has 128,000 characters.
MAX_BYTES = 300_000
FORM = "[[(op, probability, level), ...], ...]"
# Ops in pixels (TranslateXAbs, CutoutAbs) were written for CIFAR.
PIXELS_OF_A_SIDE = 32

NEAREST_PIXEL = "takes the nearest pixel there, bilinear here"
ONE_DIRECTION = "one fixed direction there, drawn per image here"
CLIPPED = "stronger there than our range ends, clipped to magnitude 1"
IN_PIXELS = f"in pixels there, a share of the side here; equal on {PIXELS_OF_A_SIDE}x{PIXELS_OF_A_SIDE} images"
OTHER_SQUARE = "up to a pixel wider there, and pushed inside at the left and top border, where ours is cut off"


@dataclass(frozen=True)
class ImportedPolicy:
    """A policy of ours made from a published table, and what differs from it, one line for each kind of difference."""

    policy: Policy
    approximations: tuple[str, ...]


@dataclass(frozen=True)
class _TheirOp:
    op: str  # ours
    low: float
    high: float
    amount: Callable[[float], float] = lambda value: value  # their value in our op's unit
    mirrored: bool = False  # whether they draw the direction too
    differs: tuple[str, ...] = ()


def _moving(op: str, low: float, high: float, pixels: int = 1) -> _TheirOp:
    differs = (NEAREST_PIXEL, IN_PIXELS) if pixels > 1 else (NEAREST_PIXEL,)
    return _TheirOp(op, low, high, lambda value: value / pixels, True, differs)


THEIR_OPS: dict[str, _TheirOp] = {
    "ShearX": _moving("ShearX", -0.3, 0.3),
    "ShearY": _moving("ShearY", -0.3, 0.3),
    "TranslateX": _moving("TranslateX", -0.45, 0.45),
    "TranslateY": _moving("TranslateY", -0.45, 0.45),
    "TranslateXAbs": _moving("TranslateX", 0, 10, PIXELS_OF_A_SIDE),
    "TranslateYAbs": _moving("TranslateY", 0, 10, PIXELS_OF_A_SIDE),
    "Rotate": _moving("Rotate", -30, 30),
    **{name: _TheirOp(name, 0, 1) for name in ("AutoContrast", "Invert", "Equalize")},
    **{name: _TheirOp(name, 0.1, 1.9) for name in ("Contrast", "Color", "Brightness", "Sharpness")},
    "Solarize": _TheirOp("Solarize", 0, 256, lambda value: value / 255),
    # They cut the bits to a whole number, and so do we: the magnitude is a multiple of 1/4.
    "Posterize": _TheirOp("Posterize", 4, 8, int),
    "Posterize2": _TheirOp("Posterize", 0, 4, int),
    "Cutout": _TheirOp("Cutout", 0, 0.2, differs=(OTHER_SQUARE,)),
    "CutoutAbs": _TheirOp("Cutout", 0, 20, lambda value: value / PIXELS_OF_A_SIDE, differs=(OTHER_SQUARE, IN_PIXELS)),
}


def import_policy(path: Path | str, name: str | None = None) -> ImportedPolicy:
    """A published table from a file on this machine; `name` chooses among several."""
    rows = read_tuples_file(path, name)
    return policy_from_tuples(rows, name or Path(path).stem)


def policy_from_tuples(rows: Any, name: str = "imported") -> ImportedPolicy:
    """Convert a published table, all its sub-policies equally likely."""
    if not isinstance(rows, list | tuple) or not rows:
        raise InputError(f"table {name} is {shown(rows)}; wanted {FORM}")
    sub_policies = []
    differences: dict[str, Counter[str]] = {}
    for n, row in enumerate(rows):
        if not isinstance(row, list | tuple):
            raise InputError(f"table {name}: sub-policy {n} is {shown(row)}; wanted a list, as in {FORM}")
        choices = []
        for k, entry in enumerate(row):
            choice, differs = _converted(entry, f"table {name}: sub-policy {n}, op {k}")
            choices.append(choice)
            for difference in differs:
                differences.setdefault(difference, Counter())[entry[0]] += 1
        sub_policies.append(SubPolicy(tuple(choices)))
    lines = tuple(
        f"{', '.join(f'{op} x{count}' for op, count in found.items())}: {difference}"
        for difference, found in differences.items()
    )
    return ImportedPolicy(Policy(tuple(sub_policies), name), lines)


def _converted(entry: Any, where: str) -> tuple[OpChoice, list[str]]:
    if not (isinstance(entry, list | tuple) and len(entry) == 3 and isinstance(entry[0], str)):
        raise InputError(f"{where} is {shown(entry)}; wanted (op, probability, level)")
    name, probability, level = entry
    if name not in THEIR_OPS:
        raise InputError(f"{where}: op is {shown(name)}, which has no counterpart here; {nearest(name, THEIR_OPS)}")
    for field, value in (("probability", probability), ("level", level)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            remedy = "wanted a number from 0 to 1; divide levels that count to 10"
            raise InputError(f"{where}: {field} of {name} is {shown(value)}; {remedy}")
    theirs, ours = THEIR_OPS[name], OPS[THEIR_OPS[name].op]
    if ours.identity is None or ours.strongest is None:
        return OpChoice(ours.name, probability), []
    step = theirs.amount(level * (theirs.high - theirs.low) + theirs.low) - ours.identity
    magnitude = round(abs(step / (ours.strongest - ours.identity)), 6)
    differs = list(theirs.differs) if magnitude else []
    if ours.signed and not theirs.mirrored and magnitude:
        differs.append(ONE_DIRECTION)
    if magnitude > 1:
        differs.append(CLIPPED)
    return OpChoice(ours.name, probability, min(magnitude, 1.0)), differs


def read_tuples_file(path: Path | str, name: str | None = None) -> Any:
    """The table in a .json file or in Python source, which is parsed and never run; `name` chooses among several."""
    where = f"policy table file {shown_path(path)}"
    text = read_text(path, "policy table", MAX_BYTES)
    tables = [((), parse_json(text, where))] if Path(path).suffix == ".json" else list(_tables(_parsed(text, where)))
    chosen = [rows for names, rows in tables if name is None or name in names]
    if not tables:
        raise InputError(f"{where} holds no table written out as {FORM}; give a file that does")
    if not chosen or (name is None and len(chosen) > 1):
        known = ", ".join(names[0] for names, _ in tables[:20] if names) or "one without a name"
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


def _tables(module: ast.Module) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Literal tables with their names: NAME = [...], def NAME(): return [...], or a list on its own."""
    names: tuple[str, ...]
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and not node.decorator_list:
            names, value = (node.name,), _returned(node)
        elif isinstance(node, ast.Expr):
            names, value = (), _literal(node.value)
        else:
            names, value = _assigned(node)
        if value and isinstance(value[0], list | tuple):
            yield names, value


def _assigned(node: ast.stmt) -> tuple[tuple[str, ...], Any]:
    if isinstance(node, ast.Assign):
        names = tuple(target.id for target in node.targets if isinstance(target, ast.Name))
        return names, _literal(node.value) if names else None
    return (), None


def _returned(function: ast.FunctionDef) -> Any:
    last = function.body[-1]
    if not isinstance(last, ast.Return) or last.value is None:
        return None
    if not isinstance(last.value, ast.Name):
        return _literal(last.value)
    values = [value for names, value in map(_assigned, function.body) if last.value.id in names]
    return values[-1] if values else None


def _literal(node: ast.expr) -> Any:
    if not isinstance(node, ast.List | ast.Tuple):
        return None
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError, MemoryError):
        return None  # computed by code, which is not run here: not a table
