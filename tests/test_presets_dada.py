"""The presets of DADA have the numbers of its paper, and run."""

from pathlib import Path

import pytest

from jointsearch.commands.command import run
from jointsearch.compose import compose_study
from jointsearch.estimators.draw import EstimatorSettings
from jointsearch.estimators.gumbel import GumbelSettings
from jointsearch.estimators.relax import RelaxSettings
from jointsearch.search_kinds import PolicyOnly
from jointsearch.searchers.differentiable import Differentiable
from jointsearch.searchers.policy_learner import DIRECT_STEEPNESS
from jointsearch.searchers.rewards import Rewards
from jointsearch.searchers.spaces import Pairs
from search_spaces.policy import Policy
from search_spaces.spaces import pairs

PRESETS = {
    "dada2020_relax": RelaxSettings("joint", temperature=0.5, draws="batch"),
    "dada2020_gumbel": GumbelSettings(temperature=0.5, draws="batch"),
}


@pytest.mark.parametrize(("preset", "estimator"), PRESETS.items())
def test_the_preset_has_the_numbers_of_the_paper(preset: str, estimator: EstimatorSettings) -> None:
    search = compose_study(f"preset={preset}", dataset="cifar10").search
    assert isinstance(search, PolicyOnly)
    assert search.searcher == Differentiable(
        learning_rate=5e-3,
        policy_space=Pairs(None, "unordered", top=25),
        estimator=estimator,
        published="paper",
        rewards=Rewards(statistics="live"),
    )
    assert search.searcher.policy_space.policy() == pairs(probability=0.5, magnitude=0.5)
    assert (Differentiable.BETAS, DIRECT_STEEPNESS) == ((0.5, 0.999), 4.0)
    recipe = {"epochs": 20, "batch_size": 128, "optimizer": "momentum", "learning_rate": 0.1, "weight_decay": 2e-4}
    whole = search.search_recipe.whole()
    assert (recipe | {"schedule": "cosine_to_0.001"}).items() <= vars(whole).items()
    assert whole.momentum == 0.9
    assert search.network.name == "wide_resnet40_2"


@pytest.mark.parametrize("preset", PRESETS)
def test_the_preset_finds_a_policy_of_pairs_from_the_command_line(
    preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["network=tiny_cnn", "dataset.reduced=100", "search_recipe.epochs=1", "search_recipe.batch_size=25"]
    given = [f"preset={preset}", *small, "seeds=[0]", "policy_space.top=105", "retrain=false", "run=out"]
    assert run("joint_search", given) == 0
    found = Policy.load("out/search-seed0/policy.json")
    assert [len(sub_policy.ops) for sub_policy in found.sub_policies] == [2] * 105
    # Two steps, of .005 at most and 4 times as steep: none has gone further than .04 of its range from the middle.
    learned = [share for one in found.sub_policies for op in one.ops for share in (op.probability, op.magnitude)]
    moved = [abs(share - 0.5) for share in learned if share is not None]
    assert 0 < max(moved) < 0.04
