"""Which process does which job of a search, and the results of all: kept in a storage of Optuna.

    board = JobBoard(folder)                    # a journal file in the folder; or JobBoard(folder, "postgresql://...")
    with board.working():
        if (claim := board.claim(7, "trivialaugment")) is not None:
            board.tell(claim, score=62.5, facts={...})
    board.results()                             # facts by number, of every job that is done

A job is a trial of an Optuna study. Of several claims of a job the first counts. The claims of a process that died are
free again: in a journal file at once, because the process held a lock; in a database when its heartbeat stopped.
"""

import contextlib
import fcntl
import logging
import os
import shutil
import socket
import threading
import uuid
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jointsearch.runs.run_folder import lock_folder, try_lock
from search_spaces.errors import InputError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

JOURNAL_FILE = "jobs.journal"
HEARTBEAT, GRACE = 30, 120  # seconds


@dataclass(frozen=True)
class Claim:
    """The right of this process to do a job."""

    job: int
    trial: int  # its number in the study


class FileLock:
    """A lock of Optuna's journal that the system takes back from a process that dies."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.held: int | None = None

    def acquire(self) -> bool:
        """Wait for the lock."""
        held = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        fcntl.flock(held, fcntl.LOCK_EX)
        self.held = held
        return True

    def release(self) -> None:
        """Give it back."""
        if self.held is not None:
            os.close(self.held)
            self.held = None


class JobBoard:
    """The jobs of one search."""

    def __init__(
        self, folder: Path, storage: str | None = None, name: str = "search", higher_is_better: bool = True
    ) -> None:
        """`storage` is the URL of a database; without one, a journal file in the folder keeps the jobs."""
        import optuna  # half a second, which other commands need not wait for

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.folder, self.owner = folder, f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.beats = storage is not None
        self.storage = _storage(folder, storage)
        self.study = optuna.create_study(
            storage=self.storage,
            study_name=name,
            direction="maximize" if higher_is_better else "minimize",
            load_if_exists=True,
        )
        self.claimed: dict[int, int] = {}  # trials of this process that run, by their number: ids

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """While entered, this process may claim jobs, and others see that it is alive."""
        if not self.beats:
            with lock_folder(self._of(self.owner)):
                yield
                shutil.rmtree(self._of(self.owner), ignore_errors=True)
            return
        stopped = threading.Event()
        beating = threading.Thread(target=self._beat, args=(stopped,), daemon=True)
        beating.start()
        try:
            yield
        finally:
            stopped.set()
            beating.join()

    def results(self) -> dict[int, dict[str, Any]]:
        """What was told of every job that is done, by its number."""
        from optuna.trial import TrialState

        done = [trial for trial in self._trials() if trial.state == TrialState.COMPLETE]
        return {trial.user_attrs["job"]: trial.user_attrs["facts"] for trial in reversed(done)}

    def claim(self, job: int, name: str) -> Claim | None:
        """The right to do a job; None if it is done, or if a process that is alive does it."""
        from optuna import create_trial
        from optuna.trial import TrialState

        self._free_the_dead()
        if self._first(job) is not None:
            return None
        mine = uuid.uuid4().hex
        attributes = {"job": job, "name": name, "owner": self.owner, "claim": mine}
        self.study.add_trial(create_trial(state=TrialState.RUNNING, user_attrs=attributes))
        [trial] = [one for one in self._trials() if one.user_attrs.get("claim") == mine]
        first = self._first(job)
        if first is None or first.number != trial.number:
            self._free(trial.number)
            return None
        self.claimed[trial.number] = trial._trial_id
        if self.beats:
            self._record(trial._trial_id)
        return Claim(job, trial.number)

    def tell(self, claim: Claim, score: float, facts: Mapping[str, Any]) -> None:
        """Write down what a job measured."""
        from optuna.exceptions import UpdateFinishedTrialError

        trial = self.claimed.pop(claim.trial)
        with contextlib.suppress(UpdateFinishedTrialError):  # it was taken over: whoever has it finds the same
            self.storage.set_trial_user_attr(trial, "facts", dict(facts))
            self.study.tell(claim.trial, score, skip_if_finished=True)

    def give_back(self, claim: Claim) -> None:
        """Leave a job to others."""
        self.claimed.pop(claim.trial)
        self._free(claim.trial)

    def _free(self, trial: int) -> None:
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        with contextlib.suppress(UpdateFinishedTrialError):  # by another process, at the same moment
            self.study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)

    def _first(self, job: int) -> "FrozenTrial | None":
        """The claim of a job that counts."""
        from optuna.trial import TrialState

        for trial in self._trials():
            if trial.user_attrs.get("job") == job and trial.state in (TrialState.RUNNING, TrialState.COMPLETE):
                return trial
        return None

    def _free_the_dead(self) -> None:
        from optuna.storages import fail_stale_trials
        from optuna.trial import TrialState

        if self.beats:
            with _experimental():
                fail_stale_trials(self.study)
            return
        for trial in self._trials():
            if trial.state == TrialState.RUNNING and not self._is_alive(trial.user_attrs["owner"]):
                self._free(trial.number)

    def _is_alive(self, owner: str) -> bool:
        if owner == self.owner:
            return True
        if not self._of(owner).is_dir():
            return False
        lock = try_lock(self._of(owner))
        if lock is not None:
            os.close(lock)
        return lock is None

    def _of(self, owner: str) -> Path:
        return self.folder / "workers" / owner

    def _trials(self) -> "list[FrozenTrial]":
        return self.study.get_trials(deepcopy=False)

    def _beat(self, stopped: threading.Event) -> None:
        while not stopped.wait(HEARTBEAT):
            for trial in list(self.claimed.values()):
                self._record(trial)

    def _record(self, trial: int) -> None:
        try:
            self.storage.record_heartbeat(trial)  # type: ignore[attr-defined]
        except Exception as error:  # a server that is away for a moment; a long absence frees the job
            logging.getLogger(__name__).warning(f"the database did not take a heartbeat ({type(error).__name__})")


def _storage(folder: Path, url: str | None) -> "BaseStorage":
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    if url is None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / JOURNAL_FILE
        lock: Any = FileLock(path.with_suffix(".lock"))
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    try:
        with _experimental():
            return RDBStorage(url, heartbeat_interval=HEARTBEAT, grace_period=GRACE)
    except Exception as error:  # of the driver, whichever it is
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"storage={_without_password(url)} cannot be used ({reason}); give a database that SQLAlchemy reaches, as "
            "sqlite:///jobs.db or postgresql://host/name, or leave storage out"
        ) from error


@contextlib.contextmanager
def _experimental() -> Iterator[None]:
    """Optuna warns that heartbeats may change; its version is pinned below the next one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*experimental")
        yield


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
