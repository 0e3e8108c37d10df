"""A device that is not there: its tensors lie in memory, but say that they do not, and refuse to meet those that do.

What runs here without an error, and ends as it does on the CPU, keeps devices apart on a GPU as well; and how often it
waits for the device can be counted where there is none.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

ELSEWHERE = torch.device("meta")
MOVES = ("_to_copy", "copy_")
INDEXES = ("index", "index_put", "index_put_", "_index_put_impl_")
# Their result, or its size, has to be known where Python runs.
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "bincount", "equal")


class Away(Tensor):
    """A tensor elsewhere."""

    held: Tensor
    is_meta = False  # it has contents

    @staticmethod
    def __new__(cls, held: Tensor) -> "Away":
        away = Tensor._make_wrapper_subclass(
            cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype, device=ELSEWHERE
        )
        away.held = held
        return away

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} was called on a tensor elsewhere, outside `elsewhere()`")

    def tolist(self) -> Any:
        return self.cpu().tolist()

    __torch_function__ = torch._C._disabled_torch_function_impl


class _Elsewhere(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func.overloadpacket.__name__
        tensors = list(_tensors((*args, *kwargs.values())))
        away = any(isinstance(one, Away) for one in tensors)
        goes = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
        if goes == ELSEWHERE:
            kwargs["device"] = "cpu"
        if away and name not in MOVES:
            _refuse_strangers(name, args, tensors)
        if (away and _waits(name, args)) or (_crosses(name, args, goes) and not kwargs.get("non_blocking")):
            self.waits[name] += 1
        done = func(*_held(args), **{key: _held(value) for key, value in kwargs.items()})
        if func._schema.is_mutable and tensors and isinstance(done, Tensor):
            return args[0]  # what an operation in place gives back is what it was given
        if goes == ELSEWHERE or (goes is None and away):
            return _away(done)
        return done


# Operations take and give tensors, and lists and tuples of them. The walk of torch, through any tree, takes ten times
# as long.
def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)


def _held(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_held, value))
    return value.held if isinstance(value, Away) else value


def _away(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_away, value))
    return Away(value) if isinstance(value, Tensor) else value


def _crosses(name: str, args: Sequence[Any], goes: torch.device | None) -> bool:
    if name == "copy_":
        return isinstance(args[0], Away) != isinstance(args[1], Away)
    return name == "_to_copy" and goes is not None and isinstance(args[0], Away) != (goes == ELSEWHERE)


def _waits(name: str, args: Sequence[Any]) -> bool:
    # How many pixels a mask chooses has to be known; indices from the CPU are sent.
    if name in INDEXES:
        return any(one is not None and (one.dtype == torch.bool or not isinstance(one, Away)) for one in args[1])
    return name in WAITS


def _refuse_strangers(name: str, args: Sequence[Any], tensors: list[Tensor]) -> None:
    # As CUDA has it: single numbers may come from the CPU, and indices of what lies elsewhere.
    if name in INDEXES and isinstance(args[0], Away):
        tensors = [args[0], *(one for one in args[2:3] if isinstance(one, Tensor))]
    for one in tensors:
        if not isinstance(one, Away) and one.dim():
            shapes = [tuple(other.shape) for other in tensors]
            raise AssertionError(f"{name} was given tensors of two devices, of shapes {shapes}")


@contextmanager
def elsewhere() -> Iterator[Counter[str]]:
    """Within it ELSEWHERE is a device; yields how often it was waited for, by the operation."""
    autocast = torch.autocast

    def there_too(kind: str, **rest: Any) -> Any:
        return autocast("cpu" if kind == ELSEWHERE.type else kind, **rest)

    with _Elsewhere() as mode, pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "autocast", there_too)
        yield mode.waits
