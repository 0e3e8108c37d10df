"""Search by whole trainings: the jobs that a search asks for, each in a folder of its own, shared by any processes.

Every process that is given the same folder takes part. It does the jobs that nobody has begun, and waits for the
others; the search itself is replayed from the results, so that all of them ask for the same jobs and find the same.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jointsearch.data.sets import DataSplits
from jointsearch.jobs import Job, JobResult, PopulationContext, PopulationSearcher, plain_result
from jointsearch.loops.journal import Journal, carry_out
from jointsearch.loops.plan import Plan, check_identity, write_identity
from jointsearch.loops.progress import Course
from jointsearch.loops.retrain import plain_steps
from jointsearch.loops.shared import POLL_SECONDS
from jointsearch.loops.training import Training
from jointsearch.protocols import Found, Scores, State
from jointsearch.runs.boards import NO_BOARD
from jointsearch.runs.job_board import JobBoard
from jointsearch.runs.run_folder import (
    GENOTYPE_FILE,
    POLICY_FILE,
    RESULT_FILE,
    file_name,
    lock_folder,
    replace_file,
    write_json,
)
from jointsearch.runs.track import Tracker
from search_spaces.errors import InputError
from search_spaces.plain_json import read_json

JOBS = "jobs"  # the folder of all jobs of a search


class NothingKept:
    """Keeps nothing of the epochs of a job: its last one is its result."""

    def consider(self, training: Training, scores: Scores | None) -> Mapping[str, float | str]:
        """Nothing is kept."""
        return {}

    def state(self) -> State:
        """Nothing is kept."""
        return {}

    def restore(self, state: State) -> None:
        """Nothing is kept."""


@dataclass(frozen=True)
class Population:
    """A search by whole trainings, and what its jobs need."""

    plan: Plan  # of the search; its recipe is that of the jobs
    trainings: int  # that it will make at most
    new_searcher: Callable[[PopulationContext], PopulationSearcher]
    proposals: Mapping[str, Found]
    splits: Callable[[int], DataSplits]  # of a fold
    options: Callable[[Job], dict[str, Any]]  # of the network of a job
    storage: str | None = None  # the URL of a database; None: a journal file in the folder

    def run(self) -> dict[str, Any]:
        """Search, or continue, or return the result that is there already."""
        plan, whole = self.plan, self.splits(0)
        path = plan.folder / RESULT_FILE
        check_identity(plan, whole)
        if path.is_file():
            return read_json(path, "result")
        plan.folder.mkdir(parents=True, exist_ok=True)
        write_identity(plan, whole)
        metric = plan.task.new_metric(plan.device)
        context = PopulationContext(plan.seed, plan.recipe.epochs, metric.higher_is_better, dict(self.proposals))
        searcher = self.new_searcher(context)
        told = {"name": metric.name, "unit": metric.unit, "higher_is_better": metric.higher_is_better}
        name = "search" if self.storage is None else self._name(whole)
        board = JobBoard(plan.folder / JOBS, self.storage, name, metric.higher_is_better)
        with board.working():
            done = self._all_rounds(searcher, board)
        found = searcher.found()
        result = {
            "epochs": plan.recipe.epochs,
            "jobs": len(done),
            "seconds": round(sum(one.seconds for _, one in done), 1),
            "forward_equivalents": sum(one.forward_equivalents for _, one in done),
            "skipped_steps": 0,
            "metric": told,
            **found.facts,
        }
        with lock_folder(plan.folder):
            if not path.is_file():
                self._write(found, done)
                write_json(path, result)
        return read_json(path, "result")

    def _name(self, splits: DataSplits) -> str:
        """The name of the search in a database: that of its folder, and what decides its result."""
        identity = json.dumps(self.plan.identity(splits), sort_keys=True)
        folder = self.plan.folder
        return f"{folder.parent.name}/{folder.name}/{hashlib.sha256(identity.encode()).hexdigest()[:12]}"

    def _all_rounds(self, searcher: PopulationSearcher, board: JobBoard) -> list[tuple[Job, JobResult]]:
        done: list[tuple[Job, JobResult]] = []
        course = Course("job", self.trainings)
        while jobs := searcher.ask():
            numbered = {len(done) + place: job for place, job in enumerate(jobs)}
            results = self._round(numbered, board, course)
            for number, job in numbered.items():
                searcher.tell(job, results[number])
                done.append((job, results[number]))
        return done

    def _round(self, jobs: Mapping[int, Job], board: JobBoard, course: Course) -> dict[int, JobResult]:
        """The results of jobs: those that nobody has begun are done here, and the others waited for."""
        while True:
            told = board.results()
            if all(number in told for number in jobs):
                return {number: JobResult(**told[number]) for number in jobs}
            for number, job in jobs.items():
                if number not in told and (claim := board.claim(number, job.name)) is not None:
                    result = self._done(number, job, course)
                    board.tell(claim, result.score, plain_result(result))
                    break
            else:
                time.sleep(POLL_SECONDS)

    def _done(self, number: int, job: Job, course: Course) -> JobResult:
        """Train as a job says. A job that continues another one begins from its checkpoint."""
        course.left = self.trainings - number  # others may have done some
        plan = replace(self._plan(number, job), place=course.next(finished=False))
        splits = self.splits(job.fold)

        def train(journal: Journal) -> dict[str, Any]:
            training = Training(plan, splits, plain_steps(plan), NothingKept(), journal)
            scores = training.advance(job.until_epoch or plan.recipe.epochs)
            if scores is None:
                raise InputError("there are no images that judge a training; raise dataset.reduced")
            passes = training.progress.forward_equivalents
            return plain_result(JobResult(scores.decisive, round(journal.seconds(), 3), passes, dict(scores.values)))

        result = JobResult(**carry_out(plan, splits, train))
        shutil.rmtree(plan.folder / "checkpoints", ignore_errors=True)  # nobody continues from here
        return result

    def _plan(self, number: int, job: Job) -> Plan:
        recipe = replace(self.plan.recipe, evaluate_every=self.plan.recipe.epochs)
        return replace(
            self.plan,
            folder=self.plan.folder / JOBS / file_name(job.name) / f"{number:04d}",
            policy=job.policy,
            network_options=self.options(job),
            recipe=recipe,
            seed=job.seed,
            search=None,
            board=NO_BOARD,
        )

    def _write(self, found: Found, done: Sequence[tuple[Job, JobResult]]) -> None:
        """Leave what was found in the folder, with a line of metrics for every job."""
        folder = self.plan.folder
        (folder / "metrics.jsonl").unlink(missing_ok=True)
        with Tracker(folder, self.plan.board) as tracker:
            for number, (job, result) in enumerate(done, start=1):
                tracker.log(number, {"job": job.name, "fold": job.fold, "seed": job.seed, "score": result.score})
        for name, value in ((POLICY_FILE, found.policy), (GENOTYPE_FILE, found.genotype)):
            if value is not None:
                replace_file(Path(folder / name), value.to_json().encode())
