"""Search by whole trainings: the jobs that a search asks for, each in a folder of its own, shared by any processes.

Every process that is given the same folder takes part. It does the jobs that nobody has begun, and waits for the
others; the search itself is replayed from the results, so that all of them ask for the same jobs and find the same.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from jointsearch.data.sets import AnySet, DataSplits
from jointsearch.data.standard import normalized
from jointsearch.jobs import (
    OWN_NETWORK,
    Job,
    JobResult,
    PopulationContext,
    PopulationSearcher,
    plain_result,
    result_of,
)
from jointsearch.loops.journal import carry_out
from jointsearch.loops.one_job import CHECKPOINTS, continue_from, judge_job, state_in, train_job
from jointsearch.loops.plan import Plan, check_identity, new_trainer, write_identity
from jointsearch.loops.progress import Course
from jointsearch.loops.shared import POLL_SECONDS, in_turn
from jointsearch.loops.trainer import Trainer
from jointsearch.metrics.evaluate import evaluate
from jointsearch.protocols import PLAIN_STEP, Found
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
from jointsearch.runs.track import METRICS_FILE, Tracker
from search_spaces.genotype import Genotype
from search_spaces.plain_json import read_json

JOBS = "jobs"  # the folder of all jobs of a search


@dataclass(frozen=True)
class Population:
    """A search by whole trainings, and what its jobs need."""

    plan: Plan  # of the search; its recipe is that of the jobs
    jobs: int  # that it will ask for, at most
    new_searcher: Callable[[PopulationContext], PopulationSearcher]
    proposals: Mapping[str, Found]
    splits: Callable[[int], DataSplits]  # of a fold
    storage: str | None = None  # the URL of a database; None: a journal file in the folder
    cells: Mapping[str, Genotype] = field(default_factory=dict)  # random ones, by name, where cells take part
    # Images that score the network of a job where that is a result, once, at the end.
    test: Callable[[], AnySet] | None = None
    networks: dict[int, Trainer] = field(default_factory=dict, init=False)  # of done jobs, that are judged again

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
        context = PopulationContext(
            seed=plan.seed,
            epochs=plan.recipe.epochs,
            higher_is_better=metric.higher_is_better,
            proposals=dict(self.proposals),
            mirrored=plan.standard.flip,
            cells=self.cells,
        )
        searcher = self.new_searcher(context)
        told = {"name": metric.name, "unit": metric.unit, "higher_is_better": metric.higher_is_better}
        name = "search" if self.storage is None else self._name(whole)
        board = JobBoard(plan.folder / JOBS, self.storage, name, metric.higher_is_better)
        with board.working():
            done = self._all_rounds(searcher, board)
        found = searcher.found()
        passes, steps = sum(one.forward_equivalents for _, one in done), plan.recipe.check_steps(len(whole.train))
        result = {
            "epochs": plan.recipe.epochs,
            "jobs": len(done),
            "whole_trainings": round(passes / (PLAIN_STEP * steps * plan.recipe.epochs), 2),
            "seconds": round(sum(one.seconds for _, one in done), 1),
            "forward_equivalents": passes,
            "skipped_steps": 0,
            "metric": told,
            **found.facts,
        }
        [written] = in_turn([(plan.folder, partial(self._write, found, done, result))])
        return written

    def _name(self, splits: DataSplits) -> str:
        """The name of the search in a database: that of its folder, and what decides its result."""
        identity = json.dumps(self.plan.identity(splits), sort_keys=True)
        folder = self.plan.folder
        return f"{folder.parent.name}/{folder.name}/{hashlib.sha256(identity.encode()).hexdigest()[:12]}"

    def _all_rounds(self, searcher: PopulationSearcher, board: JobBoard) -> list[tuple[Job, JobResult]]:
        done: list[tuple[Job, JobResult]] = []
        course = Course("job", self.jobs)
        while jobs := searcher.ask():
            numbered = {len(done) + place: job for place, job in enumerate(jobs)}
            results = self._round(numbered, board, course)
            for number, job in numbered.items():
                searcher.tell(job, results[number])
                done.append((job, results[number]))
            self._remove(done, searcher.continued)
        return done

    def _round(self, jobs: Mapping[int, Job], board: JobBoard, course: Course) -> dict[int, JobResult]:
        """The results of jobs: those that nobody has begun are done here, and the others waited for."""
        while True:
            told = board.results()
            if all(number in told for number in jobs):
                return {number: result_of(told[number]) for number in jobs}
            for number, job in jobs.items():
                if number not in told and (claim := board.claim(number, job.name)) is not None:
                    try:
                        result = self._done(number, job, course)
                    except BaseException:  # a signal, too: another process need not wait for this one's heartbeat
                        board.give_back(claim)
                        raise
                    board.tell(claim, result.score, plain_result(result))
                    break
            else:
                time.sleep(POLL_SECONDS)

    def _done(self, number: int, job: Job, course: Course) -> JobResult:
        """Train as a job says, in its folder."""
        course.left = course.count - number  # others may have done some
        plan = replace(self._plan(number, job), place=course.next(finished=False))
        splits = self.splits(job.fold)
        if job.start is not None and job.judged_under is not None:
            return judge_job(plan, splits, self._network(job.start, plan, splits), job.judged_under)
        if job.start is not None:
            continue_from(self._checkpoints(job.start), plan, anew=job.seed is not None)
        return result_of(carry_out(plan, splits, lambda journal: plain_result(train_job(plan, splits, job, journal))))

    def _plan(self, number: int, job: Job) -> Plan:
        recipe = replace(self.plan.recipe.scaled(job.scaled), evaluate_every=self.plan.recipe.epochs)
        cells = {} if job.genotype is None else {"genotype": job.genotype}
        return replace(
            self.plan,
            network_options=self.plan.network_options | cells,
            folder=self.plan.folder / JOBS / file_name(job.name) / f"{number:04d}",
            policy=job.policy,
            recipe=recipe,
            seed=self.plan.seed if job.seed is None else job.seed,
            search=None,
            board=NO_BOARD,
        )

    def _network(self, number: int, plan: Plan, splits: DataSplits) -> Trainer:
        """The network that a job ended with; it stays in memory, because it is judged many times."""
        if number not in self.networks:
            self.networks[number] = new_trainer(plan, splits, plan.device)
            self.networks[number].load(state_in(self._checkpoints(number)).state["trainer"])
        return self.networks[number]

    def _checkpoints(self, number: int) -> Path:
        """The checkpoints of a job, whatever its name."""
        [folder] = (self.plan.folder / JOBS).glob(f"*/{number:04d}")
        return folder / CHECKPOINTS

    def _remove(self, done: Sequence[tuple[Job, JobResult]], continued: frozenset[int]) -> None:
        """Remove what no later job continues: checkpoints of whole trainings, everything of parts of trainings."""
        parts = {number for number, (job, _) in enumerate(done) if job.until_epoch is not None or job.start is not None}
        for folder in (self.plan.folder / JOBS).glob("*/[0-9]*"):
            number = int(folder.name)
            if number < len(done) and number not in continued:
                shutil.rmtree(folder if number in parts else folder / CHECKPOINTS, ignore_errors=True)

    def _write(self, found: Found, done: Sequence[tuple[Job, JobResult]], result: dict[str, Any]) -> dict[str, Any]:
        """Leave what was found in the folder, with a line of metrics for every job, unless another process did."""
        folder = self.plan.folder
        with lock_folder(folder):
            if not (folder / RESULT_FILE).is_file():
                self._write_files(folder, found, done)
                write_json(folder / RESULT_FILE, result | self._own_score(found, done))
        return read_json(folder / RESULT_FILE, "result")

    def _own_score(self, found: Found, done: Sequence[tuple[Job, JobResult]]) -> dict[str, float]:
        """The score on test images of the network that the search has trained, where that is a result."""
        number = found.facts.get(OWN_NETWORK)
        if number is None or self.test is None or not len(images := self.test()):
            return {}
        job, _ = done[number]
        plan = self._plan(number, job)
        network = self._network(number, plan, self.splits(job.fold))
        as_seen = partial(normalized, standard=plan.standard)
        scores = evaluate(network, images.to(plan.device), as_seen, plan.task.new_metric, plan.task.evaluation_batch)
        return {"own_test_score": scores.decisive}

    def _write_files(self, folder: Path, found: Found, done: Sequence[tuple[Job, JobResult]]) -> None:
        (folder / METRICS_FILE).unlink(missing_ok=True)
        with Tracker(folder, self.plan.board) as tracker:
            for number, (job, result) in enumerate(done, start=1):
                tracker.log(number, {"job": job.name, "fold": job.fold, "seed": job.seed or 0, "score": result.score})
        for name, value in ((POLICY_FILE, found.policy), (GENOTYPE_FILE, found.genotype)):
            if value is not None:
                replace_file(Path(folder / name), value.to_json().encode())
