"""One job of a search by whole trainings: a training, a part of one, or a score of a network of another job."""

import math
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import nn

from jointsearch.augmenters.with_policy import CountedPolicy
from jointsearch.data.sets import DataSplits
from jointsearch.front_end import augment
from jointsearch.jobs import Job, JobResult
from jointsearch.loops.journal import Journal, named_generators
from jointsearch.loops.plan import Diverged, Plan
from jointsearch.loops.retrain import PlainSteps, plain_steps
from jointsearch.loops.trainer import Trainer
from jointsearch.loops.training import Training
from jointsearch.metrics.evaluate import evaluate
from jointsearch.protocols import Scores, State, TrainStep
from jointsearch.randomness import own_global_randomness
from jointsearch.runs.checkpoint import LoadedCheckpoint, generator_states, load_checkpoint, save_checkpoint
from jointsearch.runs.run_folder import RESULT_FILE
from search_spaces.errors import InputError
from search_spaces.policy import Policy

CHECKPOINTS = "checkpoints"  # below the folder of a job


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


def train_job(plan: Plan, splits: DataSplits, job: Job, journal: Journal) -> JobResult:
    """Train a job to its epoch, and judge it."""
    counted = CountedPolicy(job.policy, plan.standard) if job.counted and isinstance(job.policy, Policy) else None
    steps = plain_steps(plan) if counted is None else partial(CountedSteps, counted)
    training = Training(plan, splits, steps, NothingKept(), journal)
    try:
        scores = training.advance(plan.recipe.epochs if job.until_epoch is None else job.until_epoch)
    except Diverged:
        if not job.scaled:
            raise
        scores = training.evaluate(training.validation)  # a factor of the recipe was too large: that is a result
        if scores is None or not math.isfinite(scores.decisive):
            raise
    if scores is None:
        raise InputError("there are no images that judge a training; raise dataset.reduced")
    draws = () if counted is None else tuple(counted.draws.tolist())
    passes = training.progress.forward_equivalents
    return JobResult(scores.decisive, round(journal.seconds(), 3), passes, _finite(scores), draws)


def _finite(scores: Scores) -> dict[str, float]:
    """All scores that are numbers; the loss of a diverged training is none, and JSON has no word for it."""
    return {name: value for name, value in scores.values.items() if math.isfinite(value)}


def judge_job(plan: Plan, splits: DataSplits, network: Trainer, policy: Policy) -> JobResult:
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
    loaded = state_in(checkpoints)
    state = loaded.state | {"metrics_bytes": 0, "seconds": 0.0}
    state["progress"] = state["progress"] | {"forward_equivalents": 0}
    state["searcher"] = {}
    if anew:
        with own_global_randomness(plan.seed):
            state["generators"] = generator_states(named_generators(plan.seed))
    save_checkpoint(plan.folder / CHECKPOINTS, loaded.step, state)


def state_in(checkpoints: Path) -> LoadedCheckpoint:
    """The checkpoint that a job ended with."""
    loaded = load_checkpoint(checkpoints)
    if loaded is None:
        raise InputError(f"{checkpoints} holds no checkpoint to continue from; restore it, or begin in another folder")
    return loaded
