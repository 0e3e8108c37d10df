"""A search by many whole trainings, made with every seed."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from jointsearch.jobs import PopulationSettings
from jointsearch.loops.grid import RANDOM, CellsSettings, plain_dataset
from jointsearch.loops.plan import Plan, check_identity, try_plan
from jointsearch.loops.population import Population
from jointsearch.loops.progress import Course
from jointsearch.loops.recipe import check_scaled
from jointsearch.loops.retrain import plain_steps
from jointsearch.networks.network_settings import NetworkSettings
from jointsearch.protocols import About
from jointsearch.runs.run_folder import SETTINGS_FILE
from jointsearch.stages import Prepared, about, folder_of, found_in
from search_spaces.cells.random import random_genotype
from search_spaces.cells.space import CELL_SPACES
from search_spaces.controls import named_policy
from search_spaces.errors import InputError
from search_spaces.genotype import Genotype


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
