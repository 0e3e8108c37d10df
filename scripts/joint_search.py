"""Search policy and cells, and train with what is found beside controls: python scripts/joint_search.py dataset=NAME"""

import sys
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the scripts find each other

import torch

from jointsearch.data.load import DataSettings
from jointsearch.device import choose_device
from jointsearch.loops.recipe import Recipe
from jointsearch.loops.search import KEEP
from jointsearch.loops.searches import FOUND, FOUND_CELLS, SearchGrid, check_searches, run_searches
from jointsearch.loops.trials import CELLS, SEED, CellsSettings, Grid, check_grid, folder_name, run_grid
from jointsearch.networks.supernet import SUPERNET
from jointsearch.report.comparison import write_summary
from jointsearch.report.page import write_report
from jointsearch.report.searches import describe_searches
from jointsearch.run_folder import write_json
from jointsearch.searchers.make import AnySearch, new_searcher, search_settings
from jointsearch.searchers.settings import ArchitectureSettings, DifferentiableSearch
from jointsearch.settings import as_plain, bounded, build, changed, check_fields, choice, refuse_unread
from scripts.door import run
from scripts.search_checks import check_begins, check_evidence, check_keep, check_recipe, searched_of
from search_spaces.cells.space import CELL_SPACES
from search_spaces.errors import InputError
from search_spaces.policy import Policy

GROUPS = ("searcher", "policy_space", "estimator", "architecture")
SEARCHED = ("joint", "architecture", "policy", "separate")
POLICY_FOLDER = "policy"  # of the first search of search=separate
# Of its second: whatever found the policy, it stays as found, and the file of each seed is what it starts from.
FROZEN_POLICY = {"searcher": {"name": "differentiable"}, "policy_space": {"start": "none"}}


@dataclass(frozen=True)
class SupernetSettings:
    """The network whose cells are searched. The defaults are those of DARTS."""

    space: str = choice("darts", *CELL_SPACES)
    channels: int = bounded(16, 1, 4096)
    layers: int = bounded(8, 3, 1000)
    channel_share: int | None = bounded(None, 1, 4096)
    auxiliary_skip: bool = False
    single_path: bool = False

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Settings:
    """configs/joint_search.yaml, checked."""

    controls: tuple[str, ...]
    seeds: tuple[int, ...]
    device: str
    dataset: DataSettings
    search_recipe: Recipe
    recipe: Recipe
    run: str | None
    network: str | None = None
    supernet: SupernetSettings = field(default_factory=SupernetSettings)
    cells: CellsSettings = field(default_factory=CellsSettings)
    search: str = choice("joint", *SEARCHED)
    keep: str = choice(KEEP[0], *KEEP)
    policy_epochs: int | None = bounded(None, 1, 100_000)
    budget: float = bounded(1.0, 1e-4, 1000.0)
    retrain: bool = True
    wandb: str = choice("disabled", "disabled", "offline", "online")
    threads: int | None = bounded(None, 1, 1024)
    save_seconds: float = bounded(60.0, 0.0, 86_400.0)

    def __post_init__(self) -> None:
        check_fields(self)
        needs_network = self.search in ("policy", "separate")
        if needs_network != (self.network is not None):
            own = "has its own, the supernet; leave network out, or choose search=policy or separate"
            wanted = "needs a network, as in network=wide_resnet40_2" if needs_network else own
            raise InputError(f"network is {self.network or 'null'}, and search={self.search} {wanted}")
        if self.network == SUPERNET:
            raise InputError(f"network={SUPERNET} is that of search=joint, which names it itself; leave network out")
        if self.network == CELLS:
            raise InputError(
                f"network={CELLS} is built of a genotype, and a policy is searched on a network as it is; choose "
                "another network"
            )
        if self.policy_epochs is not None and self.search != "separate":
            raise InputError(
                f"policy_epochs={self.policy_epochs} is of the first of two searches, and search={self.search} makes "
                "one; set search_recipe.epochs"
            )
        if self.search_recipe.evaluate_every != 1:
            raise InputError(
                f"search_recipe.evaluate_every is {self.search_recipe.evaluate_every}, and a search looks at its "
                "validation images after every epoch; leave it at 1"
            )
        if self.keep != KEEP[0] and self.supernet.single_path:
            raise InputError(
                f"keep={self.keep} goes by the validation accuracy of an epoch, which with supernet.single_path=true "
                f"is that of one path drawn at random; use keep={KEEP[0]}"
            )
        if self.run is not None and SEED in self.run:
            raise InputError(f"run={self.run} holds {SEED}, which stands for a seed in paths; rename the folder")

    @property
    def finds_cells(self) -> bool:
        """Whether a genotype is among what is found."""
        return self.search != "policy"


