"""Two rows of a table with the very same policy are trained once, and the table says so."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jointsearch.data.datasets import Digits
from jointsearch.loops import grid as grid_module
from jointsearch.loops.grid import Grid, run_grid
from jointsearch.loops.plan import Plan
from jointsearch.loops.recipe import Recipe
from jointsearch.loops.repeat import same_policy
from jointsearch.loops.retrain import retrain
from jointsearch.report.comparison import write_summary
from jointsearch.runs.boards import Board
from search_spaces.controls import resolve_policy
from search_spaces.policy import Policy, SubPolicy
from search_spaces.schedule import PolicySchedule

QUICK = Recipe(epochs=1, batch_size=50, precision="float32")


def as_shares(policy: Policy, name: str = "found") -> Policy:
    """The same policy as a search writes it: with weights that add up to one, and a name of its own."""
    total = sum(entry.weight for entry in policy.sub_policies)
    return Policy(tuple(replace(entry, weight=entry.weight / total) for entry in policy.sub_policies), name)


class Told:
    """A place that is told of parts."""

    def __init__(self) -> None:
        self.parts: set[str] = set()

    def log(self, part: str, *_: object) -> None:
        self.parts.add(part)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders of the trainings that are carried out."""
    folders: list[str] = []

    def counted(plan: Plan, *rest: Any) -> dict[str, Any]:
        folders.append(plan.folder.parent.name)
        return retrain(plan, *rest)

    monkeypatch.setattr(grid_module, "retrain", counted)
    return folders


def test_a_policy_that_a_control_has_too_is_trained_once_and_both_have_the_result(
    tmp_path: Path, trained: list[str]
) -> None:
    start = resolve_policy("trivialaugment")
    assert isinstance(start, Policy)
    as_shares(start).save(tmp_path / "mine.json")
    grid = Grid((str(tmp_path / "mine.json"), "none", "trivialaugment"), Digits(reduced=100), (0,), "tiny_cnn", QUICK)
    told = Told()
    results = run_grid(grid, tmp_path / "out", board=Board(tmp_path / "out", lambda: told))
    assert trained == ["mine", "none"]
    assert told.parts == {"mine/seed0", "none/seed0", "trivialaugment/seed0"}  # a board is told of all three
    mine, _, control = results
    assert control.pop("same_as") == "mine"
    assert control | {"policy": ""} == mine | {"policy": ""}
    for name in ("model.safetensors", "model.json", "metrics.jsonl"):
        assert (tmp_path / "out/mine/seed0" / name).read_bytes() == (
            tmp_path / f"out/trivialaugment/seed0/{name}"
        ).read_bytes()
    summary = write_summary(tmp_path / "out")
    assert "\ntrivialaugment has the very policy of mine with seed 0: trained once.\n" in summary
    # It is what training it would have given.
    alone = Grid(("trivialaugment",), Digits(reduced=100), (0,), "tiny_cnn", QUICK)
    (again,) = run_grid(alone, tmp_path / "alone")
    assert again | {"seconds": 0} == control | {"seconds": 0}
    # Nothing is left to do, and what was begun by itself goes on by itself.
    assert run_grid(grid, tmp_path / "out")[2]["same_as"] == "mine"
    (tmp_path / "out/trivialaugment/seed0/result.json").unlink()
    assert "same_as" not in run_grid(grid, tmp_path / "out")[2]
    assert json.loads((tmp_path / "out/mine/seed0/result.json").read_text()).get("same_as") is None


def test_policies_are_the_same_by_what_they_draw_and_not_by_name() -> None:
    policy = resolve_policy("autoaugment")
    assert isinstance(policy, Policy)
    assert same_policy(policy, as_shares(policy, "other"))
    first, *others = policy.sub_policies
    assert not same_policy(policy, Policy((replace(first, weight=first.weight * 1.001), *others)))
    assert not same_policy(policy, Policy((SubPolicy((), first.weight), *others)))
    assert not same_policy(policy, Policy(tuple(others)))
    assert not same_policy(policy, None)
    schedule = PolicySchedule(((0, policy), (3, policy)))
    assert same_policy(schedule, PolicySchedule(((0, policy), (3, as_shares(policy)))))
    assert not same_policy(schedule, PolicySchedule(((0, policy), (2, policy))))
    assert not same_policy(schedule, policy)
