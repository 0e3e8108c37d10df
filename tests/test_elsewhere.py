"""On a device of its own every search and training goes as on the CPU: tensors never mix, and few steps wait for it."""

import dataclasses
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from jointsearch.data.load import DataSettings
from jointsearch.data.standard import Standard
from jointsearch.loops.recipe import Recipe
from jointsearch.loops.search import NewSearcher
from jointsearch.loops.searches import SearchGrid, run_searches
from jointsearch.loops.trials import CELLS, CellsSettings, Grid, run_grid
from jointsearch.networks.supernet import SUPERNET
from jointsearch.searchers.make import new_searcher, search_settings
from jointsearch.settings import as_plain
from tests.elsewhere import ELSEWHERE, elsewhere

Metrics = dict[str, Tensor]
Step = Callable[[], Metrics]
# Four steps. Dropout and averaged weights draw from generators of a device, and this one has none.
RECIPE = Recipe(epochs=2, batch_size=25, precision="float32", clip_gradient=5.0)
FEW = DataSettings("digits", reduced=100, test_share=0.4167)
OPS = {"ops": ["Rotate", "Invert", "Brightness", "TranslateX"]}
JOINT = {"search": "joint", "policy_space": OPS}
SEARCHES: dict[str, dict[str, Any]] = {
    "gradients": {"policy_space": OPS},
    "relax": {
        "policy_space": OPS,
        # Its surrogates learn by Adam from rewards that are nearly rounding, and soon go ways of their own.
        "searcher": {"draws_per_validation": 2, "validation_batches": 2, "learning_rate": 1e-3},
        "estimator": {"name": "relax"},
    },
    "gumbel": {"policy_space": OPS, "estimator": {"name": "gumbel", "scoring": "joint"}},
    "shuffled": {"policy_space": OPS, "searcher": {"rewards": "shuffled"}},
    "table": {"policy_space": OPS, "searcher": {"name": "table", "every": 1}},
    "trials": {"policy_space": OPS, "searcher": {"name": "table", "every": None, "measurements": 2, "trial_steps": 2}},
    "faster_aa": {"searcher": {"name": "faster_aa"}},
    "kashima2021": {"search": "joint", "searcher": {"name": "first_order"}},
    "joint": JOINT,
    "second_order": JOINT | {"architecture": {"order": "second", "hessian_monitor": True}},
    "single_path": JOINT | {"search": "architecture"},
}


def search_of(kind: str) -> SearchGrid:
    groups = {"policy_space": {}} | SEARCHES[kind]
    settings = search_settings(groups | {"searcher": {"name": "differentiable"} | groups.get("searcher", {})})
    network: dict[str, Any] = {"network": "tiny_cnn"}
    if "search" in groups:
        options = {"space": "small", "channels": 4, "layers": 3, "single_path": kind == "single_path"}
        network = {"network": SUPERNET, "network_options": options}
    return SearchGrid(
        start=lambda seed: settings.policy_space.policy(),
        settings=as_plain(settings),
        new_searcher=lambda seed: new_searcher(settings, Standard(), seed, RECIPE.epochs),
        dataset=FEW,
        seeds=(3,),
        recipe=RECIPE,
        **network,
    )


class Watched:
    """A searcher whose steps are carried out by somebody else."""

    def __init__(self, searcher: Any, carry_out: Callable[[Step], Metrics]) -> None:
        self.searcher, self.carry_out = searcher, carry_out

    def __getattr__(self, name: str) -> Any:
        return getattr(self.searcher, name)

    def step(self, *arguments: Any) -> Metrics:
        return self.carry_out(lambda: self.searcher.step(*arguments))


def watched(grid: SearchGrid, carry_out: Callable[[Step], Metrics]) -> SearchGrid:
    def of_seed(seed: int) -> NewSearcher:
        return lambda *parts: Watched(grid.new_searcher(seed)(*parts), carry_out)

    return dataclasses.replace(grid, new_searcher=of_seed)


def agree(there: Any, here: Any) -> None:
    """Equal, but for the rounding of rewards, which are differences of nearly equal losses; and the time it took."""
    # Preferences are logarithms of the shares, and where those have hardly moved all rounding.
    left_out = {"seconds": 0, "sub_policy_preferences": 0}
    (found, tree), (wanted, same_tree) = (tree_flatten(one | left_out) for one in (there, here))
    assert tree == same_tree
    for one, other in zip(found, wanted, strict=True):
        assert one == (pytest.approx(other, rel=0.01) if isinstance(other, float) else other)


@pytest.mark.parametrize("kind", SEARCHES)
def test_a_search_goes_there_as_it_goes_here_also_after_an_interruption(kind: str, tmp_path: Path) -> None:
    steps = count()

    def interrupted(step: Step) -> Metrics:
        if next(steps) == 3:  # the first of the second epoch; number 0 is that of the check before a search
            raise KeyboardInterrupt
        return step()

    grid = search_of(kind)
    (here,) = run_searches(grid, tmp_path / "here")
    with elsewhere():
        options = {"device": ELSEWHERE, "save_seconds": 0.0}
        with pytest.raises(KeyboardInterrupt):
            run_searches(watched(grid, interrupted), tmp_path / "there", **options)
        (there,) = run_searches(grid, tmp_path / "there", **options)
    agree(there, here)


@pytest.mark.parametrize("kind", ["mixed_images", "cells"])
def test_a_training_goes_there_as_it_goes_here(kind: str, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, mixup=0.2, cutmix=1.0, label_smoothing=0.1)
    network: dict[str, Any] = {"network": "tiny_cnn", "recipe": recipe}
    if kind == "cells":
        cells = CellsSettings(channels=4, layers=3, auxiliary=False)
        network = {"network": CELLS, "genotype": "DARTS_V2", "cells": cells, "recipe": RECIPE}
    grid = Grid(("trivialaugment",), FEW, seeds=(3,), **network)
    (here,) = run_grid(grid, tmp_path / "here")
    with elsewhere():
        (there,) = run_grid(grid, tmp_path / "there", device=ELSEWHERE)
    agree(there, here)


# Rewards come to the CPU, where the policy lies, and its gradient through the pixels comes and goes; cells look once
# whether their gradient is finite. No count grows with the images, the ops or the layers.
@pytest.mark.parametrize(("kind", "most"), [("gradients", 4), ("joint", 7), ("single_path", 6), ("kashima2021", 7)])
def test_a_step_waits_for_the_device_a_few_times_only(kind: str, most: int, tmp_path: Path) -> None:
    counts = list[int]()
    with elsewhere() as waits:

        def counted(step: Step) -> Metrics:
            before = waits.total()
            metrics = step()
            counts.append(waits.total() - before)
            return metrics

        run_searches(watched(search_of(kind), counted), tmp_path, device=ELSEWHERE)
    assert 0 < max(counts) <= most


def test_tensors_of_two_devices_do_not_meet_and_what_comes_back_is_counted() -> None:
    with elsewhere() as waits:
        there = torch.ones(3).to(ELSEWHERE, non_blocking=True)
        with pytest.raises(AssertionError, match="tensors of two devices"):
            there + torch.ones(3)
        assert (there + torch.ones(()))[torch.tensor([0, 2])].device == ELSEWHERE
        assert waits == {"index": 1}
        assert bool(there.sum() == 3)
        assert there.cpu().device.type == "cpu"
        there.copy_(torch.zeros(3))
        assert there[there > 1].shape == (0,)
        assert there[torch.arange(2, device=ELSEWHERE)].shape == (2,)
    assert waits == {"index": 2, "_local_scalar_dense": 1, "_to_copy": 1, "copy_": 1}
