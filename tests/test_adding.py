"""The recipes of CONTRIBUTING.md for adding one thing: how many files each takes, and that it works at once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripts_bench import copy_project
from tests.test_data_folder import classes, write_folder

pytestmark = pytest.mark.slow

QUICK = [
    *("search=policy", "network=tiny_cnn", "seeds=[0]", "search_recipe.epochs=1", "search_recipe.batch_size=20"),
    *("retrain=false", "threads=1", "device=cpu", "run=out"),
]
FEW_DIGITS = ["dataset.reduced=60"]
ESTIMATOR = '''"""REINFORCE whose rewards are clipped."""

from dataclasses import dataclass

from jointsearch.estimators.reinforce import Reinforce
from jointsearch.settings import bounded, check_fields


@dataclass(frozen=True)
class ClippedSettings:
    """REINFORCE without a baseline, for few sub-policies."""

    most: float = bounded(1.0, 0.0, 100.0, help="of a reward")
    draws = "image"

    def __post_init__(self) -> None:
        check_fields(self)

    def build(self, sub_policies: int, stages: int) -> Reinforce:
        """The estimator."""
        return Reinforce("none")
'''
SEARCHER = '''"""Always returns AutoContrast."""

from dataclasses import dataclass

from jointsearch.protocols import Context
from jointsearch.searchers.random import RandomSearcher
from search_spaces.policy import OpChoice, Policy, SubPolicy


@dataclass(frozen=True)
class Always:
    """Settings of it."""

    def start(self, context: Context) -> RandomSearcher:
        """Begin the search."""
        return RandomSearcher(Policy((SubPolicy((OpChoice("AutoContrast"),)),)))
'''
SEARCHER_YAML = """# python scripts/joint_search.py search=policy searcher=always
defaults:
  - override /policy_space@_global_.policy_space: none
  - override /estimator@_global_.estimator: none

_target_: jointsearch.searchers.always.Always
"""
OP = '''

def halve(images: Tensor, amount: Tensor) -> Tensor:
    """Darken by up to one half."""
    return images * (1 - amount.reshape(-1, 1, 1, 1))


register_op(AugOp("Halve", halve, 0.0, 0.5, gradient="pathwise"))
'''
ESTIMATOR_YAML = """# python scripts/joint_search.py estimator=clipped
_target_: jointsearch.estimators.clipped.ClippedSettings
"""
DATASET_YAML = """# python scripts/retrain.py dataset=photos
_target_: jointsearch.data.datasets.Folder
path: photos
image_size: 8
"""
TOP = ["policy_space.top=3"]
CONFIGS = "jointsearch/configs"
# Files with the text that is added to each, most of them new; and the words that use it.
RECIPES: dict[str, tuple[dict[str, str], list[str]]] = {
    "estimator": (
        {"jointsearch/estimators/clipped.py": ESTIMATOR, f"{CONFIGS}/estimator/clipped.yaml": ESTIMATOR_YAML},
        [*FEW_DIGITS, "searcher=differentiable", "policy_space=pairs", "estimator=clipped", "estimator.most=2"],
    ),
    "searcher": (
        {"jointsearch/searchers/always.py": SEARCHER, f"{CONFIGS}/searcher/always.yaml": SEARCHER_YAML},
        [*FEW_DIGITS, "searcher=always"],
    ),
    "dataset": ({f"{CONFIGS}/dataset/photos.yaml": DATASET_YAML}, ["dataset=photos", "searcher=random"]),
    "op": (
        {"search_spaces/augment/table.py": OP},
        [*FEW_DIGITS, "searcher=differentiable", "policy_space=pairs", "policy_space.ops=[Halve,Invert,Rotate]", *TOP],
    ),
}
NEW_FILES = {"estimator": 2, "searcher": 2, "dataset": 1, "op": 0}
EDITED_FILES = {"op": 1}
FOUND = {"searcher": {"AutoContrast"}, "op": {"Halve", "Invert", "Rotate"}}


@pytest.mark.parametrize("kind", RECIPES)
def test_a_new_one_takes_few_files_and_works_from_the_command_line(kind: str, tmp_path: Path) -> None:
    copy, folder = copy_project(tmp_path / "copy"), tmp_path / "folder"
    write_folder(folder / "photos", classes())
    files, words = RECIPES[kind]
    new = {name for name in files if not (copy / name).exists()}
    assert (len(new), len(files) - len(new)) == (NEW_FILES[kind], EDITED_FILES.get(kind, 0))
    for name, text in files.items():
        with (copy / name).open("a") as file:
            file.write(text)
    command = [sys.executable, str(copy / "scripts" / "joint_search.py"), *QUICK, *words]
    environment = os.environ | {"PYTHONPATH": str(copy)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / "out/search-seed0/policy.json").read_text())
    ops = {one["op"] for sub_policy in found["sub_policies"] for one in sub_policy["ops"]}
    assert FOUND.get(kind, ops) == ops
    helped = subprocess.run(
        [*command, "--help"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert kind == "op" or f"{kind}=" in helped.stdout
