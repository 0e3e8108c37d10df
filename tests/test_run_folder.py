"""One writer per run folder, files that are whole or absent, and signals that end a run in order."""

import errno
import math
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from jointsearch.runs.run_folder import StopSignal, lock_folder, replace_file, write_json, write_new_file
from search_spaces.errors import InputError
from search_spaces.plain_json import read_json

Say = Callable[[str], None]


class Child:
    """A forked process that runs `main(say, ...)`; a fresh Python would take seconds to import us."""

    def __init__(self, main: Callable[..., None], *arguments: object) -> None:
        reading, writing = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns about forking among threads
            self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            with suppress(SystemExit):
                main(lambda text: os.write(writing, f"{text}\n".encode()), *arguments)
                os._exit(0)
            os._exit(99)
        os.close(writing)
        self._lines = os.fdopen(reading)

    def next_line(self) -> str:
        return self._lines.readline().strip()

    def is_running(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def exit_code(self) -> int:
        deadline = time.monotonic() + 5
        while self.is_running():
            assert time.monotonic() < deadline, "still running after 5 seconds"
            time.sleep(0.002)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        self._lines.close()


def hold(say: Say, folder: Path, with_worker: bool = False) -> None:
    with lock_folder(folder):
        if with_worker:
            os.fork()
        say(str(os.getpid()))
        time.sleep(60)


def loop(say: Say, busy: bool = False, with_worker: bool = False) -> None:
    with StopSignal() as stop:
        if with_worker:
            os.fork()
        say(str(os.getpid()))
        while stop.received is None or busy:
            time.sleep(0.005)
    say("saved")
    os._exit(128 + stop.received)


# -------------------------------------------------------------------------------------------------------------- lock


def test_a_second_process_is_refused_at_once_with_the_pid_of_the_first(tmp_path: Path) -> None:
    with Child(hold, tmp_path) as holder:
        pid = holder.next_line()
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
    (tmp_path / ".lock").write_text("process of long ago " * 10)
    with Child(hold, tmp_path) as holder:
        assert int(holder.next_line()) == holder.pid
    with lock_folder(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"process {os.getpid()} on {os.uname().nodename}\n"


def test_a_forked_worker_that_outlives_its_killed_parent_does_not_hold_the_lock(tmp_path: Path) -> None:
    with Child(hold, tmp_path, True) as holder:
        pids = {int(holder.next_line()), int(holder.next_line())}
        (worker,) = pids - {holder.pid}
        os.kill(holder.pid, signal.SIGKILL)
        assert holder.exit_code() == -signal.SIGKILL
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
    with Child(loop) as process:
        process.next_line()
        os.kill(process.pid, number)
        assert process.next_line() == "saved"
        assert process.exit_code() == 128 + number


def test_a_second_signal_ends_a_busy_process_at_once() -> None:
    with Child(loop, True) as process:
        process.next_line()
        os.kill(process.pid, signal.SIGINT)
        time.sleep(0.1)
        assert process.is_running()
        begin = time.monotonic()
        os.kill(process.pid, signal.SIGTERM)
        assert process.exit_code() == 128 + signal.SIGTERM
        assert time.monotonic() - begin < 0.5
        assert process.next_line() == ""


def test_a_forked_worker_ends_at_its_first_sigterm_and_the_loop_goes_on() -> None:
    with Child(loop, True, True) as process:
        (worker,) = {int(process.next_line()), int(process.next_line())} - {process.pid}
        os.kill(worker, signal.SIGTERM)
        for _ in range(100):
            if Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                break
            time.sleep(0.01)
        else:
            pytest.fail("the worker is still running")
        assert process.is_running()


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


def test_a_new_file_is_never_written_over_another_or_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "absent")
    for name in ("file", "link"):
        with pytest.raises(FileExistsError):
            write_new_file(tmp_path / name, b"new")
    assert (tmp_path / "file").read_text() == "mine"
    assert not (tmp_path / "absent").exists()


def test_a_system_that_takes_a_few_bytes_at_a_time_gets_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, content[:7]))
    write_new_file(tmp_path / "file", bytes(range(100)))
    assert (tmp_path / "file").read_bytes() == bytes(range(100))
