"""A search inside one training, made with every seed."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from jointsearch.data.load import Loaded
from jointsearch.data.sets import DataSplits
from jointsearch.data.standard import Standard
from jointsearch.loops.grid import SEED, plain_dataset
from jointsearch.loops.plan import NewStepSearcher, Plan, check_identity, try_plan
from jointsearch.loops.progress import Course
from jointsearch.loops.recipe import Recipe, SearchRecipe
from jointsearch.loops.search import search
from jointsearch.networks.network_settings import NetworkSettings
from jointsearch.protocols import About, Context, Found, SearcherSettings, StepSearcher, TrainStep
from jointsearch.runs.run_folder import GENOTYPE_FILE, POLICY_FILE, RESULT_FILE, SETTINGS_FILE
from jointsearch.searchers.cell_learner import ArchitectureSettings, CellLearner
from jointsearch.soft.network import SuperNet
from search_spaces.errors import InputError
from search_spaces.genotype import Genotype
from search_spaces.policy import Policy
from search_spaces.schedule import load_policy_or_schedule

FOLDER = f"search-seed{SEED}"
FOUND, FOUND_CELLS, FOUND_FACTS = (f"{FOLDER}/{name}" for name in (POLICY_FILE, GENOTYPE_FILE, RESULT_FILE))

# Steps of these follow the gradient; others divide it by its own size, or take its sign.
PROPORTIONAL = ("sgd", "nesterov", "momentum", "sgdw", "nesterovw", "momentumw")


class Prepared(Protocol):
    """A study whose data are read."""

    @property
    def study(self) -> Any:
        """Data set, seeds, recipe and select_epoch."""

    @property
    def folder(self) -> Path:
        """Of the run."""

    @property
    def loaded(self) -> Loaded:
        """The data set."""

    @property
    def options(self) -> dict[str, Any]:
        """Of every plan: device, save_seconds, show_progress, task, board."""


@dataclass(frozen=True)
class Stage:
    """A search inside one training, made with every seed."""

    outcome: str  # in words, as in "Policy and cells"
    settings: dict[str, Any]  # as plain data
    searcher: Callable[[Path | None, int], SearcherSettings]  # from the run folder, once there is one, and the seed
    recipe: SearchRecipe
    network: NetworkSettings
    network_options: dict[str, Any]
    architecture: ArchitectureSettings | None = None  # None: no cells are searched
    folder: str = ""  # below that of the run
    epochs_from: str = "search_recipe.epochs"  # the setting that holds its epochs
    share: tuple[int | None, ...] = ()  # of the training images so many at most, and of so many classes; None: all

    @property
    def about(self) -> About:
        """What there is to know of its searcher."""
        return about(self.searcher(None, 0))

    def recipe_in(self, study: Any) -> Recipe:
        """How it trains in a study."""
        return self.recipe.whole()

    def splits(self, prepared: Prepared, seed: int) -> DataSplits:
        """The images that it trains on, and others that validate."""
        return prepared.loaded.search_splits(seed, *self.share)

    def new_searcher(
        self, folder: Path | None, seed: int, standard: Standard, epochs: int | None = None
    ) -> NewStepSearcher:
        """Builds the searcher of a seed from a network, its training step and a generator."""
        settings, epochs = self.searcher(folder, seed), epochs or self.recipe.epochs

        def start(network: nn.Module, train_step: TrainStep, noise: torch.Generator) -> StepSearcher:
            cells = None
            if self.architecture is not None and isinstance(network, SuperNet):
                cells = CellLearner(self.architecture, network)
            return settings.start(Context(network, train_step, standard, noise, epochs, seed, cells))

        return start

    def start_policy(self, folder: Path | None, seed: int) -> Policy | None:
        """The policy that a search starts from, where it says so."""
        settings = self.searcher(folder, seed)
        space = getattr(settings, "policy_space", None)
        fixed = getattr(settings, "policy", None)
        return space.policy() if space is not None else fixed if isinstance(fixed, Policy) else None

    def plan(self, prepared: Prepared, seed: int, folder: Path | None) -> Plan:
        """The search of a seed; `folder` holds what searches before it found, and is None before there is any."""
        study = prepared.study
        return Plan(
            folder=prepared.folder / folder_of(self.folder, seed),
            policy=self.start_policy(folder, seed),
            network=self.network,
            network_options=self.network_options,
            recipe=self.recipe_in(study),
            standard=study.dataset.standard,
            seed=seed,
            dataset=plain_dataset(study.dataset),
            search=self.settings | {"select_epoch": study.select_epoch},
            **prepared.options,
        )

    def what(self, prepared: Prepared) -> str:
        """What is done with every seed, for a person."""
        epochs = self.recipe_in(prepared.study).epochs
        return f"searches ({self.outcome.lower()}) of {epochs} epochs, network {self.network}"

    def seconds(self, prepared: Prepared) -> float:
        """Refuse what would go wrong later; the expected seconds with every seed."""
        study = prepared.study
        seed = study.seeds[0]
        splits, plan = self.splits(prepared, seed), self.plan(prepared, seed, None)
        steps = plan.recipe.check_steps(len(splits.train))
        self.check_epochs(steps, plan.recipe.epochs)
        new_searcher = self.new_searcher(None, seed, study.dataset.standard, plan.recipe.epochs)
        step = try_plan(plan, splits, new_searcher)
        return step * steps * plan.recipe.epochs * len(study.seeds)

    def check_begun(self, prepared: Prepared, seed: int) -> None:
        """Refuse a folder in which the search of a seed was begun with other settings."""
        plan = self.plan(prepared, seed, None)
        if (plan.folder / SETTINGS_FILE).is_file():
            check_identity(plan, self.splits(prepared, seed))

    def run(self, prepared: Prepared, seed: int, course: Course) -> dict[str, Any]:
        """Search with a seed, or continue, or return the result that is there already."""
        plan = self.plan(prepared, seed, prepared.folder)
        plan = replace(plan, place=course.next((plan.folder / RESULT_FILE).is_file()))
        standard, epochs = prepared.study.dataset.standard, plan.recipe.epochs
        new_searcher = self.new_searcher(prepared.folder, seed, standard, epochs)
        return self.search(prepared, plan, new_searcher)

    def search(self, prepared: Prepared, plan: Plan, new_searcher: NewStepSearcher) -> dict[str, Any]:
        """Carry out a plan."""
        return search(plan, self.splits(prepared, plan.seed), new_searcher, prepared.study.select_epoch)

    def check_epochs(self, steps: int, epochs: int | None = None) -> None:
        """Refuse epochs of so many steps that are too few for this search."""
        check = getattr(self.searcher(None, 0), "check", lambda *_: None)
        check(epochs or self.recipe.epochs, steps, self.epochs_from)

    def check(self, select_epoch: str, seed: int) -> None:
        """Refuse what cannot be learned with this recipe, or on a network or from a policy that nobody knows."""
        self.network.check()
        self.start_policy(None, seed)
        searcher, epochs = self.searcher(None, 0), self.recipe.epochs
        learners = {"searcher": searcher, "architecture": self.architecture}
        begins = {name: getattr(learner, "from_epoch", 0) for name, learner in learners.items()}
        for name, begin in begins.items():
            if begin >= epochs:
                raise InputError(
                    f"{name}.from_epoch is {begin} of {epochs} epochs: nothing would be learned; lower it, or raise "
                    f"{self.epochs_from} or budget"
                )
        through_cells = self.architecture is not None and self.architecture.order == "second"
        if self.recipe.optimizer not in PROPORTIONAL and (self.about.rewards_are_steps or through_cells):
            raise InputError(
                f"search_recipe.optimizer={self.recipe.optimizer} does not step along the gradient, and the reward of "
                "an image is what such a step does to the validation loss; use search_recipe.optimizer=sgd or momentum "
                "(recipe may have any)"
            )
        if select_epoch == "best" and self.about.complete_at_end:
            raise InputError(
                "select_epoch=best could select an epoch before the last measurement of searcher=trials and table, and "
                "searcher=tanda has no score to select by; use select_epoch=last"
            )


def folder_of(folder: Path | str, seed: int) -> Path:
    """The folder of the search of a seed, below that of its stage."""
    return Path(folder, FOLDER.replace(SEED, str(seed)))


def found_in(folder: Path, seed: int) -> Found:
    """What a search of a seed left in a folder."""
    place = folder_of(folder, seed)
    policy, genotype = place / POLICY_FILE, place / GENOTYPE_FILE
    return Found(
        load_policy_or_schedule(policy) if policy.is_file() else None,
        Genotype.load(genotype) if genotype.is_file() else None,
    )


def about(searcher: object) -> About:
    """What there is to know of a searcher; one that says nothing searches a policy."""
    return getattr(searcher, "about", About())
