"""A loss and a score of one's own: a study learns by the one and is judged by the other, and by no cross entropy."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from jointsearch import Task, compose_study, run_study
from jointsearch.through_step.loss import cross_entropies
from search_spaces.errors import InputError
from tests.own_tasks import Brier, GroupWeights, SquaredDistance
from tests.scripts_bench import search_alone

OWN = Task(SquaredDistance, Brier)
SMALL = [
    "dataset=digits",
    "dataset.reduced=100",
    "dataset.validation=50",
    "recipe.epochs=1",
    "recipe.batch_size=50",
    "search_recipe.epochs=1",
    "search_recipe.batch_size=25",
    "seeds=[0]",
    "controls=[none]",
    "device=cpu",
]
POLICY = ["search=policy", "network=tiny_cnn"]
CELLS = ["supernet.space=small", "supernet.channels=4", "supernet.layers=3"]
FEW = ["policy_space.ops=[Rotate,Invert,Brightness]"]
SEARCHES = {
    "relax": [*POLICY, "searcher=differentiable"],
    "jvp": [*POLICY, "searcher=differentiable", "searcher.rewards.epsilon=0", "estimator=reinforce"],
    "table": [*POLICY, "searcher=table", "searcher.levels=1", "searcher.every=1"],
    "trials": [
        *POLICY,
        "searcher=trials",
        "searcher.trial_steps=2",
        "searcher.measurements=2",
        "search_recipe.epochs=4",
    ],
    "joint": [*CELLS, *FEW, "architecture.order=second", "architecture.against_collapse.hessian_monitor=true"],
    "first order": ["preset=kashima2021", *CELLS, "policy_space.sub_policies=2"],
    "cells": ["search=architecture", *CELLS],
}


class NoCrossEntropy(TorchFunctionMode):
    """Refuses every cross entropy."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in (torch.nn.functional.cross_entropy, torch.nn.functional.log_softmax)
        return func(*args, **(kwargs or {}))


def test_the_tests_below_notice_a_cross_entropy() -> None:
    outputs, labels = torch.zeros(3, 2), torch.zeros(3, dtype=torch.long)
    with pytest.raises(AssertionError), NoCrossEntropy():
        cross_entropies(lambda images: outputs, outputs, labels)


@pytest.mark.parametrize("name", SEARCHES)
def test_every_search_learns_from_the_loss_that_it_is_given(name: str, tmp_path: Path) -> None:
    study = compose_study(*search_alone(*SMALL, *SEARCHES[name]))
    with NoCrossEntropy():
        result = run_study(study, tmp_path, task=OWN)
    assert result.policies or result.genotypes
    settings = json.loads(next(tmp_path.glob("search-seed0/settings.json")).read_text())
    assert settings["objective"] == "tests.own_tasks.SquaredDistance"
    assert settings["metric"] == "tests.own_tasks.Brier"
    found = json.loads(next(tmp_path.glob("search-seed0/result.json")).read_text())
    assert found["metric"] == {"name": "brier", "unit": "", "higher_is_better": False}


def test_a_whole_study_is_scored_by_the_metric_that_it_is_given(tmp_path: Path) -> None:
    study = compose_study(*SMALL, *SEARCHES["relax"])
    result = run_study(study, tmp_path, task=OWN)
    trained = json.loads((tmp_path / "none/seed0/result.json").read_text())
    assert trained["metric"] == {"name": "brier", "unit": "", "higher_is_better": False}
    assert 0 < trained["test_brier_last"] < 2
    assert result.comparison is not None
    with pytest.raises(InputError, match="objective was"):  # another loss is another study
        run_study(study, tmp_path, task=Task(GroupWeights, Brier))
    with pytest.raises(InputError, match="metric was"):
        run_study(study, tmp_path)


def test_the_name_of_a_task_says_what_differs_from_classification() -> None:
    assert Task().identity() == {}
    assert Task(new_metric=Brier).identity() == {"metric": "tests.own_tasks.Brier"}
