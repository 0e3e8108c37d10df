"""A nested state as two plain files: safetensors for the tensors, JSON for where everything belongs. No code inside."""

import json
import math
from collections.abc import Callable
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from search_spaces.errors import InputError
from search_spaces.plain_json import parse_json

# About a million entries. Long lists of numbers belong into tensors.
MAX_JSON_BYTES = 100_000_000
DTYPES = {
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
}


def encode_state(state: dict[str, Any]) -> tuple[bytes, bytes]:
    """Safetensors bytes and JSON bytes; TypeError or FloatingPointError names the entry that cannot be kept."""
    rows: list[list] = []
    tensors: dict[str, Tensor] = {}
    _flatten(state, [], rows, tensors)
    lines = ",\n".join(json.dumps(row, allow_nan=False) for row in rows)
    encoded = f"[\n{lines}\n]\n".encode()
    if len(encoded) > MAX_JSON_BYTES:
        raise TypeError(f"the state has {len(rows):,} entries, too many for {MAX_JSON_BYTES:,} bytes; keep tensors")
    return safetensors.torch.save(tensors), encoded


def _flatten(value: Any, path: list[str | int], rows: list[list], tensors: dict[str, Tensor]) -> None:
    """Append one row [path, kind] or [path, "value", value] per entry, parents first; a tensor's name is its path."""
    if isinstance(value, dict):
        rows.append([path, "dict"])
        for key, child in value.items():
            if type(key) is not str and not _is_small_integer(key):
                raise TypeError(f"{_entry(path)} has the key {key!r}; a checkpoint holds str and 64-bit int keys")
            _flatten(child, [*path, key], rows, tensors)
    elif type(value) in (list, tuple):
        rows.append([path, type(value).__name__])
        for position, child in enumerate(value):
            _flatten(child, [*path, position], rows, tensors)
    elif isinstance(value, Tensor):
        rows.append([path, "tensor"])
        tensors[json.dumps(path)] = _cpu_copy(value, path)
    elif value is None or type(value) in (bool, str, float) or _is_small_integer(value):
        if type(value) is float and not math.isfinite(value):
            raise FloatingPointError(f"{_entry(path)} is {value}; a checkpoint never contains NaN or infinity")
        rows.append([path, "value", value])
    else:
        raise TypeError(
            f"{_entry(path)} is {type(value).__name__} {str(value)[:40]!r}; a checkpoint holds only dicts, lists, "
            "tuples, tensors, 64-bit ints, floats, strings, bools and None"
        )


def _is_small_integer(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**64


def _entry(path: list[str | int]) -> str:
    return "state" + "".join(f"[{key!r}]" for key in path)


def _cpu_copy(tensor: Tensor, path: list[str | int]) -> Tensor:
    if tensor.layout is not torch.strided or tensor.dtype not in DTYPES:
        raise TypeError(f"{_entry(path)} is a {tensor.layout} tensor of {tensor.dtype}; a checkpoint cannot hold it")
    # Cloned: safetensors refuses tensors that share storage, and a tied or sliced tensor does.
    copy = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    if not torch.isfinite(copy).all():
        raise FloatingPointError(f"{_entry(path)} has a NaN or infinite value; a checkpoint never contains one")
    return copy


_CONTAINERS: dict[str, Callable[[list[tuple]], Any]] = {
    "dict": dict,
    "list": lambda items: [item for _, item in items],
    "tuple": lambda items: tuple(item for _, item in items),
}


def decode_state(encoded_tensors: bytes, encoded_json: bytes) -> dict[str, Any]:
    """What encode_state was given, on the CPU; InputError if the two do not describe one state."""
    if len(encoded_json) > MAX_JSON_BYTES:
        raise InputError(f"the state has more than {MAX_JSON_BYTES:,} bytes of JSON; use a checkpoint of this program")
    try:
        tensors = safetensors.torch.load(encoded_tensors)
    except SafetensorError as error:
        raise InputError(f"the tensors are not a safetensors file ({error}); restore it from a copy") from None
    rows = parse_json(encoded_json.decode(errors="replace"), "the state")
    if not isinstance(rows, list) or rows[:1] != [[[], "dict"]]:
        raise InputError("the state does not begin with a dict; restore it from a copy")
    contents: dict[tuple, list[tuple]] = {}
    # Last row first, so that children are ready before their parent.
    for row in reversed(rows[1:]):
        path, kind, value = _checked_row(row)
        items = contents.pop(path, [])[::-1]
        if kind == "tensor":
            value = tensors.pop(json.dumps(path), None)
        elif kind in _CONTAINERS:
            value = _CONTAINERS[kind](items)
        if (kind == "tensor" and value is None) or (items and kind not in _CONTAINERS):
            raise InputError(f"the state's entry {_entry(list(path))} does not fit; restore the file from a copy")
        contents.setdefault(path[:-1], []).append((path[-1], value))
    state = dict(contents.pop((), [])[::-1])
    if tensors or contents:
        raise InputError("the state's JSON and tensors do not describe one state; restore both from a copy")
    return state


def _checked_row(row: Any) -> tuple[tuple, str, Any]:
    if isinstance(row, list) and len(row) >= 2 and isinstance(row[0], list):
        known = row[1:] in (["tensor"], *([kind] for kind in _CONTAINERS)) or (len(row) == 3 and row[1] == "value")
        if known and row[0] and all(type(key) in (str, int) for key in row[0]):
            return tuple(row[0]), row[1], row[2] if len(row) == 3 else None
    raise InputError("the state has a row that is not [path, kind] or [path, 'value', value]; restore it from a copy")
