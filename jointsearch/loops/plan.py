"""One training to be done: its settings, what must not change when it is resumed, and a first try of it."""

import hashlib
import os
import sysconfig
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from jointsearch.augmenters.copies import Copies
from jointsearch.data.sets import DataSplits
from jointsearch.data.standard import Standard, normalized
from jointsearch.device import choose_device
from jointsearch.distributed import processes
from jointsearch.loops.recipe import Recipe
from jointsearch.loops.task import CLASSIFICATION, Task
from jointsearch.loops.trainer import StepOf, Trainer
from jointsearch.networks.create import plain_options
from jointsearch.networks.network_settings import NetworkSettings
from jointsearch.protocols import PLAIN_STEP, Moment, StepSearcher, TrainStep
from jointsearch.randomness import own_global_randomness
from jointsearch.runs.boards import NO_BOARD, Board
from jointsearch.runs.plain_state import encode_state
from jointsearch.runs.provenance import birth_certificate
from jointsearch.runs.run_folder import GENOTYPE_FILE, OWN_NETWORK, POLICY_FILE, SETTINGS_FILE, write_json
from jointsearch.settings import called, leaves
from search_spaces.errors import InputError
from search_spaces.genotype import Genotype
from search_spaces.plain_json import read_json, shown_path
from search_spaces.policy import Policy
from search_spaces.schedule import PolicySchedule

