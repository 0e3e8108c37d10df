"""A search whose training is a result: it follows the recipe of the study on all training images, and is tested."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from jointsearch.augmenters.copies import Copies
from jointsearch.data.sets import DataSplits
from jointsearch.loops.plan import NewStepSearcher, Plan, check_identity
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
        copies: Copies = settings.drawn
        return copies

    def row(self, prepared: Prepared, seed: int, policy: Policy | PolicySchedule | None = None) -> Plan:
        """The training that its network counts as, under the policy found."""
        study, plan = prepared.study, self.plan(prepared, seed, None)
        folder = prepared.folder / OWN_NETWORK / f"seed{seed}"
        return replace(plan, folder=folder, policy=policy, copies=self.copies, search=None, untuned=study.recipe)

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

    def check_begun(self, prepared: Prepared, seed: int) -> None:
        """Refuse a folder in which the search of a seed was begun with other settings, or left another network."""
        super().check_begun(prepared, seed)
        check_identity(self.row(prepared, seed), self.splits(prepared, seed), ("policy",))

    def search(self, prepared: Prepared, plan: Plan, new_searcher: NewStepSearcher) -> dict[str, Any]:
        """Carry out a plan, and leave its network beside the trainings that follow."""
        row = partial(self.row, prepared, plan.seed)
        return search(plan, self.splits(prepared, plan.seed), new_searcher, prepared.study.select_epoch, row)
