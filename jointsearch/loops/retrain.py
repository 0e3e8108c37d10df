"""Train one network under one finished policy, from scratch to its test scores; resumed, it ends on the same bits."""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jointsearch.augmenters.copies import Copies
from jointsearch.data.sets import Batch, DataSplits
from jointsearch.distributed import from_first, is_first
from jointsearch.loops.copies_steps import CopiesSteps
from jointsearch.loops.journal import Journal, carry_out
from jointsearch.loops.plan import NewStepSearcher, Plan, check_identity, write_identity
from jointsearch.loops.training import Training
from jointsearch.networks.trained import save_network
from jointsearch.protocols import (
    PLAIN_STEP,
    Augmenter,
    Found,
    Moment,
    Needs,
    Scores,
    State,
    StepReport,
    TrainStep,
    passes_of,
)
from jointsearch.runs.provenance import package_version
from jointsearch.runs.run_folder import PREDICTIONS_FILE, RESULT_FILE, lock_folder, replace_file, write_json
from jointsearch.runs.track import METRICS_FILE, read_metrics, tell_again
from search_spaces.controls import named_policy

FURTHER = "test_scores_last"  # in a result, what its metric told beside its own score
OF_TRAINING = re.compile("epoch$|step$|train_loss$|validation_")  # what metrics of a search tell of its training
OF_CLASS = "/"  # in the name of a score of one class, as in accuracy/cat; metrics.jsonl goes without those


class PlainSteps:
    """Steps of a training that searches nothing: augment, and train."""

    needs = Needs(batches=0)

    def __init__(self, augmenter: Augmenter, network: nn.Module, train_step: TrainStep, noise: torch.Generator) -> None:
        self.augmenter, self.network, self.train_step, self.noise = augmenter, network, train_step, noise

    def step(self, train: Batch, validation: Sequence[Batch], at: Moment) -> StepReport:
        """Train on a batch."""
        batch = self.augmenter(train, self.network, at, self.noise)
        cost = PLAIN_STEP * passes_of(self.train_step.objective)
        return StepReport(self.train_step(batch.images, batch.targets), forward_equivalents=cost)

    def found(self) -> Found:
        """Nothing is searched."""
        return Found()

    def state(self) -> State:
        """Nothing is learned."""
        return {}

    def restore(self, state: State) -> None:
        """Nothing is learned."""


class BestWeights:
    """Keeps the weights of the epoch with the best validation score; of equal epochs the first."""

    def __init__(self) -> None:
        self.epoch = 0
        self.score: float | None = None
        self.weights: dict[str, Tensor] | None = None

    def consider(self, training: Training, scores: Scores | None) -> Mapping[str, float | str]:
        """Keep the weights if this epoch is better; later equal epochs had more chances to be lucky."""
        if scores is not None and scores.better_than(self.score):
            self.epoch, self.score = training.progress.epoch, scores.decisive
            weights = training.trainer.network().state_dict()
            self.weights = {name: value.detach().clone() for name, value in weights.items()}
        return {}

    def state(self) -> State:
        """What a checkpoint has to hold."""
        return dict(vars(self))

    def restore(self, state: State) -> None:
        """Continue from a state."""
        vars(self).update(state)


def plain_steps(plan: Plan) -> NewStepSearcher:
    """Builds what does the steps of a training under the policy of a plan."""
    augmenter = plan.task.new_augmenter(plan.policy or named_policy("none"), plan.standard)
    plain = plan.task.new_augmenter(named_policy("none"), plan.standard)

    def start(network: nn.Module, train_step: TrainStep, noise: torch.Generator) -> PlainSteps | CopiesSteps:
        if plan.copies is None:
            return PlainSteps(augmenter, network, train_step, noise)
        return CopiesSteps(plan.copies, (augmenter, plain), network, train_step, noise)

    return start