# Where code lies that is not the user's: ours, Python's, and installed packages.
OURS = [os.path.join(Path(__file__).resolve().parents[2], package, "") for package in ("jointsearch", "search_spaces")]
INSTALLED = [os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib", "purelib", "platlib")]
NOT_THE_USERS = (*OURS, *INSTALLED, "<frozen", "<string", "<eval", "<__array")

COMPARED = ("policy", "copies", "network_options.genotype", "backbone")  # in these the trainings of one table differ
MOST_TOLD = 4  # differences in one error
# And in these where seeds differ: a search with each seed may have tuned the recipe.
DRAWN = ("seed", "data.digest", "tuned.learning_rate", "tuned.weight_decay")

# Builds what does the steps of a training from its network, its training step and the generator of all draws.
NewStepSearcher = Callable[[nn.Module, TrainStep, torch.Generator], StepSearcher]


class Diverged(InputError):
    """A training whose loss or gradient is no finite number any more."""


@dataclass(frozen=True)
class Plan:
    """What is trained, how, and where its files go."""

    folder: Path
    network: NetworkSettings  # or its name alone
    recipe: Recipe
    standard: Standard
    seed: int
    policy: Policy | PolicySchedule | None = None  # what it is trained under, or what a search starts from
    copies: Copies | None = None  # of every image, where a step trains on more than one
    dataset: dict[str, Any] = field(default_factory=dict)  # the settings of the data set, as plain data
    search: dict[str, Any] | None = None  # the settings of a search, as plain data; None where nothing is searched
    network_options: dict[str, Any] = field(default_factory=dict)  # what only this network knows, as a genotype
    device: torch.device = field(default_factory=lambda: choose_device("auto"))
    board: Board = NO_BOARD  # of the whole command
    save_seconds: float = 60.0
    show_progress: bool = False
    untuned: Recipe | None = None  # as it was given, where a search has tuned it
    place: str = ""  # among the searches or trainings of a command, as in "training 3 of 12"
    task: Task = CLASSIFICATION  # loss and score

    def __post_init__(self) -> None:
        object.__setattr__(self, "network", NetworkSettings.of(self.network))

    @property
    def name(self) -> str:
        """What a person calls it: policy and seed."""
        return f"{self.folder.parent.name} {self.folder.name}"

    @property
    def label(self) -> str:
        """What its progress is shown under: its place, its policy and its seed."""
        named = f"seed {self.seed}" if self.search is not None else f"{self.folder.parent.name} seed {self.seed}"
        return f"{self.place}: {named}" if self.place else named

    @property
    def recipe_group(self) -> str:
        """The group of settings that its recipe comes from."""
        return "recipe" if self.search is None or OWN_NETWORK in self.search else "search_recipe"

    def diverged(self, sign: str) -> "Diverged":
        """The error for a diverged training; `sign` names the symptom."""
        # Clipping would help a search too, and shorten the steps by which its rewards are measured.
        or_clip = " or set recipe.clip_gradient=5" if self.search is None else ""
        rate = f"{self.recipe_group}.learning_rate (now {self.recipe.learning_rate:g})"
        return Diverged(f"{sign}: training diverged; lower {rate}{or_clip}")

    def identity(self, splits: DataSplits) -> dict[str, Any]:
        """All that decides the result, as plain data."""
        searches = {} if self.search is None else {"search": self.search}
        options = {"network_options": plain_options(self.network_options)} if self.network_options else {}
        several = {"processes": processes()} if processes() > 1 else {}
        given = self.untuned or self.recipe
        whole = given if self.untuned is None else given.for_copies(self.copies)
        tuned = {name: value for name, value in vars(self.recipe).items() if value != vars(whole)[name]}
        return {
            **searches,
            **options,
            **several,
            **self.task.identity(),
            **({"copies": str(self.copies)} if self.copies else {}),
            "policy": None if self.policy is None else hashlib.sha256(self.policy.to_json().encode()).hexdigest()[:16],
            **self.network.plain(),
            "recipe": given.plain(),
            **({"tuned": tuned} if tuned else {}),
            "seed": self.seed,
            "dataset": self.dataset,
            "data": {"train": len(splits.train), "validation": len(splits.validation), "digest": splits.digest},
            "precision": "bf16" if self.recipe.autocasts(self.device) else "float32",
            "device": self.device.type,
        }


def new_trainer(plan: Plan, splits: DataSplits, device: torch.device) -> Trainer:
    """Build the network of a plan with fresh weights, and its trainer; draws from the global generator."""
    network, classes = plan.task.new_network(plan, splits), len(splits.train.classes)
    trainer = Trainer(network, plan.recipe, device, classes, plan.recipe.check_steps(len(splits.train)), plan.task)
    getattr(trainer.objective, "begin", lambda train, standard: None)(splits.train, plan.standard)
    return trainer


def try_plan(plan: Plan, splits: DataSplits, new_searcher: NewStepSearcher) -> float:
    """Raise InputError for what would go wrong later, before anything is written. Returns the mean seconds of a step.

    Two steps are taken on blank images, on the device and in the batches of the plan, and the second is timed. Rare
    measurements are too long to be tried; the cost that the searcher names for them is added.
    """
    try:
        with own_global_randomness(plan.seed):
            return _tried(plan, splits, new_searcher)
    except InputError:
        raise
    except Exception as error:  # other people's networks, optimizers and searchers raise whatever they like
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        kind = "training" if plan.search is None else "search"
        if where := place_in_user_code(error):
            raise InputError(
                f"{shown_path(where)} failed in a {kind} step ({type(error).__name__}: {reason}); repair it there"
            ) from error
        raise InputError(
            f"network={plan.network.name} with {plan.recipe_group}.optimizer={plan.recipe.optimizer} cannot take a "
            f"{kind} step on images of {'x'.join(map(str, splits.train.image_shape))} ({reason}); choose another "
            "network, optimizer or dataset.image_size"
        ) from error


def _tried(plan: Plan, splits: DataSplits, new_searcher: NewStepSearcher) -> float:
    """The mean seconds of a step, by the second of two."""
    trainer = new_trainer(plan, splits, plan.device)
    trainer.trained.train()
    size = min(plan.recipe.step_images, len(splits.train))
    batch = splits.train.blank(size).to(plan.device)
    normalized(batch.images, plan.standard)
    noise = torch.Generator().manual_seed(plan.seed)
    searcher = new_searcher(trainer.trained, StepOf(trainer, lambda: 0), noise)
    # After the last epoch everything learns that learns at all, and a measurement of many steps is not due.
    needs, epochs = searcher.needs, plan.recipe.epochs
    at = Moment(epochs, 0, needs.every, epochs, plan.recipe.learning_rate)
    for _ in range(2):
        began = time.perf_counter()
        report = searcher.step(batch, [batch] * (needs.batches if needs.wanted(at) else 0), at)
        float(report.loss)  # waits for the device
    seconds = time.perf_counter() - began
    with suppress(FloatingPointError):  # a learning rate that is too large shows in the training itself
        encode_state(trainer.state())
    steps = epochs * plan.recipe.check_steps(len(splits.train))
    return seconds * (1 + len(needs.epochs or ()) * needs.cost / (PLAIN_STEP * steps))


def place_in_user_code(error: Exception) -> str | None:
    """The file and line in which user code was when an error came up; None if only libraries and we took part."""
    found = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        if not frame.f_code.co_filename.startswith(NOT_THE_USERS):
            found = f"{frame.f_code.co_filename}:{line}"
    return found


def check_identity(plan: Plan, splits: DataSplits, but: tuple[str, ...] = ()) -> None:
    """In a folder that was begun before, compare what decides the result with what was written; name a difference.

    `but` are settings that may differ.
    """
    path = plan.folder / SETTINGS_FILE
    if not path.is_file():
        return
    was = _begun_by_as_many(path)
    changed = differences(was, plan.identity(splits), but)
    if plan.search is not None:
        changed = [called(one, Recipe.GROUP, plan.recipe_group).removeprefix("search.") for one in changed]
    if changed:
        raise InputError(
            f"{plan.folder} was begun with other settings ({shown_path(told(changed))}); "
            "give the same settings, or another run folder"
        )


def _begun_by_as_many(path: Path) -> dict[str, Any]:
    """The settings in a file. Refuses those of another number of processes."""
    was = read_json(path, "settings")
    if (count := was.get("processes", 1)) != processes():
        raise InputError(
            f"{shown_path(path.parent)} was begun by {count} process(es), and {processes()} would continue it: batch "
            "normalization would see other groups of images, and sums would be rounded otherwise; start as many as "
            "before (torchrun --nproc_per_node), or give another run folder"
        )
    return was


def check_folder(plan: Plan, splits: DataSplits, folder: Path) -> None:
    """Refuse a run folder with trainings that could not stand in one table with this one."""
    begun = sorted(folder.glob(f"*/seed*/{SETTINGS_FILE}"))
    ours = plan.identity(splits) if begun else {}
    for path in begun:
        if changed := differences(_begun_by_as_many(path), ours, (*COMPARED, *DRAWN)):
            raise InputError(
                f"{path.parent} was not trained alike ({shown_path(told(changed))}), and all trainings of a "
                "folder stand in one table; give another run folder, or the same settings"
            )


def differences(was: Any, is_now: Any, but: tuple[str, ...] = ()) -> list[str]:
    """In which settings one identity differs from another."""
    before, after = leaves(was), leaves(is_now)
    names = {name for name, _ in before ^ after} - set(but)
    return [f"{name} was {dict(before).get(name)}, is {dict(after).get(name)}" for name in sorted(names)]


def told(changed: list[str]) -> str:
    """The first of many differences in full, and how many more there are."""
    more = len(changed) - MOST_TOLD
    return ", ".join(changed[:MOST_TOLD]) + (f", and {more} more" if more > 0 else "")


def write_identity(plan: Plan, splits: DataSplits) -> None:
    """Write down what decides the result, once; the settings come last and say that the rest is there."""
    if not (plan.folder / SETTINGS_FILE).is_file():
        if plan.search is None and plan.policy is not None:
            plan.policy.save(plan.folder / POLICY_FILE)
        if isinstance(plan.network_options.get("genotype"), Genotype):
            plan.network_options["genotype"].save(plan.folder / GENOTYPE_FILE)
        write_json(plan.folder / "birth.json", birth_certificate())
        write_json(plan.folder / SETTINGS_FILE, plan.identity(splits))
