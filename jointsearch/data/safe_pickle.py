"""Reads the pickles in which CIFAR is published; refuses everything but numbers, texts and arrays of bytes."""

import io
import pickle
from typing import Any

import numpy as np

from jointsearch.data.files import shown
from search_spaces.errors import InputError

ARRAY_MAKERS = {("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")}


def read_pickle(data: bytes, name: str) -> Any:
    """Dicts, lists, texts, bytes, numbers and uint8 arrays; a pickle that asks for anything else is refused."""
    # A malformed pickle raises nearly anything (KeyError, IndexError, TypeError, UnicodeDecodeError, ...).
    try:
        return _plain(_Unpickler(io.BytesIO(data), encoding="bytes").load())
    except InputError:
        raise
    except Exception as error:
        reason = shown(f"{type(error).__name__}: {error}".splitlines()[0])
        raise InputError(f"{shown(name)} is no CIFAR batch ({reason}); download it again") from error


class _Array:
    """Stands in for a numpy array while a pickle is read, so that the file cannot control code of numpy."""

    def __setstate__(self, state: tuple[int, tuple[int, ...], Any, bool, bytes]) -> None:
        _, self.shape, self.dtype, self.is_fortran, self.data = state

    def array(self) -> np.ndarray:
        """The uint8 array; numpy raises where the declared shape does not fit the bytes."""
        if self.dtype.code not in (b"u1", "u1"):
            raise ValueError("an array that is not of bytes")
        return np.frombuffer(self.data, np.uint8).reshape(self.shape, order="F" if self.is_fortran else "C")


class _Dtype:
    """Stands in for a numpy dtype."""

    def __init__(self, code: bytes | str = "", *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        """Ignore the byte order and similar fields, which one-byte numbers do not have."""


# The C unpickler allocates a memo as large as the largest memo number in the file; this one, in Python, does not.
class _Unpickler(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in ARRAY_MAKERS:
            return lambda *_: _Array()
        if (module, name) == ("numpy", "ndarray"):
            return None  # only an argument of the maker above, which ignores it
        if (module, name) == ("numpy", "dtype"):
            return _Dtype
        raise InputError(
            f"a pickle asks for {shown(f'{module}.{name}')}, which no CIFAR batch needs and which could run a program; "
            "do not use files from this source"
        )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {_plain(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    if isinstance(value, _Array):
        return value.array()
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if not isinstance(value, str | int | float | None):
        raise ValueError(f"a {type(value).__name__} inside")
    return value