def retrain(plan: Plan, splits: DataSplits) -> dict[str, Any]:
    """Train, or continue, or return the result that is there already; `try_plan` is the caller's to call first.

    Raises Interrupted after a signal.
    """

    def train(journal: Journal) -> dict[str, Any]:
        kept = BestWeights()
        training = Training(plan, splits, plain_steps(plan), kept, journal)
        training.advance(plan.recipe.epochs)
        result = finished(training, splits, kept, plan)
        names = (key for key in result if key.startswith("test_") and key not in ("test_images", FURTHER))
        scores = {key: result[key] for key in names}
        further = result.get(FURTHER, {}).items()
        scores |= {f"test_{name}_last": value for name, value in further if OF_CLASS not in name}
        journal.tracker.log(training.total_steps(), scores)
        return result

    return carry_out(plan, splits, train)


def leave_network(training: Training, splits: DataSplits, kept: BestWeights, plan: Plan) -> dict[str, Any]:
    """Leave the network of a search where that of a plan would be: its weights, its result, and how it came to it."""

    def leave(result: dict[str, Any]) -> None:
        lines = ({key: one[key] for key in one if OF_TRAINING.match(key)} for one in read_metrics(searched))
        replace_file(plan.folder / METRICS_FILE, "".join(f"{json.dumps(line)}\n" for line in lines).encode())
        write_json(plan.folder / RESULT_FILE, result)
        tell_again(plan.folder, plan.board)

    searched = training.plan.folder / METRICS_FILE
    with lock_folder(plan.folder) if is_first() else nullcontext():
        check_identity(plan, splits)
        from_first(lambda: write_identity(plan, splits))
        result = finished(training, splits, kept, plan)
        from_first(lambda: leave(result))
    return result


def finished(training: Training, splits: DataSplits, kept: BestWeights, plan: Plan) -> dict[str, Any]:
    """The result of a training that has ended, and that of its network; both are left in the folder of a plan."""
    result, last = trained(training, plan.copies), training.test()
    from_first(lambda: write_network(training, splits, last, plan))
    return result | tested(training, kept, last, plan.folder)


def write_network(training: Training, splits: DataSplits, last: Scores | None, plan: Plan) -> None:
    """Leave the network of the last epoch in the folder, for `load_network`, with its scores on the test images."""
    genotype = plan.network_options.get("genotype")
    told = plan.task.new_network.description(plan, splits) | {
        "policy": None if plan.policy is None else json.loads(plan.policy.to_json()),
        "genotype": None if genotype is None else json.loads(genotype.to_json()),
        "recipe": plan.recipe.plain(),
        "seed": plan.seed,
        "test_images": len(training.test_images),
        "test_scores": {} if last is None else {name: value for name, value in last.values.items() if isfinite(value)},
        "jointsearch": package_version(),
    }
    save_network(plan.folder, training.trainer.network(), told)


def trained(training: Training, copies: Copies | None) -> dict[str, Any]:
    """What a finished training did, in figures."""
    epochs, size = training.progress.epoch, training.plan.recipe.step_images
    images = epochs * min(training.steps * size, len(training.train))
    plain = copies is None and passes_of(training.trainer.objective) == 1
    return {
        "epochs": epochs,
        "images_trained": images * (1 if copies is None else copies.kept),
        **({} if plain else {"forward_equivalents": training.progress.forward_equivalents}),
        **({} if training.plan.search is not None else training.searcher.found().facts),
        "seconds": round(training.journal.seconds(), 1),
        "test_images": len(training.test_images),
    }


def tested(training: Training, kept: BestWeights, last: Scores | None, folder: Path) -> dict[str, Any]:
    """The scores of a finished training: `last` are those of the last epoch, and the selected epoch is tested here."""
    if last is None:
        return {}
    result: dict[str, Any] = {"metric": training.metric()}
    result[f"test_{last.main}_last"] = last.decisive
    beside = {name: value for name, value in last.values.items() if name not in (last.main, "loss")}
    if further := {**beside, **last.further}:
        result[FURTHER] = further
    if details := last.details:
        from_first(lambda: replace_file(folder / PREDICTIONS_FILE, json.dumps(details, allow_nan=False).encode()))
    if kept.weights is None:
        return result
    training.trainer.network().load_state_dict(kept.weights)
    selected = training.test()
    return result | {
        f"test_{last.main}_selected": None if selected is None else selected.decisive,
        "selected_epoch": kept.epoch,
        f"validation_{last.main}_selected": kept.score,
    }
