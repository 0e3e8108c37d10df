"""One writer per run folder, files that are whole or absent, and signals that end a run in order."""

import errno
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from jointsearch.run_folder import StopSignal, lock_folder, replace_file, write_json
from search_spaces.errors import InputError
from search_spaces.plain_json import read_json

REPOSITORY = Path(__file__).resolve().parent.parent

HOLD = r"""
import os, sys, time
from pathlib import Path
from jointsearch.run_folder import lock_folder
with lock_folder(Path(sys.argv[1])):
    if "worker" in sys.argv:
        os.fork()
    os.write(1, b"%d\n" % os.getpid())
    time.sleep(60)
"""

LOOP = r"""
import os, sys, time
from jointsearch.run_folder import StopSignal
with StopSignal() as stop:
    if "worker" in sys.argv:
        os.fork()
    os.write(1, b"%d\n" % os.getpid())
    while stop.received is None or "busy" in sys.argv:
        time.sleep(0.005)
os.write(1, b"saved\n")
sys.exit(128 + stop.received)
"""


@contextmanager
def started(program: str, *arguments: str) -> Iterator[subprocess.Popen]:
    """The program in a process of its own; whatever becomes of the test, it and its children end."""
    command = [sys.executable, "-c", program, *arguments]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def next_line(process: subprocess.Popen) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


# -------------------------------------------------------------------------------------------------------------- lock


def test_a_second_process_is_refused_at_once_with_the_pid_of_the_first(tmp_path: Path) -> None:
    with started(HOLD, str(tmp_path)) as holder:
        pid = next_line(holder)
        begin = time.monotonic()
        with pytest.raises(InputError, match=rf"{tmp_path} is in use by process {pid} on {os.uname().nodename}; wait"):
            lock_folder(tmp_path).__enter__()
        assert time.monotonic() - begin < 1


def test_the_same_process_cannot_take_a_folder_twice_but_again_afterwards(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    for _ in range(2):
        with lock_folder(folder), pytest.raises(InputError, match=str(os.getpid())):
            lock_folder(folder).__enter__()


def test_a_lock_left_by_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    with started(HOLD, str(tmp_path)) as holder:
        assert int(next_line(holder)) == holder.pid
    with lock_folder(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"process {os.getpid()} on {os.uname().nodename}\n"


def test_a_forked_worker_that_outlives_its_killed_parent_does_not_hold_the_lock(tmp_path: Path) -> None:
    with started(HOLD, str(tmp_path), "worker") as holder:
        pids = {int(next_line(holder)), int(next_line(holder))}
        (worker,) = pids - {holder.pid}
        holder.kill()
        holder.wait()
        with lock_folder(tmp_path):
            os.kill(worker, 0)


def test_taking_a_folder_removes_half_written_files_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "result.json.tmp-77").write_text("{")
    (tmp_path / "data.tmp-x").touch()
    (tmp_path / "step.tmp-77").mkdir()
    with lock_folder(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {".lock", "data.tmp-x", "step.tmp-77"}


def test_a_folder_that_cannot_be_made_or_a_linked_lock_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"Not a directory.*choose"):
        lock_folder(tmp_path / "file" / "run").__enter__()
    (tmp_path / ".lock").symlink_to(tmp_path / "file")
    with pytest.raises(InputError, match="symbolic links"):
        lock_folder(tmp_path).__enter__()


# ----------------------------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_lets_the_loop_save_and_exit_with_128_plus_its_number(number: signal.Signals) -> None:
    with started(LOOP) as process:
        next_line(process)
        process.send_signal(number)
        assert next_line(process) == "saved"
        assert process.wait(5) == 128 + number


def test_a_second_signal_ends_a_busy_process_at_once() -> None:
    with started(LOOP, "busy") as process:
        next_line(process)
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        assert process.poll() is None
        begin = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 128 + signal.SIGTERM
        assert time.monotonic() - begin < 0.5
        assert next_line(process) == ""


def test_a_forked_worker_ends_at_its_first_sigterm_and_the_loop_goes_on() -> None:
    with started(LOOP, "worker", "busy") as process:
        (worker,) = {int(next_line(process)), int(next_line(process))} - {process.pid}
        os.kill(worker, signal.SIGTERM)
        for _ in range(100):
            if Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                break
            time.sleep(0.01)
        else:
            pytest.fail("the worker is still running")
        assert process.poll() is None


def test_the_handlers_of_before_come_back_even_after_an_error() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    with suppress(ZeroDivisionError), StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop.received == signal.SIGUSR1
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == before


def test_outside_the_main_thread_nothing_is_installed() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def run() -> None:
        with StopSignal() as stop:
            seen.append((stop.received, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(None, before)]


# ------------------------------------------------------------------------------------------------------------- files


def test_json_comes_back_and_replaces_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    for value in ({"accuracy": 0.1 + 0.2, "name": "ü"}, [1, None]):
        write_json(path, value)
        assert read_json(path, "result") == value
    assert list(tmp_path.iterdir()) == [path]


def test_a_value_that_is_not_json_or_a_full_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"accuracy": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"accuracy": math.nan})

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "disk full")

    for name in ("write", "fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            with pytest.raises(OSError, match="disk full"):
                write_json(path, {"accuracy": 2})
        assert read_json(path, "result") == {"accuracy": 1}
        assert list(tmp_path.iterdir()) == [path]


def test_a_link_at_the_path_or_at_its_temporary_name_is_replaced_and_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("mine")
    for name in ("pointer", f"pointer.tmp-{os.getpid()}"):
        (tmp_path / name).symlink_to(secret)
    replace_file(tmp_path / "pointer", b"new")
    assert (secret.read_text(), (tmp_path / "pointer").read_text()) == ("mine", "new")
    assert not (tmp_path / "pointer").is_symlink()
