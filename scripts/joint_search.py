"""Search a policy and train with it beside controls: python scripts/joint_search.py search=policy dataset=NAME"""

import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the scripts find each other

import torch

from jointsearch.data.load import DataSettings
from jointsearch.device import choose_device
from jointsearch.loops.recipe import Recipe
from jointsearch.loops.searches import FOUND, SearchGrid, run_searches
from jointsearch.loops.trials import Grid, check_grid, folder_name, run_grid
from jointsearch.report.comparison import compare
from jointsearch.report.searches import describe_searches
from jointsearch.run_folder import replace_file, write_json
from jointsearch.searchers.make import new_searcher, search_settings
from jointsearch.settings import as_plain, bounded, build, choice
from scripts.door import run
from search_spaces.errors import InputError

GROUPS = ("searcher", "policy_space", "estimator")


@dataclass(frozen=True)
class Settings:
    """configs/joint_search.yaml, checked."""

    network: str
    controls: tuple[str, ...]
    seeds: tuple[int, ...]
    device: str
    dataset: DataSettings
    search_recipe: Recipe
    recipe: Recipe
    run: str | None
    search: str = choice("policy", "policy")
    retrain: bool = True
    wandb: str = choice("disabled", "disabled", "offline", "online")
    threads: int | None = bounded(None, 1, 1024)
    save_seconds: float = bounded(60.0, 0.0, 86_400.0)


def main(config: dict[str, Any]) -> None:
    """Search for every seed, train with what was found and with the controls, and print them side by side."""
    search = search_settings({group: config.pop(group, None) for group in GROUPS})
    settings = build(Settings, config)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    options: dict[str, Any] = {
        "device": choose_device(settings.device),
        "wandb_mode": settings.wandb,
        "save_seconds": settings.save_seconds,
        "show_progress": True,
    }
    searches = SearchGrid(
        start=search.policy_space.policy(),
        settings=as_plain(search),
        new_searcher=lambda seed: new_searcher(search, settings.dataset.standard, seed),
        dataset=settings.dataset,
        seeds=settings.seeds,
        network=settings.network,
        recipe=settings.search_recipe,
    )
    folder = Path(settings.run or f"runs/search/{datetime.now():%Y-%m-%d/%H-%M-%S}")

    if settings.retrain:
        check_controls(settings.controls)
        check_grid(trainings(settings, settings.controls or ("none",)), folder)  # mistakes are told before the search

    def announce() -> None:
        print(f"Searching with the seeds {', '.join(map(str, settings.seeds))} in {folder}", flush=True)
        print(f"To go on after an interruption: the same command with run={folder}", flush=True)

    results = run_searches(searches, folder, announce, **options)
    write_json(folder / "searches.json", results)
    print(f"\n{describe_searches(results)}", flush=True)
    if not settings.retrain:
        print(f"The policies found: {folder}/{FOUND}")
        return
    run_grid(trainings(settings, (str(folder / FOUND), *settings.controls)), folder, **options)
    comparison = compare([folder])
    replace_file(folder / "summary.md", comparison.to_markdown().encode())
    write_json(folder / "summary.json", comparison.to_data())
    print(f"\n{comparison.to_markdown()}\nWritten to {folder}/summary.md; each search and training has its own folder.")


def check_controls(controls: tuple[str, ...]) -> None:
    """Refuse a control whose trainings would lie where those of the found policy do."""
    for control in controls:
        if folder_name(control) == folder_name(FOUND):
            raise InputError(f"the control {control} would share a folder with the policy found; rename the file")


def trainings(settings: Settings, policies: tuple[str, ...]) -> Grid:
    """What is trained after the search."""
    return Grid(policies, settings.dataset, settings.seeds, settings.network, settings.recipe)


if __name__ == "__main__":
    sys.exit(run(main, "joint_search"))
