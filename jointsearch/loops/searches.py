"""One search for every seed, each in its own folder: <run folder>/search-seed<seed>, the policy found in found.json."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jointsearch.data.load import DataSettings, load_search_splits
from jointsearch.data.sets import DataSplits
from jointsearch.loops.recipe import Recipe
from jointsearch.loops.search import KEEP, NewSearcher, check_search, search
from jointsearch.loops.trial import Trial, check_identity, check_trial
from jointsearch.loops.trials import SEED, check_seeds, relocatable
from jointsearch.settings import as_plain, called
from search_spaces.errors import InputError
from search_spaces.policy import Policy

FOLDER = f"search-seed{SEED}"
FOUND = f"{FOLDER}/found.json"
FOUND_CELLS = f"{FOLDER}/genotype.json"


@dataclass(frozen=True)
class SearchGrid:
    """What is searched: one search for every seed, all else equal."""

    start: Callable[[int], Policy]  # seed in
    settings: dict[str, Any]  # of the search, as plain data
    new_searcher: Callable[[int], NewSearcher]  # seed in
    dataset: DataSettings
    seeds: tuple[int, ...] = (0, 1, 2)
    network: str = "wide_resnet16_1"
    recipe: Recipe = field(default_factory=Recipe)
    network_options: dict[str, Any] = field(default_factory=dict)
    keep: str = KEEP[0]  # the epoch whose policy and genotype are the outcome: last or best

    def __post_init__(self) -> None:
        check_seeds(self.seeds)
        if self.recipe.label_smoothing:
            raise InputError(
                f"search_recipe.label_smoothing is {self.recipe.label_smoothing:g}; rewards are measured on plain "
                "labels, and would be those of another loss; set it to 0 in search_recipe (recipe may have it)"
            )
        if self.recipe.precision != "float32":
            raise InputError(
                f"search_recipe.precision is {self.recipe.precision}; rewards are differences of nearly equal losses, "
                "which bf16 cannot tell apart; use search_recipe.precision=float32"
            )
        if self.recipe.auxiliary_weight:
            raise InputError(
                f"search_recipe.auxiliary_weight is {self.recipe.auxiliary_weight:g}, and a searched network has no "
                "second classifier; set it to 0 in search_recipe (recipe may have it)"
            )
        if self.recipe.mixup or self.recipe.cutmix:
            raise InputError(
                "search_recipe.mixup and cutmix blend images that drew different policies, so that no reward belongs "
                "to one draw; set both to 0 in search_recipe (recipe may have them)"
            )


def check_searches(grid: SearchGrid, folder: Path | str, **options: Any) -> int:
    """Raise InputError for what would go wrong later, before anything is written: the first seed's first step.

    Returns the steps of an epoch.
    """
    trial, splits = _trial(grid, grid.seeds[0], Path(folder), options)
    try:
        check_trial(trial, splits)
        check_search(trial, splits, grid.new_searcher(trial.seed))
    except InputError as error:
        raise InputError(called(str(error), Recipe.GROUP, "search_recipe")) from None
    return grid.recipe.check_steps(len(splits.train))


def run_searches(
    grid: SearchGrid, folder: Path | str, checked: Callable[[], None] = lambda: None, **options: Any
) -> list[dict[str, Any]]:
    """Search with every seed: what is finished is read, what was interrupted goes on.

    `checked` is called when nothing was found wrong, before anything is written. Options are those of Trial.
    """
    check_searches(grid, folder, **options)
    for seed in grid.seeds:
        if (Path(folder) / FOLDER.replace(SEED, str(seed)) / "trial.json").is_file():
            check_identity(*_trial(grid, seed, Path(folder), options))
    checked()
    results = []
    for seed in dict.fromkeys(grid.seeds):
        trial, splits = _trial(grid, seed, Path(folder), options)
        results.append({"seed": seed, **search(trial, splits, grid.new_searcher(seed), grid.keep)})
    return results


def _trial(grid: SearchGrid, seed: int, folder: Path, options: dict[str, Any]) -> tuple[Trial, DataSplits]:
    """What a seed searches, and on what."""
    trial = Trial(
        folder=folder / FOLDER.replace(SEED, str(seed)),
        policy=grid.start(seed),
        network=grid.network,
        recipe=grid.recipe,
        standard=grid.dataset.standard,
        seed=seed,
        dataset=relocatable(as_plain(grid.dataset)),
        search=grid.settings | {"keep": grid.keep},
        network_options=grid.network_options,
        **options,
    )
    return trial, load_search_splits(grid.dataset, seed)
