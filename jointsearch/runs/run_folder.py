"""What every run folder needs: one writer at a time, files that are whole or absent, and a clean stop on a signal."""

import contextlib
import fcntl
import json
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from search_spaces.errors import InputError

# Of a training or search: all that decides its result, the policy it used or found, the cells, and the result.
SETTINGS_FILE, POLICY_FILE, GENOTYPE_FILE, RESULT_FILE = "settings.json", "policy.json", "genotype.json", "result.json"
OWN_NETWORK = "own_network"  # the folder of networks that searches trained, beside those of the rows
PROPOSAL = "proposal-"  # begins the folder of searches whose findings another one judges
# Of a training whose metric tells more than numbers: what was found in each test image.
PREDICTIONS_FILE = "predictions.json"

LOCK_FILE = ".lock"

_TEMPORARY = re.compile(r".+\.tmp-\d+")
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

_held_locks: set[int] = set()


class InUse(InputError):
    """Another process writes in a folder."""


def _forget_locks_in_child() -> None:
    # A forked data worker shares the parent's flock. Without this a worker that outlives a kill -9 of its parent
    # (torch's look for their parent every 5 s) would keep the folder locked.
    while _held_locks:
        os.close(_held_locks.pop())


os.register_at_fork(after_in_child=_forget_locks_in_child)


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Create the folder and hold it for this process; InputError at once if another process has it."""
    lock = try_lock(folder)
    if lock is None:
        holder = (folder / LOCK_FILE).read_bytes()[:300].decode(errors="replace").strip()
        raise InUse(
            f"run folder {folder} is in use by {ascii(holder)[1:-1] or 'another process'}; "
            "wait for it, stop it, or choose another folder"
        )
    _held_locks.add(lock)
    try:
        _remove_temporary_files(folder)
        yield
    finally:
        # In a forked child the descriptor is already closed, and its number may belong to another file.
        if lock in _held_locks:
            _held_locks.remove(lock)
            os.close(lock)


def try_lock(folder: Path) -> int | None:
    """Create the folder and lock it: an open file that holds the lock, or None if another process has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise InputError(f"run folder {folder} cannot be used ({error.strerror}); choose a writable folder") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return lock


def is_locked(folder: Path) -> bool:
    """Whether a process writes in a folder now."""
    if not (folder / LOCK_FILE).is_file():
        return False
    lock = try_lock(folder)
    if lock is not None:
        os.close(lock)
    return lock is None


def check_writable(folder: Path) -> None:
    """Refuse a run folder that could not be made or written in, before anything is done for it; it is not made."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        why = "cannot be written in" if there.is_dir() else "is no folder"
        raise InputError(f"run folder {folder} cannot be used ({there} {why}); choose a writable folder")


def file_name(text: str) -> str:
    """A text as the name of a file or folder."""
    return re.sub(r"[^A-Za-z0-9._@+-]+", "_", text)[:100]


def _remove_temporary_files(folder: Path) -> None:
    for path in folder.iterdir():
        if _TEMPORARY.fullmatch(path.name) and (path.is_symlink() or path.is_file()):
            path.unlink()


def write_new_file(path: Path, content: bytes) -> None:
    """Write a file that must not exist yet, and return when it is on the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Return when the folder's entries (new names, renames) are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes) -> None:
    """Put content at path atomically: a reader, or a crash at any moment, sees the old file or the new one."""
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        write_new_file(temporary, content)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write value as JSON, atomically; a NaN or an infinity is a ValueError and leaves the old file."""
    replace_file(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


class StopSignal:
    """While entered, SIGTERM, SIGINT and SIGUSR1 only set `received`; a second one ends the process at once.

    The loop finishes its step, saves, and exits with 128 + received. Outside the main thread it does nothing. `answer`
    makes the line that goes to the error output at once.
    """

    received: int | None = None
    answer: Callable[[int], str] | None = None

    def __enter__(self) -> "StopSignal":
        self._process = os.getpid()
        self._previous: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}
        if threading.current_thread() is threading.main_thread():
            for number in _STOP_SIGNALS:
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            # None stands for a handler that was not installed from Python and cannot be put back from it.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        # Forked workers inherit this handler. A pool ends its workers with SIGTERM and then waits for them.
        terminated_worker = os.getpid() != self._process and number == signal.SIGTERM
        if terminated_worker or self.received is not None:
            os._exit(128 + number)
        self.received = number
        if self.answer is not None and os.getpid() == self._process:
            # Not by sys.stderr: the signal may have come in the middle of a write to it.
            with contextlib.suppress(OSError):
                os.write(2, f"\n{self.answer(number)}\n".encode())
