"""On a device of its own every search and training goes as on the CPU: tensors never mix, and few steps wait for it."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_flatten

from jointsearch.data.datasets import Digits
from jointsearch.data.standard import Standard
from jointsearch.estimators.gumbel import GumbelSettings
from jointsearch.estimators.reinforce import ReinforceSettings
from jointsearch.loops.grid import CELLS, CellsSettings, Grid, run_grid
from jointsearch.loops.plan import NewStepSearcher
from jointsearch.loops.recipe import Mixing, Recipe, SearchRecipe
from jointsearch.protocols import StepReport
from jointsearch.search_kinds import CellsAlone, Joint, SearchKind, SupernetSettings
from jointsearch.searchers import differentiable as searcher_module
from jointsearch.searchers.cell_learner import AgainstCollapse, ArchitectureSettings
from jointsearch.searchers.faster_aa import FasterAA
from jointsearch.searchers.first_order import FirstOrder
from jointsearch.searchers.rewards import Stabilize
from jointsearch.searchers.spaces import Measured
from jointsearch.searchers.table import Table, Trials
from jointsearch.searchers.tanda import Tanda
from jointsearch.study import Study
from jointsearch.through_step.hessian import largest_eigenvalue
from tests.elsewhere import ELSEWHERE, elsewhere
from tests.runs_bench import SPACE, differentiable, run_searches, search_study

Step = Callable[[], StepReport]
# Four steps. Dropout and averaged weights draw from generators of a device, and this one has none.
RECIPE = Recipe(epochs=2, batch_size=25, precision="float32", clip_gradient=5.0)
SEARCH_RECIPE = SearchRecipe(
    epochs=2, batch_size=25, optimizer="sgd", learning_rate=0.1, weight_decay=5e-4, clip_gradient=5.0
)
FEW = Digits(reduced=100, validation=0, standard=Standard())
REINFORCE = differentiable(estimator=ReinforceSettings())
MEASURED = Measured(ops=SPACE.ops)
POLICIES: dict[str, Any] = {
    "gradients": REINFORCE,
    # Its surrogates learn by Adam from rewards that are nearly rounding, and soon go ways of their own.
    "relax": differentiable(stabilize=Stabilize(draws_per_validation=2, validation_batches=2), learning_rate=1e-3),
    "gumbel": differentiable(estimator=GumbelSettings()),
    "shuffled": differentiable(estimator=ReinforceSettings(), shuffled=True),
    "table": Table(MEASURED, every=1),
    "trials": Trials(MEASURED, measurements=2, trial_steps=2),
    "faster_aa": FasterAA(),
    "tanda": Tanda(length=3, samples=2),
}


def cells(kind: Callable[..., SearchKind], variant: str = "darts", **changes: Any) -> SearchKind:
    supernet = SupernetSettings(space="small", channels=4, layers=3, variant=variant)
    # A step of a supernet has thousands of operations, each looked at: one step an epoch.
    return kind(supernet=supernet, search_recipe=replace(SEARCH_RECIPE, batch_size=50), **changes)


JOINT: dict[str, SearchKind] = {
    "kashima2021": cells(Joint, searcher=FirstOrder()),
    "joint": cells(Joint, searcher=REINFORCE),
    "second_order": cells(
        Joint,
        searcher=REINFORCE,
        architecture=ArchitectureSettings(order="second", against_collapse=AgainstCollapse(hessian_monitor=True)),
    ),
    "single_path": cells(CellsAlone, variant="gdas"),
}
SEARCHES = (*POLICIES, *JOINT)


def search_of(kind: str) -> Study:
    if kind in POLICIES:
        epochs = 3 if kind == "trials" else 2  # one for each of its two measurements, after the first half
        return search_study(POLICIES[kind], replace(SEARCH_RECIPE, epochs=epochs), dataset=FEW)
    return search_study(search=JOINT[kind], dataset=FEW)


class Watched:
    """A searcher whose steps are carried out by somebody else."""

    def __init__(self, searcher: Any, carry_out: Callable[[Step], StepReport]) -> None:
        self.searcher, self.carry_out = searcher, carry_out

    def __getattr__(self, name: str) -> Any:
        return getattr(self.searcher, name)

    def step(self, *arguments: Any) -> StepReport:
        return self.carry_out(lambda: self.searcher.step(*arguments))


def watched(carry_out: Callable[[Step], StepReport]) -> Callable[[NewStepSearcher], NewStepSearcher]:
    return lambda new_searcher: lambda *parts: Watched(new_searcher(*parts), carry_out)


def agree(there: Any, here: Any) -> None:
    """Equal, but for the rounding of rewards, which are differences of nearly equal losses; and the time it took."""
    # Preferences are logarithms of the shares, and where those have hardly moved all rounding.
    left_out = {"seconds": 0, "sub_policy_preferences": 0}
    (found, tree), (wanted, same_tree) = (tree_flatten(one | left_out) for one in (there, here))
    assert tree == same_tree
    for one, other in zip(found, wanted, strict=True):
        assert one == (pytest.approx(other, rel=0.01) if isinstance(other, float) else other)


# Rewards come to the CPU, where the policy lies, and its gradient through the pixels comes and goes; cells look once
# whether their gradient is finite. No count grows with the images, the ops or the layers.
MOST_WAITS = {"gradients": 4, "joint": 7, "single_path": 6, "kashima2021": 7}


@pytest.mark.slow
@pytest.mark.parametrize("kind", SEARCHES)
def test_a_search_goes_there_as_it_goes_here_also_after_an_interruption_and_a_step_waits_a_few_times_only(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searcher_module, "largest_eigenvalue", partial(largest_eigenvalue, iterations=2))
    steps, second_epoch, waited = count(), 1 if kind in JOINT else 2, list[int]()
    study = search_of(kind)
    (here,) = run_searches(study, tmp_path / "here")
    with elsewhere() as waits:

        def interrupted(step: Step) -> StepReport:
            if next(steps) == second_epoch:
                raise KeyboardInterrupt
            before = waits.total()
            report = step()
            waited.append(waits.total() - before)
            return report

        options = {"device": ELSEWHERE, "save_seconds": 0.0, "watch": watched(interrupted)}
        with pytest.raises(KeyboardInterrupt):
            run_searches(study, tmp_path / "there", **options)
        (there,) = run_searches(study, tmp_path / "there", tried=True, **options)
    agree(there, here)
    assert len(waited) == here["steps"]
    assert 0 < max(waited) <= MOST_WAITS.get(kind, 1_000_000)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mixed_images", "cells"])
def test_a_training_goes_there_as_it_goes_here(kind: str, tmp_path: Path) -> None:
    recipe = replace(RECIPE, mixing=Mixing(0.2, cutmix=1.0), label_smoothing=0.1)
    network: dict[str, Any] = {"network": "tiny_cnn", "recipe": recipe}
    if kind == "cells":
        sizes = CellsSettings(channels=4, layers=3)
        network = {"network": CELLS, "genotype": "DARTS_V2", "cells": sizes, "recipe": RECIPE}
    grid = Grid(("trivialaugment",), FEW, seeds=(3,), **network)
    (here,) = run_grid(grid, tmp_path / "here")
    with elsewhere():
        (there,) = run_grid(grid, tmp_path / "there", device=ELSEWHERE)
    agree(there, here)


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
