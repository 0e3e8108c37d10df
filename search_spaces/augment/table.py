"""OPS, the table of all augmentation ops by name."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from search_spaces.augment.color import COLOR_OPS
from search_spaces.augment.erase import ERASING_OPS
from search_spaces.augment.geometry import GEOMETRIC_OPS
from search_spaces.augment.mix import MIXING_OPS
from search_spaces.augment.op import AugOp
from search_spaces.augment.quantized import QUANTIZED_OPS
from search_spaces.errors import InputError, nearest

OPS: dict[str, AugOp] = {op.name: op for op in (*GEOMETRIC_OPS, *QUANTIZED_OPS, *COLOR_OPS, *ERASING_OPS, *MIXING_OPS)}
OURS = frozenset(OPS)


@dataclass(frozen=True)
class OpTables:
    """What all ops say of themselves, by their place in OPS; the last entry of a tensor serves place -1, no op."""

    ops: tuple[AugOp, ...]
    scales: Tensor  # (3, ops + 1): identity, strongest - identity, signed
    has_magnitude: Tensor  # (ops + 1,)


def op_tables() -> OpTables:
    """The tables of all ops that are known now."""
    return _op_tables(len(OPS))


@functools.cache
def _op_tables(count: int) -> OpTables:
    ops = tuple(OPS.values())[:count]
    scales = [(op.identity or 0.0, (op.strongest or 0.0) - (op.identity or 0.0), float(op.signed)) for op in ops]
    has_magnitude = [*(op.has_magnitude for op in ops), False]
    table = torch.tensor([*scales, (0.0, 0.0, 0.0)], dtype=torch.float32)  # and not the default type: it is cached
    return OpTables(ops, table.T, torch.tensor(has_magnitude))


def register_op(op: AugOp) -> AugOp:
    """Make an op of user code known to policies, searches and exports, under its name.

    The module that registered an op may register it once more, as a notebook does when a cell is run again.
    """
    known = OPS.get(op.name, op)
    if known is not op and (op.name in OURS or known.fn.__module__ != op.fn.__module__):
        raise InputError(f"an op named {op.name} is known already; give yours another name")
    OPS[op.name] = op
    _op_tables.cache_clear()
    return op


# DADA's fifteen (mission P1), in its order.
DADA_OPS = (
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "AutoContrast",
    "Invert",
    "Equalize",
    "Solarize",
    "Posterize",
    "Contrast",
    "Color",
    "Brightness",
    "Sharpness",
    "Cutout",
)


def check_op_names(names: Iterable[str], where: str) -> tuple[str, ...]:
    """The names as a tuple; the first unknown or repeated name raises an error."""
    checked = tuple(names)
    for position, name in enumerate(checked):
        if name not in OPS:
            raise InputError(f"{where} names the op {name!r}; {nearest(name, OPS)}")
        if name in checked[:position]:
            raise InputError(f"{where} names the op {name} twice; name it once")
    if not checked:
        raise InputError(f"{where} names no op; name at least one of {', '.join(OPS)}")
    return checked
