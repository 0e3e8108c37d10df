"""The presets of DADA have the numbers of its paper, and run."""

from pathlib import Path

import pytest

from jointsearch.searchers.make import search_settings
from jointsearch.searchers.settings import DifferentiableSearch, EstimatorSettings, GradientSettings, SpaceSettings
from scripts import joint_search
from scripts.door import compose_plain, run
from search_spaces.policy import Policy

PRESETS = {"dada2020_relax": ("relax", "sides"), "dada2020_gumbel": ("gumbel", "difference")}


@pytest.mark.parametrize("preset", PRESETS)
def test_the_preset_has_the_numbers_of_the_paper(preset: str) -> None:
    estimator, estimate_on = PRESETS[preset]
    config = compose_plain("joint_search", [f"preset={preset}", "dataset=cifar10"])
    assert search_settings({name: config[name] for name in (*joint_search.GROUPS, "search")}) == DifferentiableSearch(
        GradientSettings(
            learning_rate=5e-3, betas=(0.5, 0.999), magnitude_gradient="ones", estimate_on=estimate_on, rewards="real"
        ),
        SpaceSettings("pairs", None, "unordered", probability=0.5, magnitude=0.5, steepness=4.0, top=25),
        EstimatorSettings(estimator, "joint", temperature=0.5, draws="batch"),
    )
    recipe = {"epochs": 20, "batch_size": 128, "optimizer": "momentum", "learning_rate": 0.1, "weight_decay": 2e-4}
    assert (recipe | {"momentum": 0.9, "schedule": "cosine"}).items() <= config["search_recipe"].items()
    assert config["network"] == "wide_resnet40_2"


@pytest.mark.parametrize("preset", PRESETS)
def test_the_preset_finds_a_policy_of_pairs_from_the_command_line(
    preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["network=tiny_cnn", "dataset.reduced=100", "search_recipe.epochs=1", "search_recipe.batch_size=25"]
    given = [f"preset={preset}", *small, "seeds=[0]", "policy_space.top=105", "retrain=false", "run=out"]
    assert run(joint_search.main, "joint_search", given) == 0
    found = Policy.load("out/search-seed0/found.json")
    assert [len(sub_policy.ops) for sub_policy in found.sub_policies] == [2] * 105
    # Two steps, of .005 at most and 4 times as steep: none has gone further than .04 of its range from the middle.
    learned = [share for one in found.sub_policies for op in one.ops for share in (op.probability, op.magnitude)]
    moved = [abs(share - 0.5) for share in learned if share is not None]
    assert 0 < max(moved) < 0.04
