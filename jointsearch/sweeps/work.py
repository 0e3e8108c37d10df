"""Does the commands of a sweep: several at a time, each in a process and a folder of its own, or what is left of them.

A member belongs to whoever holds the lock of its folder. So any number of machines that share the folder of the sweep
can take part: each does what no other one has begun.
"""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from jointsearch.runs.run_folder import StopSignal, try_lock, write_json
from jointsearch.sweeps.members import Member
from search_spaces.plain_json import read_json

DONE_FILE, CONSOLE_FILE = "member.json", "console.log"
LINES_OF_FAILURE = 5


@dataclass(frozen=True)
class Outcome:
    """What became of a member."""

    member: Member
    exit_code: int | None  # None: another process has it, or this one was stopped before it began
    seconds: float = 0.0


@dataclass
class Work:
    """The commands of a sweep in its folder."""

    folder: Path
    command: tuple[str, ...]  # to which each member adds its words and run=
    say: Callable[[str], None]
    here: tuple[str, ...] = ()  # words of every member on this machine, which do not make it another member

    def __post_init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = threading.Event()
        self.stopped_by: int | None = None  # a signal

    def do_all(self, members: Sequence[Member], jobs: int) -> list[Outcome]:
        """Every member that is not finished and that no other process has begun, `jobs` at a time."""
        with StopSignal() as stop, ThreadPoolExecutor(jobs) as pool:
            pending = [pool.submit(self.do, member) for member in members]
            while not all(one.done() for one in pending):
                time.sleep(0.1)
                if stop.received is not None and not self._stopped.is_set():
                    self.stop(stop.received)
            self.stopped_by = stop.received
            return [one.result() for one in pending]

    def stop(self, number: int) -> None:
        """Begin nothing more, and hand a signal on to what runs; it saves and ends."""
        self._stopped.set()
        for process in list(self._running):
            process.send_signal(number)

    def do(self, member: Member) -> Outcome:
        """Carry out a member, or find that it is done, or that another process has it."""
        place = self.folder / member.name
        if (before := finished(place, member)) is not None:
            return before
        if self._stopped.is_set() or (lock := try_lock(place)) is None:
            return Outcome(member, None)
        try:
            if (before := finished(place, member)) is not None:  # by another machine, meanwhile
                return before
            return self._carried_out(member, place, lock)
        finally:
            os.close(lock)

    def _carried_out(self, member: Member, place: Path, lock: int) -> Outcome:
        self.say(f"{member.name}: started")
        began = time.monotonic()
        command = [*self.command, *member.words, *self.here, f"run={place}"]
        with (place / CONSOLE_FILE).open("ab") as console:
            # The process holds the lock too: a member whose process outlives this one is not begun a second time.
            # In a session of its own, Ctrl-C reaches it once, from here: a second signal would end it without saving.
            with subprocess.Popen(
                command,
                stdout=console,
                stderr=console,
                pass_fds=(lock,),
                start_new_session=True,
            ) as process:
                self._running.add(process)
                if self._stopped.is_set():
                    process.terminate()
                code = process.wait()
            self._running.discard(process)
        outcome = Outcome(member, code, round(time.monotonic() - began, 1))
        if code == 0:
            write_json(place / DONE_FILE, {"words": list(member.words), "exit_code": 0, "seconds": outcome.seconds})
        self.say(f"{member.name}: {told(outcome)}{'' if code == 0 else _last_lines(place / CONSOLE_FILE)}")
        return outcome


def finished(place: Path, member: Member) -> Outcome | None:
    """The outcome of a member that was carried out with the same words."""
    path = place / DONE_FILE
    if not path.is_file():
        return None
    done = read_json(path, "member of a sweep")
    return Outcome(member, 0, done["seconds"]) if done.get("words") == list(member.words) else None


def told(outcome: Outcome) -> str:
    """An outcome in words."""
    if outcome.exit_code is None:
        return "left to another process"
    return f"finished in {outcome.seconds:.0f} s" if outcome.exit_code == 0 else f"ended with {outcome.exit_code}"


def _last_lines(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-LINES_OF_FAILURE:]
    return "".join(f"\n  {line}" for line in lines)
