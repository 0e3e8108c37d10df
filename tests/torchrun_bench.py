"""Small trainings and searches that torchrun carries out in two processes, and a test in one; each says what it holds.

    python -m torch.distributed.run --standalone --nproc_per_node 2 tests/torchrun_bench.py FOLDER

Each process writes what it came to into FOLDER/0 or FOLDER/1.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator, nn

from jointsearch.data.datasets import Digits
from jointsearch.data.load import Loaded
from jointsearch.data.standard import Standard
from jointsearch.distributed import place, processes, together
from jointsearch.loops.journal import Interrupted, Journal, carry_out
from jointsearch.loops.plan import NewStepSearcher, Plan
from jointsearch.loops.recipe import Mixing, Recipe, SearchRecipe
from jointsearch.loops.retrain import BestWeights, plain_steps
from jointsearch.loops.training import Training
from jointsearch.networks.supernet import SupernetSettings
from jointsearch.protocols import StepSearcher, TrainStep
from jointsearch.runs.plain_state import decode_state, encode_state
from jointsearch.search_kinds import Joint, PolicyOnly
from jointsearch.searchers.cell_learner import ArchitectureSettings
from jointsearch.searchers.differentiable import Differentiable
from jointsearch.searchers.first_order import FirstOrder
from jointsearch.searchers.rewards import Rewards
from jointsearch.searchers.spaces import Pairs
from jointsearch.searchers.table import Table, Trials
from jointsearch.study import Study
from search_spaces.controls import named_policy
from search_spaces.errors import InputError
from tests.runs_bench import Stopping, run_searches

# 150 images in batches of 74 end with one of 2, and the 75 of a search in batches of 24 with one of 3: too few for two
# processes. In batches of 23 two processes have unequal parts.
DIGITS = Digits(reduced=150, validation=100, standard=Standard(crop_padding=1, flip=True, cutout=2))
RECIPE = Recipe(
    epochs=7, batch_size=74, learning_rate=0.05, clip_gradient=1.0, mixing=Mixing(0.2, 1.0), label_smoothing=0.1,
    ema_decay=0.9, evaluate_every=1, precision="float32",
)  # fmt: skip
SEARCH_RECIPE = SearchRecipe(epochs=5, batch_size=24, learning_rate=0.05)  # 20 steps
PAIRS = Pairs(ops=("Rotate", "Invert", "Brightness", "TranslateX"))


def trained(folder: Path, network: str, recipe: Recipe = RECIPE) -> dict[str, Any]:
    """The state of a training under TrivialAugment, and the scores of its last epoch."""
    splits = Loaded(DIGITS).splits(0)
    plan = Plan(folder, network, recipe, DIGITS.standard, 0, named_policy("trivialaugment"))
    kept: dict[str, Any] = {}

    def work(journal: Journal) -> dict[str, Any]:
        training = Training(plan, splits, plain_steps(plan), BestWeights(), journal)
        scores = training.advance(recipe.epochs)
        kept.update(training.trainer.state(), steps=training.total_steps(), scores=dict(scores.values))
        return {}

    carry_out(plan, splits, work)
    return kept


def searched(folder: Path, kind: Any, recipe: SearchRecipe = SEARCH_RECIPE, stop_at: int | None = None) -> Any:
    """What a search learned, and its weights; a signal comes in the middle of the step `stop_at` of this process."""
    kept: dict[str, Any] = {}

    def watch(new_searcher: NewStepSearcher) -> NewStepSearcher:
        def start(network: nn.Module, train_step: TrainStep, noise: Generator) -> StepSearcher:
            kept["network"] = network
            kept["searcher"] = new_searcher(network, Stopping(train_step, stop_at), noise)
            return kept["searcher"]

        return start

    study = Study(dataset=DIGITS, search=replace(kind, search_recipe=recipe), seeds=(0,), retrain=False)
    [result] = run_searches(study, folder, watch=watch)
    return {
        "learned": kept["searcher"].state(),
        "network": kept["network"].state_dict(),
        "steps": result["steps"],
        "policy": kept["searcher"].found().policy.to_json(),
    }


def policy_alone(searcher: Any, network: str = "tiny_mlp") -> PolicyOnly:
    return PolicyOnly(searcher, network, SEARCH_RECIPE)


JOINT = Joint(
    Differentiable(policy_space=PAIRS),
    ArchitectureSettings(learning_rate=0.01, order="second"),
    SupernetSettings("small", 4, 3),
    SEARCH_RECIPE,
)
UNEQUAL = replace(SEARCH_RECIPE, batch_size=23)
SHORT, ONE_EPOCH = replace(SEARCH_RECIPE, epochs=4), replace(SEARCH_RECIPE, epochs=1)
SEARCHES: dict[str, tuple[Any, SearchRecipe]] = {
    "joint": (JOINT, UNEQUAL),
    "policy": (policy_alone(Differentiable(policy_space=PAIRS), "tiny_cnn"), SEARCH_RECIPE),
    "exact": (policy_alone(Differentiable(policy_space=PAIRS, rewards=Rewards(epsilon=0.0))), ONE_EPOCH),
    "first_order": (policy_alone(FirstOrder(learning_rate=0.02)), SHORT),
    "table": (policy_alone(Table(every=4, levels=1)), SHORT),
    "trials": (policy_alone(Trials(measurements=2, trial_steps=2)), SHORT),
}


def interrupted(folder: Path) -> dict[str, Any]:
    """A search that a signal to the last process ends in step 7, and that then goes on."""
    kind, recipe = SEARCHES["policy"]
    ended = ""
    try:
        searched(folder, kind, recipe, stop_at=7 if place() == processes() - 1 else None)
    except Interrupted as error:
        ended = str(error)
    return {"ended": ended, **searched(folder, kind, recipe)}


def refused(folder: Path) -> dict[str, Any]:
    """The reason why another number of processes cannot go on with a search."""
    try:
        searched(folder, *SEARCHES["exact"])
    except InputError as error:
        return {"reason": str(error)}
    return {}


WORKS: dict[str, Callable[[Path], Any]] = {
    "mlp": lambda folder: trained(folder, "tiny_mlp"),
    "cnn": lambda folder: trained(folder, "tiny_cnn"),
    "cnn_one_step": lambda folder: trained(folder, "tiny_cnn", replace(RECIPE, epochs=1, batch_size=150, ema_decay=0)),
    **{name: lambda folder, given=given: searched(folder, *given) for name, given in SEARCHES.items()},
    "interrupted": interrupted,
    "refused": refused,
}


@dataclass
class Came:
    """What a process came to: of each work, and the files it opened for writing within the folder."""

    works: dict[str, Any]
    wrote: list[str]


@contextmanager
def writes_below(folder: Path) -> Iterator[list[str]]:
    """The files below a folder that this process opens for writing, or makes, inside."""
    seen: list[str] = []
    watching = [True]

    def hook(event: str, given: tuple[Any, ...]) -> None:
        writing = event == "open" and isinstance(given[2], int) and given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        changes = watching[0] and (writing or event in ("os.mkdir", "os.rename", "os.remove"))
        if changes and str(given[0]).startswith(str(folder)):
            seen.append(str(given[0]))

    sys.addaudithook(hook)
    yield seen
    watching[0] = False


def main(folder: Path) -> None:
    """Carry out all works, and write what this process came to."""
    torch.set_num_threads(1)
    with together(), writes_below(folder) as wrote:
        works = {name: work(folder / "two" / name) for name, work in WORKS.items()}
        number = place()
    (folder / str(number)).mkdir()
    for name, content in zip(("tensors", "state"), encode_state({"works": works, "wrote": wrote}), strict=True):
        (folder / str(number) / name).write_bytes(content)


def read(folder: Path) -> Came:
    """What a process wrote."""
    return Came(**decode_state((folder / "tensors").read_bytes(), (folder / "state").read_bytes()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
