"""Joint search under every estimator: it is finite, gives the same bits again, and goes on where it was interrupted."""

import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from jointsearch.compose import compose_study
from jointsearch.data.load import load_search_splits
from jointsearch.loops.journal import Interrupted
from jointsearch.loops.plan import Plan
from jointsearch.loops.search import search
from jointsearch.protocols import StepSearcher, TrainStep
from jointsearch.runs.checkpoint import load_checkpoint
from jointsearch.runs.plain_state import encode_state
from jointsearch.search_kinds import Joint
from search_spaces.genotype import Genotype
from search_spaces.policy import Policy
from tests.runs_bench import Stopping

ESTIMATORS = ("relax", "gumbel", "reinforce")
SIZES = ("supernet.space=small", "supernet.channels=4", "supernet.layers=3", "dataset.reduced=80")
# Two epochs of 40 training images in batches of 20.
RECIPE = ("search_recipe.epochs=2", "search_recipe.batch_size=20", "policy_space.ops=[Rotate,Invert,Cutout]")
STEPS = 4


def searched(folder: Path, estimator: str, stop_at: int | None = None) -> dict[str, Any]:
    study = compose_study("search=joint", f"estimator={estimator}", *SIZES, *RECIPE, "policy_space.top=null")
    assert isinstance(study.search, Joint)
    (stage,) = study.search.stages()
    standard = study.dataset.standard
    plan = Plan(
        folder,
        stage.network,
        stage.recipe.whole(),
        standard,
        seed=3,
        search=stage.settings,
        network_options=stage.network_options,
        save_seconds=1e6,
    )
    new = stage.new_searcher(None, plan.seed, standard)

    def stopping(network: nn.Module, train_step: TrainStep, noise: torch.Generator) -> StepSearcher:
        return new(network, Stopping(train_step, stop_at), noise)

    return search(plan, load_search_splits(study.dataset, plan.seed), stopping)


@cache
def undisturbed(folder: Path, estimator: str) -> dict[str, Any]:
    return searched(folder / estimator, estimator)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the searches that are not interrupted."""
    return tmp_path_factory.mktemp("undisturbed")


def final_state(folder: Path) -> Any:
    loaded = load_checkpoint(folder / "checkpoints")
    assert loaded is not None
    return encode_state({key: value for key, value in loaded.state.items() if key != "seconds"})


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_what_it_finds_is_finite_and_moved(estimator: str, finished: Path) -> None:
    result = undisturbed(finished, estimator)
    assert (result["steps"], result["skipped_steps"]) == (STEPS, 0)
    assert result["forward_equivalents"] == STEPS * 10  # 3 to train, 3 of validation images, 4 of rewards with a graph
    numbers = [one for fact in result.values() for one in (fact if isinstance(fact, list) else [fact])]
    assert all(math.isfinite(one) for one in numbers if isinstance(one, float))
    start = 1 / 3  # of three pairs
    assert max(abs(share - start) for share in result["sub_policy_shares"]) > 1e-3
    assert all(max(edge) - min(edge) > 0.01 for edge in result["weights/normal"])
    policy = Policy.load(finished / estimator / "policy.json")
    magnitudes = [op.magnitude for one in policy.sub_policies for op in one.ops if op.magnitude is not None]
    assert any(magnitude != 0.5 for magnitude in magnitudes)
    assert Genotype.load(finished / estimator / "genotype.json").to_darts() == result["genotype"]


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("stop_at", [1, 3])
def test_another_run_of_the_same_seed_has_the_same_bits_also_where_it_was_interrupted(
    estimator: str, stop_at: int, finished: Path, tmp_path: Path
) -> None:
    expected = undisturbed(finished, estimator)
    with pytest.raises(Interrupted):
        searched(tmp_path, estimator, stop_at)
    assert searched(tmp_path, estimator) | {"seconds": 0} == expected | {"seconds": 0}
    assert final_state(tmp_path) == final_state(finished / estimator)


@pytest.mark.slow
def test_estimators_find_different_shares(finished: Path) -> None:
    shares = [undisturbed(finished, estimator)["sub_policy_shares"] for estimator in ESTIMATORS]
    assert all(one != other for one, other in zip(shares, [*shares[1:], shares[0]], strict=True))
