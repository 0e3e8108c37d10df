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

import torch
from torch import nn

from jointsearch.augmenters.with_policy import CountedPolicy
from jointsearch.data.sets import DataSplits
from jointsearch.front_end import augment
from jointsearch.jobs import Job, JobResult, PopulationContext, PopulationSearcher, plain_result, result_of
from jointsearch.loops.journal import Journal, carry_out, named_generators
from jointsearch.loops.plan import Plan, check_identity, new_trainer, write_identity
from jointsearch.loops.progress import Course
from jointsearch.loops.retrain import PlainSteps, plain_steps
from jointsearch.loops.shared import POLL_SECONDS, in_turn
from jointsearch.loops.trainer import Trainer
from jointsearch.loops.training import Training
from jointsearch.metrics.evaluate import evaluate
from jointsearch.protocols import Found, Scores, State, TrainStep
from jointsearch.randomness import own_global_randomness
from jointsearch.runs.boards import NO_BOARD
from jointsearch.runs.checkpoint import LoadedCheckpoint, generator_states, load_checkpoint, save_checkpoint
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
from search_spaces.genotype import Genotype
from search_spaces.plain_json import read_json
from search_spaces.policy import Policy

JOBS = "jobs"  # the folder of all jobs of a search
CHECKPOINTS = "checkpoints"  # below that of a job


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


class CountedSteps(PlainSteps):
    """Steps of a training that also count how often each sub-policy is drawn."""

    def __init__(self, counted: CountedPolicy, network: nn.Module, step: TrainStep, noise: torch.Generator) -> None:
        super().__init__(counted, network, step, noise)
        self.counted = counted

    def state(self) -> State:
        """The counts so far."""
        return {"draws": self.counted.draws}

    def restore(self, state: State) -> None:
        """Continue from a state; that of a job without counts has none."""
        self.counted.draws = state.get("draws", self.counted.draws)


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
        result = {
            "epochs": plan.recipe.epochs,
            "jobs": len(done),
            "seconds": round(sum(one.seconds for _, one in done), 1),
            "forward_equivalents": sum(one.forward_equivalents for _, one in done),
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
            return _judged(plan, splits, self._network(job.start, plan, splits), job.judged_under)
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
            self.networks[number].load(_state_in(self._checkpoints(number)).state["trainer"])
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
                write_json(folder / RESULT_FILE, result)
        return read_json(folder / RESULT_FILE, "result")

    def _write_files(self, folder: Path, found: Found, done: Sequence[tuple[Job, JobResult]]) -> None:
        (folder / "metrics.jsonl").unlink(missing_ok=True)
        with Tracker(folder, self.plan.board) as tracker:
            for number, (job, result) in enumerate(done, start=1):
                tracker.log(number, {"job": job.name, "fold": job.fold, "seed": job.seed or 0, "score": result.score})
        for name, value in ((POLICY_FILE, found.policy), (GENOTYPE_FILE, found.genotype)):
            if value is not None:
                replace_file(Path(folder / name), value.to_json().encode())


def train_job(plan: Plan, splits: DataSplits, job: Job, journal: Journal) -> JobResult:
    """Train a job to its epoch, and judge it."""
    counted = CountedPolicy(job.policy, plan.standard) if job.counted and isinstance(job.policy, Policy) else None
    steps = plain_steps(plan) if counted is None else partial(CountedSteps, counted)
    training = Training(plan, splits, steps, NothingKept(), journal)
    scores = training.advance(plan.recipe.epochs if job.until_epoch is None else job.until_epoch)
    if scores is None:
        raise InputError("there are no images that judge a training; raise dataset.reduced")
    draws = () if counted is None else tuple(counted.draws.tolist())
    passes = training.progress.forward_equivalents
    return JobResult(scores.decisive, round(journal.seconds(), 3), passes, dict(scores.values), draws)


def _judged(plan: Plan, splits: DataSplits, network: Trainer, policy: Policy) -> JobResult:
    """Score a network on the images that judge, augmented by a policy; nothing is trained."""
    began = time.monotonic()
    images, noise = splits.validation.to(plan.device), torch.Generator().manual_seed(plan.seed)
    as_seen = partial(augment, policy=policy, standard=plan.standard, noise=noise)
    scores = evaluate(network, images, as_seen, plan.task.new_metric, plan.task.evaluation_batch)
    passes = -(-len(images) // plan.recipe.batch_size)
    return JobResult(scores.decisive, round(time.monotonic() - began, 3), passes, dict(scores.values))


def continue_from(checkpoints: Path, plan: Plan, anew: bool) -> None:
    """Begin a job where another one ended, which wrote the checkpoints; `anew`: with generators of its own seed."""
    if (plan.folder / RESULT_FILE).is_file() or load_checkpoint(plan.folder / CHECKPOINTS) is not None:
        return  # it was begun before
    loaded = _state_in(checkpoints)
    state = loaded.state | {"metrics_bytes": 0, "seconds": 0.0}
    state["progress"] = state["progress"] | {"forward_equivalents": 0}
    state["searcher"] = {}
    if anew:
        with own_global_randomness(plan.seed):
            state["generators"] = generator_states(named_generators(plan.seed))
    save_checkpoint(plan.folder / CHECKPOINTS, loaded.step, state)


def _state_in(checkpoints: Path) -> LoadedCheckpoint:
    loaded = load_checkpoint(checkpoints)
    if loaded is None:
        raise InputError(f"{checkpoints} holds no checkpoint to continue from; restore it, or begin in another folder")
    return loaded
