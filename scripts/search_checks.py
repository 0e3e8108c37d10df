"""What a search cannot do with the recipe and the epochs that it is given: refused before anything begins."""

import math

from jointsearch.loops.recipe import Recipe
from jointsearch.loops.search import KEEP
from jointsearch.searchers.faster_aa import FasterSearch
from jointsearch.searchers.make import AnySearch
from jointsearch.searchers.settings import DifferentiableSearch
from jointsearch.searchers.table_settings import FEWEST, TableSearch
from search_spaces.errors import InputError

# Their step is the gradient, its momentum and decay; others divide it by its own size, or take its sign.
PROPORTIONAL = ("sgd", "nesterov", "momentum", "sgdw", "nesterovw", "momentumw")


def check_begins(search: AnySearch, epochs: int, epochs_from: str) -> None:
    """Refuse a search that would end before it begins to learn; `epochs_from` is the setting that has its epochs."""
    searched = searched_of(search)
    groups = {"searcher": searched != "architecture", "architecture": searched != "policy"}
    for group in (name for name, learns in groups.items() if learns):
        begins = getattr(getattr(search, group), "from_epoch", None)
        if begins is not None and begins >= epochs:
            raise InputError(
                f"{group}.from_epoch is {begins} of {epochs} epochs: nothing would be learned; lower it, or raise "
                f"{epochs_from} or budget"
            )


def check_evidence(search: AnySearch, epochs: int, steps: int, epochs_from: str) -> None:
    """Refuse a table that an epoch of so many steps measures too seldom to say anything."""
    if not isinstance(search, TableSearch) or search.searcher.every is None:
        return
    measured = max(0, epochs - search.searcher.first_epoch(epochs)) * steps
    if math.ceil(measured / search.searcher.every) < FEWEST:
        raise InputError(
            f"searcher.every={search.searcher.every} makes fewer than {FEWEST} measurements in the {measured} steps "
            "from searcher.from_epoch on, and one is no evidence; lower it or searcher.from_epoch, or raise "
            f"{epochs_from} or budget"
        )


def check_keep(search: AnySearch, keep: str) -> None:
    """Refuse to keep what a table says before it is complete."""
    if keep != KEEP[0] and isinstance(search, TableSearch):
        raise InputError(
            f"keep={keep} could keep an epoch before the last measurement, and searcher=trials or table gets surer "
            f"with every one; use keep={KEEP[0]}"
        )


def check_recipe(search: AnySearch, recipe: Recipe) -> None:
    """Refuse a recipe under which rewards, or the network that is looked at, are not what they are taken for."""
    if rewards_of_one_step(search) and recipe.optimizer not in PROPORTIONAL:
        or_trials = ", or searcher=trials, which takes real steps" if searched_of(search) == "policy" else ""
        raise InputError(
            f"search_recipe.optimizer={recipe.optimizer} does not step along the gradient, and the reward of an image "
            "is what such a step does to the validation loss; use search_recipe.optimizer=sgd or momentum (recipe may "
            f"have any){or_trials}"
        )
    if isinstance(search, FasterSearch) and recipe.ema_decay:
        raise InputError(
            f"search_recipe.ema_decay={recipe.ema_decay:g} averages what search_recipe trains, and searcher=faster_aa "
            "trains its critic by itself; set it to 0 in search_recipe (recipe may have it)"
        )


def searched_of(search: AnySearch) -> str:
    """What is searched: policy, architecture or both (joint)."""
    return str(getattr(search, "search", "policy"))


def rewards_of_one_step(search: AnySearch) -> bool:
    """Whether images, or cells, are judged by what one training step on them does."""
    if isinstance(search, TableSearch):
        return not search.searcher.trial_steps
    if not isinstance(search, DifferentiableSearch):
        return False
    return search.search != "architecture" or search.architecture.order == "second"
