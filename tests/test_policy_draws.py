"""Several draws for an image are what they are one after the other, and ranges of magnitudes are drawn uniformly."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chi2, kstest
from torch import Tensor

from jointsearch.report.results_policy import pack_policy, unpack_policy
from search_spaces.augment.apply import apply_draw, apply_policy, draw_policy
from search_spaces.augment.table import OPS
from search_spaces.controls import named_policy
from search_spaces.errors import InputError
from search_spaces.policy import OpChoice, Policy, SubPolicy
from search_spaces.schedule import PolicySchedule, load_policy_or_schedule

RANGED = OpChoice("Rotate", 0.7, (0.2, 0.6))
FIXED = OpChoice("Brightness", 1.0, 0.4)
POLICY = Policy((SubPolicy((RANGED, FIXED), 2.0), SubPolicy((OpChoice("Invert"),)), SubPolicy(())))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def several(count: int, policy: Policy = POLICY) -> Policy:
    return replace(policy, draws=count)


# --- drawn ------------------------------------------------------------------------------------------------------------


def test_a_range_is_drawn_uniformly_for_every_image_and_a_number_stays() -> None:
    drawn = draw_policy(POLICY, 20_000, seeded())
    first = drawn.sub_policy == 0
    magnitude = drawn.magnitude[first].double()
    assert kstest(((magnitude[:, 0] - 0.2) / 0.4).numpy(), "uniform").pvalue > 1e-4
    assert torch.equal(magnitude[:, 1], torch.full_like(magnitude[:, 1], FIXED.magnitudes[0]).float().double())
    away = (drawn.partner[:, 0] - torch.arange(20_000)) % 20_000  # how far the partner stands
    others = [drawn.sign[first, 0], *drawn.position[first, 0].T, away[first]]
    for other in others:  # the coefficient of 10,000 pairs has a standard deviation of .01
        assert abs(float(torch.corrcoef(torch.stack([magnitude[:, 0], other.double()]))[0, 1])) < 0.05
    acts = drawn.op[first, 0] >= 0  # the range says nothing of whether an op acts, and in which direction
    for one in (acts, drawn.sign[first, 0] > 0):
        assert kstest(((magnitude[one, 0] - 0.2) / 0.4).numpy(), "uniform").pvalue > 1e-4


def test_draws_of_an_image_are_independent_and_each_as_likely_as_alone() -> None:
    drawn = draw_policy(several(2), 40_000, seeded()).sub_policy
    assert drawn.shape == (40_000, 2)
    counts = torch.bincount(drawn[:, 0] * 3 + drawn[:, 1], minlength=9).double()
    shares = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    wanted = 40_000 * (shares[:, None] * shares).flatten()
    assert float(((counts - wanted) ** 2 / wanted).sum()) < chi2.isf(1e-4, 8)


def test_without_ranges_and_with_one_draw_nothing_changes() -> None:
    plain = Policy((SubPolicy((replace(RANGED, magnitude=0.5), FIXED), 2.0), SubPolicy(())))
    drawn, batch = draw_policy(plain, 9, seeded(3)), 9
    # As it was drawn from the first version on: one number for the sub-policy, K for what acts, 4 K for the ops.
    uniform = torch.rand(11, batch, generator=seeded(3))
    assert torch.equal(drawn.sub_policy, (uniform[0].double() >= 2 / 3).long())
    acts = torch.where(drawn.sub_policy[:, None] == 0, torch.tensor([0.7, 1.0]), torch.zeros(2)) > uniform[1:3].T
    assert torch.equal(drawn.op >= 0, acts)
    assert torch.equal(drawn.position[..., 0], uniform[5:7].T)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(12, 3, 16, 16, generator=seeded(5))


@pytest.mark.parametrize("count", [2, 3])
def test_draws_act_one_after_the_other(count: int, images: Tensor) -> None:
    drawn, stages = draw_policy(several(count), len(images), seeded(2)), POLICY.stages
    assert drawn.op.shape == (len(images), count * stages)
    changed = images
    for number in range(count):
        part = slice(number * stages, (number + 1) * stages)
        names = ("op", "magnitude", "sign", "position", "partner")
        one = replace(drawn, **{name: getattr(drawn, name)[:, part] for name in names})
        changed = apply_draw(changed, one, images)
    assert torch.equal(apply_draw(images, drawn), changed)
    assert torch.equal(apply_policy(several(count), images, seeded(2)), changed)


# --- said and stored --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [POLICY, several(3), several(2, named_policy("autoaugment"))])
def test_it_is_read_back_as_it_was_written(policy: Policy) -> None:
    told = json.loads(policy.to_json())
    assert (told["version"], told["draws"]) == (2, policy.draws)
    assert Policy.from_json(policy.to_json()) == policy
    assert Policy.from_json(policy.to_json()) != several(policy.draws + 1, policy)


def test_a_schedule_and_a_file_of_results_hold_them_too(tmp_path: Path) -> None:
    schedule = PolicySchedule(((0, POLICY), (5, several(2))))
    schedule.save(tmp_path / "schedule.json")
    assert load_policy_or_schedule(tmp_path / "schedule.json") == schedule
    for one in (schedule, POLICY, several(3), several(2, named_policy("autoaugment"))):
        assert unpack_policy(json.loads(json.dumps(pack_policy(one))), "results") == one
    assert pack_policy(named_policy("trivialaugment-x2")) == "trivialaugment-x2"


def test_what_the_first_version_can_say_is_written_in_it() -> None:
    told = json.loads(named_policy("autoaugment").to_json())
    assert told["version"] == 1
    assert "draws" not in told


WRONG: dict[str, Any] = {
    "draws is 0; wanted a whole number": {"draws": 0},
    "draws is True": {"draws": True},
    "9 draws of up to 2 ops are more than the 16": {"draws": 9},
    "draws stands in a file of version 1": {"version": 1},
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_draws_are_one_line(message: str) -> None:
    told = json.loads(POLICY.to_json()) | WRONG[message]
    with pytest.raises(InputError, match=message):
        Policy.from_json(json.dumps(told))


@pytest.mark.parametrize(
    ("magnitude", "message"),
    [
        ((0.5, 0.5), "wanted a range that rises"),
        ((0.6, 0.2), "wanted a range that rises"),
        ((0.0, 1.5), "an end of the range of magnitude is 1.5; wanted a number from 0 to 1"),
        ((0.0, None), "an end of the range of magnitude is None"),
        ((0.1, 0.2, 0.3), "wanted a number, or a range as"),
        ([0.1, 0.2], "magnitude is"),
    ],
)
def test_a_wrong_range_is_one_line(magnitude: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        OpChoice("Rotate", 1.0, magnitude)


def test_a_range_in_a_file_of_the_first_version_is_refused() -> None:
    told = json.loads(POLICY.to_json()) | {"version": 1}
    del told["draws"]
    with pytest.raises(InputError, match="a magnitude is a range, and its version is 1; write version 2"):
        Policy.from_json(json.dumps(told))


@pytest.mark.parametrize("name", ["trivialaugment", "autoaugment", "randaugment-n2-m9", "none", "random-s3"])
def test_any_control_may_be_drawn_twice(name: str) -> None:
    twice = named_policy(f"{name}-x2")
    assert twice == several(2, named_policy(name))
    assert twice.name == f"{name}-x2"
    for wrong in (f"{name}-x0", f"{name}-x99", f"{name}-x2-x2", f"{name}-x"):
        with pytest.raises(InputError):
            named_policy(wrong)


def test_ops_without_an_amount_have_no_range() -> None:
    name = next(op.name for op in OPS.values() if not op.has_magnitude)
    with pytest.raises(InputError, match="has no amount"):
        OpChoice(name, 1.0, (0.0, 1.0))
