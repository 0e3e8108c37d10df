"""The searches that a study makes with every seed: inside one training, or by many whole trainings."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from jointsearch.data.load import Loaded
from jointsearch.data.standard import Standard
from jointsearch.jobs import PopulationSettings
from jointsearch.loops.grid import RANDOM, SEED, CellsSettings, plain_dataset
from jointsearch.loops.plan import NewStepSearcher, Plan, check_identity, try_plan
from jointsearch.loops.population import Population
from jointsearch.loops.progress import Course
from jointsearch.loops.recipe import SearchRecipe, check_scaled
from jointsearch.loops.retrain import plain_steps
from jointsearch.loops.search import search
from jointsearch.networks.network_settings import NetworkSettings
from jointsearch.protocols import About, Context, Found, SearcherSettings, StepSearcher, TrainStep
from jointsearch.runs.run_folder import GENOTYPE_FILE, POLICY_FILE, RESULT_FILE, SETTINGS_FILE
from jointsearch.searchers.cell_learner import ArchitectureSettings, CellLearner
from jointsearch.soft.network import SuperNet
from search_spaces.cells.random import random_genotype
from search_spaces.cells.space import CELL_SPACES
from search_spaces.controls import named_policy
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
    images: int | None = None  # of the training images, so many at most; None: all

    @property
    def about(self) -> About:
        """What there is to know of its searcher."""
        return about(self.searcher(None, 0))

    def new_searcher(self, folder: Path | None, seed: int, standard: Standard) -> NewStepSearcher:
        """Builds the searcher of a seed from a network, its training step and a generator."""
        settings = self.searcher(folder, seed)

        def start(network: nn.Module, train_step: TrainStep, noise: torch.Generator) -> StepSearcher:
            cells = None
            if self.architecture is not None and isinstance(network, SuperNet):
                cells = CellLearner(self.architecture, network)
            return settings.start(Context(network, train_step, standard, noise, self.recipe.epochs, seed, cells))

        return start

    def start_policy(self, folder: Path | None, seed: int) -> Policy | None:
        """The policy that a search starts from, where it says so."""
        settings = self.searcher(folder, seed)
        space = getattr(settings, "policy_space", None)
        fixed = getattr(settings, "policy", None)
        return space.policy() if space is not None else fixed if isinstance(fixed, Policy) else None

    def plan(self, prepared: Prepared, seed: int, folder: Path | None) -> Plan:
        """The search of a seed; `folder` holds what searches before it found, and is None before there is any."""
        dataset = prepared.study.dataset
        return Plan(
            folder=prepared.folder / folder_of(self.folder, seed),
            policy=self.start_policy(folder, seed),
            network=self.network,
            network_options=self.network_options,
            recipe=self.recipe.whole(),
            standard=dataset.standard,
            seed=seed,
            dataset=plain_dataset(dataset),
            search=self.settings | {"select_epoch": prepared.study.select_epoch},
            **prepared.options,
        )

    def what(self, prepared: Prepared) -> str:
        """What is done with every seed, for a person."""
        return f"searches ({self.outcome.lower()}) of {self.recipe.epochs} epochs, network {self.network}"

    def seconds(self, prepared: Prepared) -> float:
        """Refuse what would go wrong later; the expected seconds with every seed."""
        study = prepared.study
        seed = study.seeds[0]
        splits = prepared.loaded.search_splits(seed, self.images)
        steps = self.recipe.whole().check_steps(len(splits.train))
        self.check_epochs(steps)
        plan = self.plan(prepared, seed, None)
        step = try_plan(plan, splits, self.new_searcher(None, seed, study.dataset.standard))
        return step * steps * self.recipe.epochs * len(study.seeds)

    def check_begun(self, prepared: Prepared, seed: int) -> None:
        """Refuse a folder in which the search of a seed was begun with other settings."""
        plan = self.plan(prepared, seed, None)
        if (plan.folder / SETTINGS_FILE).is_file():
            check_identity(plan, prepared.loaded.search_splits(seed, self.images))

    def run(self, prepared: Prepared, seed: int, course: Course) -> dict[str, Any]:
        """Search with a seed, or continue, or return the result that is there already."""
        plan = self.plan(prepared, seed, prepared.folder)
        plan = replace(plan, place=course.next((plan.folder / RESULT_FILE).is_file()))
        splits = prepared.loaded.search_splits(seed, self.images)
        new_searcher = self.new_searcher(prepared.folder, seed, prepared.study.dataset.standard)
        return search(plan, splits, new_searcher, prepared.study.select_epoch)

    def check_epochs(self, steps: int) -> None:
        """Refuse epochs of so many steps that are too few for this search."""
        check = getattr(self.searcher(None, 0), "check", lambda *_: None)
        check(self.recipe.epochs, steps, self.epochs_from)

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
                "select_epoch=best could select an epoch before the last measurement, and the estimates of "
                "searcher=trials and table improve with every one; use select_epoch=last"
            )


@dataclass(frozen=True)
class WholeTrainings:
    """A search by whole trainings, made with every seed. Its jobs are trained as everything is trained afterwards."""

    settings: dict[str, Any]  # as plain data
    searcher: PopulationSettings
    network: NetworkSettings
    proposals: Mapping[str, str] = field(default_factory=dict)  # the folders of searches that were made before, by name
    outcome: str = "Policy"
    folder: str = ""  # below that of the run
    sizes: CellsSettings | None = None  # of the network, where cells take part
    space: str = "darts"  # of random cells

    @property
    def about(self) -> About:
        """What there is to know of its searcher."""
        return about(self.searcher)

    def check(self, select_epoch: str, seed: int) -> None:
        """Refuse a network that nobody knows, and a choice among epochs that there are not."""
        self.network.check()
        if select_epoch == "best" and not self.proposals:
            raise InputError(
                "select_epoch=best chooses among the epochs of a search, and whole trainings are judged at their end; "
                "use select_epoch=last"
            )

    def plan(self, prepared: Prepared, seed: int) -> Plan:
        """The search of a seed."""
        study = prepared.study
        return Plan(
            folder=prepared.folder / folder_of(self.folder, seed),
            network=self.network,
            network_options={} if self.sizes is None else self.sizes.options(study.recipe),
            recipe=study.recipe,
            standard=study.dataset.standard,
            seed=seed,
            dataset=plain_dataset(study.dataset),
            search=self.settings | self._found(prepared, seed),
            **prepared.options,
        )

    def _found(self, prepared: Prepared, seed: int) -> dict[str, Any]:
        """What other searches proposed, in short: it decides the result, too."""
        found = {name: found_in(prepared.folder / folder, seed) for name, folder in self.proposals.items()}
        texts = {
            name: "".join(part.to_json() for part in (one.policy, one.genotype) if part is not None)
            for name, one in found.items()
        }
        return {"found": {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in texts.items()}}

    def what(self, prepared: Prepared) -> str:
        """What is done with every seed, for a person."""
        epochs = prepared.study.recipe.epochs
        _, trainings = self.searcher.cost(epochs)
        return (
            f"searches ({self.outcome.lower()}) that cost up to {trainings:,.3g} whole trainings of {epochs} epochs, "
            f"network {self.network}"
        )

    def seconds(self, prepared: Prepared) -> float:
        """Refuse what would go wrong later; the expected seconds with every seed."""
        study = prepared.study
        splits = prepared.loaded.fold_splits(study.seeds[0], 0, self.searcher.folds)
        plan = replace(self.plan(prepared, study.seeds[0]), policy=named_policy("trivialaugment"), search=None)
        if cells := self.cells(study.seeds[0]):
            plan = replace(plan, network_options=plan.network_options | {"genotype": cells[RANDOM]})
        for factors in getattr(self.searcher, "scalings", tuple)():
            check_scaled(study.recipe, factors)
        steps = study.recipe.check_steps(len(splits.train)) * study.recipe.epochs
        _, trainings = self.searcher.cost(study.recipe.epochs)
        return try_plan(plan, splits, plain_steps(plan)) * steps * trainings * len(study.seeds)

    def check_begun(self, prepared: Prepared, seed: int) -> None:
        """Refuse a folder in which the search of a seed was begun with other settings."""
        plan = self.plan(prepared, seed)
        if (plan.folder / SETTINGS_FILE).is_file():
            check_identity(plan, prepared.loaded.fold_splits(seed, 0, self.searcher.folds))

    def run(self, prepared: Prepared, seed: int, course: Course) -> dict[str, Any]:
        """Search with a seed, or continue, or return the result that is there already."""
        course.next(finished=True)
        folds = self.searcher.folds
        population = Population(
            plan=self.plan(prepared, seed),
            jobs=self.searcher.cost(prepared.study.recipe.epochs)[0],
            new_searcher=self.searcher.population,
            proposals={name: found_in(prepared.folder / folder, seed) for name, folder in self.proposals.items()},
            splits=lambda fold: prepared.loaded.fold_splits(seed, fold, folds),
            storage=getattr(self.searcher, "storage", None),
            cells=self.cells(seed),
            test=lambda: prepared.loaded.splits(seed).test,
        )
        return population.run()

    def cells(self, seed: int) -> dict[str, Genotype]:
        """Random cells, which those that were found have to beat; the first are those of the controls."""
        if self.sizes is None:
            return {}
        space = CELL_SPACES[self.space]
        return {RANDOM: random_genotype(space, seed), f"{RANDOM}2": random_genotype(space, seed + 2**31)}


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
