"""Several processes that torchrun started and that do one piece of work: each computes its part of every batch.

    torchrun --standalone --nproc_per_node 2 scripts/retrain.py ...

Every process draws for whole batches, with the same generators, and decides by the same numbers. Only passes of the
network are divided. The gradients and losses that they give are added up, so that weights, policies and cells are the
same everywhere, bit for bit. One process is the case in which there is nothing to add.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")

FEWEST = 2  # images of a process: one alone has no batch statistics
JOINING = timedelta(minutes=5)  # to find each other; torchrun itself may be gone
PATIENCE = timedelta(hours=2)  # while the first process downloads a data set, or draws a report, the others wait
TELLING = timedelta(seconds=20)  # for a process that failed alone to have the first one say so
FAILED, TOLD = "jointsearch/failed", "jointsearch/told"


@dataclass(frozen=True)
class Group:
    """The processes, and this one among them."""

    place: int
    count: int
    store: dist.Store  # of torchrun; it outlives a process that fails


_GROUP: ContextVar[Group | None] = ContextVar("_GROUP", default=None)


@contextmanager
def together() -> Iterator[None]:
    """Join the other processes if torchrun started several, and part from them on leaving; otherwise do nothing."""
    alone = os.environ.get("WORLD_SIZE", "1") == "1" or not dist.is_torchelastic_launched()
    if alone or _GROUP.get() is not None:
        yield
        return
    store, place, count = next(dist.rendezvous("env://", timeout=JOINING))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=place, world_size=count, timeout=PATIENCE)
    joined = _GROUP.set(Group(place, count, store))
    try:
        wait_for_all()  # until all are connected none may leave, as one that refuses a setting at once does
        yield
        # Nor may one leave while another still reads what it sent.
        if not (store.check([FAILED]) or store.check([TOLD])):
            wait_for_all()
    finally:
        _GROUP.reset(joined)
        if dist.is_initialized():
            dist.destroy_process_group()


def processes() -> int:
    """How many there are."""
    group = _GROUP.get()
    return 1 if group is None else group.count


def place() -> int:
    """The place of this one among them, from 0."""
    group = _GROUP.get()
    return 0 if group is None else group.place


def is_first() -> bool:
    """Whether this one writes and prints."""
    return place() == 0


# ------------------------------------------------------------------------------------------------- parts of a batch


@dataclass(frozen=True)
class Part:
    """The images of a batch of `count` that this process computes."""

    rows: slice
    count: int
    copies: int = 1  # processes that compute the same images

    @property
    def weight(self) -> float:
        """Of the mean over these images, in the sum over processes that is the mean over the batch."""
        return (self.rows.stop - self.rows.start) / (self.count * self.copies)

    def of(self, values: Any) -> Any:
        """These images, or their labels, of those of the batch: a tensor (B, ...), or what has `rows`."""
        if self.rows == slice(0, self.count):
            return values
        return values[self.rows] if isinstance(values, Tensor) else values.rows(self.rows)

    def whole(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Values (B, ...) of all images, where each process has those of its own."""
        if processes() == 1:
            return values
        every = []
        for one in values:
            filled = one.new_zeros(self.count, *one.shape[1:])
            filled[self.rows] = one.detach() / self.copies
            every.append(filled)
        add_up(every)
        return tuple(every)


def part_of(count: int) -> Part:
    """This process's part of a batch: neighbouring images, as many as the others have, or one fewer.

    A batch that is too small to be divided is computed by every process.
    """
    every, mine = processes(), place()
    if count < FEWEST * every:
        return Part(slice(0, count), count, every)
    return Part(slice(mine * count // every, (mine + 1) * count // every), count)


@torch.no_grad()
def add_up(tensors: Sequence[Tensor]) -> None:
    """Put the sum over all processes into each tensor; one message for all of a device and type."""
    if processes() == 1:
        return
    for kind in dict.fromkeys((tensor.device, tensor.dtype) for tensor in tensors):
        alike = [tensor for tensor in tensors if (tensor.device, tensor.dtype) == kind]
        flat = torch.cat([tensor.reshape(-1) for tensor in alike])
        dist.all_reduce(flat)
        for tensor, piece in zip(alike, flat.split([tensor.numel() for tensor in alike]), strict=True):
            tensor.copy_(piece.view_as(tensor))


@torch.no_grad()
def as_in_first(tensors: Sequence[Tensor]) -> None:
    """Put into each tensor what the first process has in it; all are on the CPU."""
    if processes() == 1 or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.broadcast(flat, 0)
    for tensor, piece in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(piece.view_as(tensor))


# ----------------------------------------------------------------------------------------------------- agreements


def largest(*numbers: int) -> list[int]:
    """Of each number the largest that any process has."""
    if processes() == 1:
        return list(numbers)
    agreed = torch.tensor(numbers)
    dist.all_reduce(agreed, dist.ReduceOp.MAX)
    return agreed.tolist()


def wait_for_all() -> None:
    """Go on when every process has come here."""
    largest(0)


def from_first(work: Callable[[], T]) -> T:
    """What `work` returns in the first process, plain data, or the error that it raises; the others wait for it."""
    if processes() == 1:
        return work()
    outcome: list[Any] = [None, None]
    if is_first():
        try:
            outcome = [work(), None]
        except Exception as raised:  # which the others must raise, too, and not wait for ever
            outcome = [None, raised]
    # torch sends it as a pickle, which only processes of this run can write.
    dist.broadcast_object_list(outcome, 0, device=torch.device("cpu"))
    result, error = outcome
    if error is not None:
        raise error
    return result


def first_before_others(work: Callable[[], T]) -> T:
    """What `work` returns in each process; what it leaves on the disk is there when the others begin."""
    done: list[T] = []
    from_first(lambda: done.append(work()))
    return done[0] if done else work()


def of_each(value: T) -> list[T]:
    """The values of all processes, plain data."""
    if processes() == 1:
        return [value]
    values: list[Any] = [None] * processes()
    dist.all_gather_object(values, value)
    return values


def unequal(states: dict[str, Any]) -> list[str]:
    """The names of the states that differ between processes: dicts, lists, tensors and plain values."""
    digests = of_each({name: _digest(state) for name, state in states.items()})
    return [name for name in states if len({of_one[name] for of_one in digests}) > 1]


def _digest(state: Any) -> str:
    digest = hashlib.sha256()

    def take(value: Any) -> None:
        if isinstance(value, Tensor):
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(value, dict):
            take(list(value.items()))
        elif isinstance(value, list | tuple):
            for one in value:
                take(one)
        else:
            digest.update(repr(value).encode())

    take(state)
    return digest.hexdigest()


# -------------------------------------------------------------------------------------------------------- failures


def tell(message: str, say: Callable[[str], None]) -> None:
    """Say why this process fails, once: the first process does, also for another one that fails alone."""
    group = _GROUP.get()
    if group is None or is_first():
        say(message)
        if group is not None:
            group.store.set(TOLD, "")
        return
    group.store.set(FAILED, message)
    dist.destroy_process_group()  # wakes the first one where it waits for this one
    try:
        group.store.wait([TOLD], TELLING)
    except RuntimeError:  # torch's, after this time
        say(message)


def failed_elsewhere() -> str | None:
    """Why another process failed, empty where it was said already; None if none did."""
    group = _GROUP.get()
    if group is None or not group.store.check([TOLD if place() else FAILED]):
        return None
    return "" if place() else group.store.get(FAILED).decode()