def main(config: dict[str, Any]) -> None:
    """Search for every seed, train with what was found and with the controls, and print them side by side."""
    groups = {group: config.pop(group, None) for group in GROUPS}
    settings = with_budget(build(Settings, config))
    for group in (groups["searcher"], groups["architecture"]):
        if isinstance(group, dict) and isinstance(group.get("from_epoch"), int):
            group["from_epoch"] = round(group["from_epoch"] * settings.budget)
    stages = searches_of(settings, groups)
    check_read(settings, groups, next(iter(stages.values())))
    if settings.threads:
        torch.set_num_threads(settings.threads)
    options: dict[str, Any] = {
        "device": choose_device(settings.device),
        "wandb_mode": settings.wandb,
        "save_seconds": settings.save_seconds,
        "show_progress": True,
    }
    folder = Path(settings.run or f"runs/search/{datetime.now():%Y-%m-%d/%H-%M-%S}")
    if settings.retrain:
        check_controls(settings.controls)
        check_grid(trainings(settings, settings.controls or ("none",)), folder)
    for search in stages.values():
        recipe = grid_of(settings, search).recipe
        of_policy = settings.policy_epochs and searched_of(search) == "policy"
        epochs_from = "policy_epochs" if of_policy else "search_recipe.epochs"
        check_begins(search, recipe.epochs, epochs_from)
        check_keep(search, settings.keep)
        check_recipe(search, recipe)
        # The last one's mistakes before the first begins.
        check_evidence(search, recipe.epochs, check_searches(grid_of(settings, search), folder, **options), epochs_from)
    announce(settings, stages, folder)
    for name, search in stages.items():
        results = run_searches(grid_of(settings, search, folder), folder / name, **options)
        write_json(folder / name / "searches.json", results)
        print(f"\n{describe_searches(results)}", flush=True)
    if not settings.retrain:
        print(f"On one page, with pictures: {write_report(folder, settings.dataset)}")
        for name in (FOUND, FOUND_CELLS) if settings.finds_cells else (FOUND,):
            print(f"Found: {', '.join(f'{folder}/{name.replace(SEED, str(seed))}' for seed in settings.seeds)}")
        print(f"To train with it: python scripts/retrain.py run={folder}, with the settings of data and training above")
        return
    run_grid(trainings(settings, (str(folder / FOUND), *settings.controls), folder), folder, **options)
    print(f"\n{write_summary(folder)}\nWritten to {folder}/summary.md; each search and training has its own folder.")
    print(f"On one page, with pictures: {write_report(folder, settings.dataset)}")


def announce(settings: Settings, stages: dict[str, AnySearch], folder: Path) -> None:
    """What begins and where, and what its method is known to do wrong."""
    print(f"Searching with the seeds {', '.join(map(str, settings.seeds))} in {folder}", flush=True)
    print(f"To go on after an interruption: the same command with run={folder}", flush=True)
    for warning in filter(None, (getattr(search, "warning", None) for search in stages.values())):
        print(f"Warning: {warning}", flush=True)


