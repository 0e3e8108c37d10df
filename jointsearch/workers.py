"""Further processes on this machine that take part in a piece of work: each does what no other one has begun.

    with helpers(3, partial(carry_out, prepared)):   # three more processes do the same
        carry_out(prepared)

They are given the data in shared memory. They end when everything is done, or when this process ends, however it does.
"""

import contextlib
import logging
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch
import torch.multiprocessing

from jointsearch.registry import PLUGIN_MODULE, load_plugin
from search_spaces.errors import InputError

logger = logging.getLogger(__name__)
Work = Callable[[int], None]  # is given the place of the process among all, from 0


@contextlib.contextmanager
def helpers(count: int, work: Work) -> Iterator[None]:
    """While entered, so many other processes do `work` too; it must be picklable."""
    if not count:
        yield
        return
    try:
        pickled = bytes(ForkingPickler.dumps(work))
    except Exception as error:  # of whatever a notebook defined
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(
            f"jobs={count + 1} starts processes, and this study cannot be handed to them ({reason}); define its parts "
            "in a file that is imported, or use jobs=1"
        ) from error
    plugins = [str(vars(module)["__file__"]) for name, module in sys.modules.items() if name.startswith(PLUGIN_MODULE)]
    context = torch.multiprocessing.get_context("spawn")
    started = [context.Process(target=_help, args=(pickled, place, plugins)) for place in range(1, count + 1)]
    for process in started:
        process.start()
    try:
        yield
        failed = [process.exitcode for process in started if process.exitcode]
        if failed:
            logger.warning(
                f"{len(failed)} of {count} processes that jobs={count + 1} started failed; the others did their work"
            )
    finally:
        for process in started:
            process.terminate()  # it saves at its next step; one that has ended already is left alone
        for process in started:
            process.join()


def threads_of(jobs: int, wanted: int | None) -> int | None:
    """CPU threads of each of so many processes: as wanted, else an equal share of the cores."""
    if wanted is not None or jobs == 1:
        return wanted
    return max(1, len(os.sched_getaffinity(0)) // jobs)


def device_of(device: torch.device, place: int) -> torch.device:
    """The device of a process: of several GPUs each process takes the next."""
    if device.type != "cuda" or device.index is not None or torch.cuda.device_count() < 2:
        return device
    return torch.device("cuda", place % torch.cuda.device_count())


def _help(pickled: bytes, place: int, plugins: list[str]) -> None:
    """In another process: do the work, quietly. What fails here is tried by the first process too, which says why."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        for path in plugins:
            load_plugin(path)
        work: Any = ForkingPickler.loads(pickled)
        with contextlib.suppress(KeyboardInterrupt):
            work(place)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)  # what it does is saved at the next step
