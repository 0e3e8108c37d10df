"""Searches whose own training is a result: by the recipe of the study, on all training images, tested at the end."""

from dataclasses import dataclass, replace
from typing import Any

from jointsearch.augmenters.copies import Copies
from jointsearch.data.sets import DataSplits
from jointsearch.loops.plan import NewStepSearcher, Plan
from jointsearch.loops.recipe import Recipe
from jointsearch.loops.search import SELECT, search
from jointsearch.runs.run_folder import OWN_NETWORK
from jointsearch.stages import Prepared, Stage
from search_spaces.errors import InputError
from search_spaces.policy import Policy
from search_spaces.schedule import PolicySchedule


@dataclass(frozen=True)
class OnlineStage(Stage):
    """A search that trains as everything is trained afterwards. Its network is a row of the comparison."""

    @property
    def copies(self) -> Copies:
        """On how many copies of every image its steps train."""
        settings: Any = self.searcher(None, 0)
        return Copies(settings.copies, settings.copies, safe=settings.safe, short=settings.short)

    def recipe_in(self, study: Any) -> Recipe:
        """That of the study."""
        recipe: Recipe = study.recipe.for_copies(self.copies)
        return recipe

    def splits(self, prepared: Prepared, seed: int) -> DataSplits:
        """Those of the trainings that follow."""
        return prepared.loaded.splits(seed)

    def check(self, select_epoch: str, seed: int) -> None:
        """Refuse a choice among epochs: its schedule has a policy for each."""
        super().check(select_epoch, seed)
        if select_epoch != SELECT[0]:
            raise InputError(
                f"select_epoch={select_epoch} chooses the finding of one epoch, and this search finds a policy for "
                f"each of them; use select_epoch={SELECT[0]}"
            )

    def search(self, prepared: Prepared, plan: Plan, new_searcher: NewStepSearcher) -> dict[str, Any]:
        """Carry out a plan, and leave its network beside the trainings that follow."""

        def row(policy: Policy | PolicySchedule | None) -> Plan:
            folder = prepared.folder / OWN_NETWORK / f"seed{plan.seed}"
            untuned = prepared.study.recipe
            return replace(plan, folder=folder, policy=policy, copies=self.copies, search=None, untuned=untuned)

        return search(plan, self.splits(prepared, plan.seed), new_searcher, prepared.study.select_epoch, row)