def with_budget(settings: Settings) -> Settings:
    """The settings with the epochs of search and training scaled by the budget, at least one."""
    budget = settings.budget

    def scaled(recipe: Recipe) -> Recipe:
        epochs = max(1, round(recipe.epochs * budget))
        return replace(recipe, epochs=epochs, warmup_epochs=min(round(recipe.warmup_epochs * budget), epochs - 1))

    epochs = settings.policy_epochs and max(1, round(settings.policy_epochs * budget))
    return replace(
        settings,
        policy_epochs=epochs,
        search_recipe=scaled(settings.search_recipe),
        recipe=scaled(settings.recipe),
    )


def check_read(settings: Settings, groups: dict[str, Any], search: AnySearch) -> None:
    """Refuse settings of cells where none are searched, and of a policy's search where it stays as it is."""
    if settings.search == "policy":
        architecture = build(ArchitectureSettings, groups["architecture"] or {}, "architecture")
        unread = changed(architecture, "architecture") + changed(settings.supernet, "supernet")
        unread += changed(settings.cells, "cells", ("channels", "layers", "auxiliary", "random_space"))
        reason = "searches no cells"
    elif isinstance(search, DifferentiableSearch) and settings.search == "architecture":
        read = {"searcher.validation_batches", "searcher.first_validation_batch_only"}
        if search.architecture.order == "second":
            read.add("searcher.draws_per_validation")
        if search.searcher.through_step == "none":  # which is how it is
            read.add("searcher.through_step")
        unread = [name for name in changed(search.searcher, "searcher") if name not in read]
        unread += changed(search.estimator, "estimator")
        unread += changed(search.policy_space, "policy_space", ("keep", "learn_probability", "steepness"))
        reason = "leaves the policy as it is"
    else:
        return
    refuse_unread(unread, f"search={settings.search} {reason}", "leave it out, or choose search=joint")


def searches_of(settings: Settings, groups: dict[str, Any]) -> dict[str, AnySearch]:
    """The searches to be done one after the other, by the folder of each below that of the run."""
    if settings.search != "separate":
        return {"": search_settings({**groups, "search": settings.search})}
    return {
        POLICY_FOLDER: search_settings({**groups, "search": "policy"}),
        "": search_settings({**FROZEN_POLICY, "architecture": groups["architecture"], "search": "architecture"}),
    }


def grid_of(settings: Settings, search: AnySearch, folder: Path | None = None) -> SearchGrid:
    """One search for every seed; cells of a separate search learn under the policy that was found in `folder` first."""
    searched = searched_of(search)
    standard, recipe = settings.dataset.standard, settings.search_recipe
    if settings.search == "separate" and searched == "policy" and settings.policy_epochs:
        recipe = replace(recipe, epochs=settings.policy_epochs)

    def start(seed: int) -> Policy:
        if folder is not None and settings.search == "separate" and searched == "architecture":
            return Policy.load(folder / POLICY_FOLDER / FOUND.replace(SEED, str(seed)))
        return search.policy_space.policy()

    return SearchGrid(
        start=start,
        settings=as_plain(search),
        new_searcher=lambda seed: new_searcher(search, standard, seed, recipe.epochs, start(seed)),
        dataset=settings.dataset,
        seeds=settings.seeds,
        network=str(settings.network) if searched == "policy" else SUPERNET,
        network_options={} if searched == "policy" else as_plain(settings.supernet),
        recipe=recipe,
        keep=settings.keep,
    )


def check_controls(controls: tuple[str, ...]) -> None:
    """Refuse a control whose trainings would lie where those of the found policy do."""
    for control in controls:
        if folder_name(control) == folder_name(FOUND):
            raise InputError(f"the control {control} would share a folder with the policy found; rename the file")


def trainings(settings: Settings, policies: tuple[str, ...], folder: Path | None = None) -> Grid:
    """What is trained after the search, with the cells found in `folder`; before there are any, with random ones."""
    grid = partial(Grid, policies, settings.dataset, settings.seeds, recipe=settings.recipe, cells=settings.cells)
    if not settings.finds_cells:
        return grid(network=str(settings.network))
    return grid(network=CELLS, genotype="random" if folder is None else str(folder / FOUND_CELLS))


if __name__ == "__main__":
    sys.exit(run(main, "joint_search"))
