"""A study in a share of its epochs."""

from dataclasses import fields, replace
from typing import Any

from jointsearch.loops.recipe import SearchRecipe, times
from jointsearch.search_kinds import trains_by_recipe
from jointsearch.study import Study
from search_spaces.errors import InputError


def with_budget(study: Study, budget: Any) -> Study:
    """The study with the epochs of search and training multiplied by the budget."""
    if isinstance(budget, bool) or not isinstance(budget, int | float) or not 1e-4 <= budget <= 1000:
        raise InputError(f"budget is {budget}; wanted a number from 0.0001 to 1000")
    try:
        return study if budget == 1 else scaled(study, budget)
    except InputError as error:
        raise InputError(f"budget={budget:g} does not fit these epochs ({error}); give another budget") from None


def scaled(study: Study, budget: float) -> Study:
    """The study with the epochs of search and training multiplied by the budget.

    At least one is left, and of a search as many as it needs to find anything.
    """
    return replace(study, recipe=study.recipe.shorter(budget), search=_shorter(study.search, budget))


def _shorter(kind: Any, budget: float) -> Any:
    """A kind of search with its epochs multiplied by the budget, and those of the searches that it judges."""
    # A search that measures now and then has to do so twice; one that had fewer epochs anyway is told so as it is.
    needed = getattr(getattr(kind, "searcher", None), "fewest_epochs", 1)
    changes: dict[str, Any] = {}
    for item in fields(kind):
        value = getattr(kind, item.name)
        if isinstance(value, SearchRecipe) and trains_by_recipe(getattr(kind, "searcher", None)) and not kind.judged:
            continue  # nothing reads it: such searches have the recipe of the study
        if isinstance(value, SearchRecipe):
            changes[item.name] = replace(value, epochs=times(value.epochs, budget, min(needed, value.epochs)))
        elif item.name == "policy_epochs" and value:
            changes[item.name] = times(value, budget, min(needed, value))
        elif getattr(value, "from_epoch", 0):
            last = kind.search_recipe.epochs * budget - 1
            changes[item.name] = replace(value, from_epoch=min(round(value.from_epoch * budget), max(0, int(last))))
        elif hasattr(value, "scaled"):
            changes[item.name] = value.scaled(budget)
        elif item.name == "proposals" and kind.judged:
            changes[item.name] = tuple(replace(one, search=_shorter(one.search, budget)) for one in kind.judged)
    return replace(kind, **changes)
