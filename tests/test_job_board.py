"""Jobs that several processes share: each is done once, whoever dies, and in a database as in a journal file."""

import json
import multiprocessing
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from jointsearch.runs.job_board import JobBoard
from search_spaces.errors import InputError

FORK = multiprocessing.get_context("fork")


def storage_of(kind: str, folder: Path) -> str | None:
    """A journal file, or a database."""
    return None if kind == "journal" else f"sqlite:///{folder}/jobs.db"


def do_all(folder: Path, kind: str, count: int, pause: float = 0.0) -> None:
    """Do every job that nobody has begun, and wait until all are done; a line is written for each job done."""
    board, began = JobBoard(folder, storage_of(kind, folder)), time.monotonic()
    with board.working():
        while len(done := board.results()) < count:
            assert time.monotonic() - began < 60, "jobs are left that nobody may do"
            for job in range(count):
                if job not in done and (claim := board.claim(job, f"arm{job % 3}")) is not None:
                    time.sleep(pause)
                    board.tell(claim, float(job), {"by": os.getpid(), "twice": 2 * job})
                    with (folder / "done.jsonl").open("a") as file:
                        file.write(json.dumps([job, os.getpid()]) + "\n")
            time.sleep(0.01)


def started(*arguments: object) -> multiprocessing.process.BaseProcess:
    process = FORK.Process(target=do_all, args=arguments)
    process.start()
    return process


def done_in(folder: Path) -> Counter[int]:
    lines = (folder / "done.jsonl").read_text().splitlines()
    return Counter(json.loads(line)[0] for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "processes", "count"), [("journal", 10, 200), ("database", 3, 20)])
def test_many_processes_do_every_job_once(tmp_path: Path, kind: str, processes: int, count: int) -> None:
    JobBoard(tmp_path, storage_of(kind, tmp_path))  # a database is laid out once
    workers = [started(tmp_path, kind, count) for _ in range(processes)]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert done_in(tmp_path) == dict.fromkeys(range(count), 1), "none lost, none twice"
    results = JobBoard(tmp_path, storage_of(kind, tmp_path)).results()
    assert {job: facts["twice"] for job, facts in results.items()} == {job: 2 * job for job in range(count)}
    assert len({facts["by"] for facts in results.values()}) > 1, "one process did all of them"
    assert not list((tmp_path / "workers").glob("*")) or kind == "database"


@pytest.mark.slow
def test_the_jobs_of_a_process_that_died_are_taken_over_at_once(tmp_path: Path) -> None:
    count = 40
    board, killed_at_work = JobBoard(tmp_path), 0
    for _ in range(10):
        claims = len(board.study.get_trials(deepcopy=False))
        workers = [started(tmp_path, "journal", count, 0.03) for _ in range(2)]
        while len(board.study.get_trials(deepcopy=False)) < claims + 2:
            time.sleep(0.005)
        for worker in workers:
            os.kill(worker.pid or 0, signal.SIGKILL)
            worker.join()
        killed_at_work += any(trial.state.name == "RUNNING" for trial in board.study.get_trials(deepcopy=False))
    assert killed_at_work > 5, "no process was killed while it did a job"
    began = time.monotonic()
    do_all(tmp_path, "journal", count)
    assert time.monotonic() - began < 5, "a dead process held a job"
    results = JobBoard(tmp_path).results()
    assert sorted(results) == list(range(count))
    again = {job for job, times in done_in(tmp_path).items() if times > 1}
    assert not again, f"{again} were told and done once more"


def test_a_job_of_a_living_process_is_left_to_it(tmp_path: Path) -> None:
    first, second = JobBoard(tmp_path), JobBoard(tmp_path)
    with first.working(), second.working():
        claim = first.claim(0, "none")
        assert claim is not None
        assert second.claim(0, "none") is None
        first.give_back(claim)
        taken = second.claim(0, "none")
        assert taken is not None
        assert first.claim(0, "none") is None
        second.tell(taken, 1.0, {"score": 1.0})
        assert first.claim(0, "none") is None, "a job that is done was begun again"
    assert first.results() == {0: {"score": 1.0}}


def test_a_job_that_was_taken_over_keeps_its_first_result(tmp_path: Path) -> None:
    lost, other = JobBoard(tmp_path), JobBoard(tmp_path)
    with other.working():
        with lost.working():
            claim = lost.claim(0, "none")
            assert claim is not None
        taken = other.claim(0, "none")  # the first one is no longer at work
        assert taken is not None
        other.tell(taken, 1.0, {"by": "other"})
        lost.tell(claim, 2.0, {"by": "lost"})
    assert other.results() == {0: {"by": "other"}}


@pytest.mark.parametrize("url", ["nosuch://user:secret@host/name", "sqlite:////no/such/folder/jobs.db"])
def test_a_database_that_cannot_be_reached_is_one_line_without_its_password(tmp_path: Path, url: str) -> None:
    with pytest.raises(InputError, match="storage=") as caught:
        JobBoard(tmp_path, url)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
