"""Work that several processes share: whoever holds the lock of a folder does what belongs there, the others go on."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from jointsearch.distributed import processes
from jointsearch.runs.run_folder import InUse, is_locked

T = TypeVar("T")
Work = tuple[Path, Callable[[], T]]  # the folder that is written, and what is done there

POLL_SECONDS = 0.5  # between two looks for what other processes have finished


def in_turn(works: Sequence[Work[T]]) -> list[T]:
    """The results of all works, in their order. One that another process has begun waits until that has let go."""
    if processes() > 1:  # of torchrun; they do each work together
        return [work() for _, work in works]
    results: dict[int, T] = {}
    while True:
        for place, (folder, work) in enumerate(works):
            if place in results or is_locked(folder):
                continue
            try:
                results[place] = work()
            except InUse:  # another process was quicker
                continue
        if len(results) == len(works):
            return [results[place] for place in range(len(works))]
        time.sleep(POLL_SECONDS)
