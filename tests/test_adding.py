"""The recipes of CONTRIBUTING.md for adding one thing: how many files each takes, and that it works at once."""

import json
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.folders_bench import classes, write_folder
from tests.scripts_bench import copy_project
from tests.starts import run_all

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


@pytest.fixture(scope="module")
def added(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, list[CompletedProcess[str]], int]]:
    """Of each kind the folder of its search, what the search and its help came to, and how many files were new.

    All are added to one copy, which starts once; no recipe names what another adds.
    """
    scratch = tmp_path_factory.mktemp("adding")
    news, copy, folders, commands = {}, scratch / "copy", {}, []
    copy_project(copy)
    for kind, (files, words) in RECIPES.items():
        news[kind] = sum(not (copy / name).exists() for name in files)
        for name, text in files.items():
            with (copy / name).open("a") as file:
                file.write(text)
        folders[kind] = scratch / kind
        write_folder(folders[kind] / "photos", classes())
        command = [str(copy / "scripts" / "joint_search.py"), *QUICK, *words]
        commands += [(folders[kind], command), (folders[kind], [*command, "--help"])]
    done = run_all(commands, copy, scratch / "printed")
    return {kind: (folders[kind], done[2 * i : 2 * i + 2], news[kind]) for i, kind in enumerate(RECIPES)}


@pytest.mark.parametrize("kind", RECIPES)
def test_a_new_one_takes_few_files_and_works_from_the_command_line(
    kind: str, added: dict[str, tuple[Path, list[CompletedProcess[str]], int]]
) -> None:
    folder, (done, helped), new = added[kind]
    assert (new, len(RECIPES[kind][0]) - new) == (NEW_FILES[kind], EDITED_FILES.get(kind, 0))
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / "out/search-seed0/policy.json").read_text())
    ops = {one["op"] for sub_policy in found["sub_policies"] for one in sub_policy["ops"]}
    assert FOUND.get(kind, ops) == ops
    assert kind == "op" or f"{kind}=" in helped.stdout
