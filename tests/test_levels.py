"""Ranges become the levels that they hold, and levels that fill a range become that range again."""

from dataclasses import replace

import pytest
import torch

from search_spaces.controls import named_policy
from search_spaces.levels import LEVELS, with_levels, with_ranges
from search_spaces.policy import OpChoice, Policy, SubPolicy

RANGED = Policy(
    (
        SubPolicy((), 2.0),
        SubPolicy((OpChoice("Rotate", 0.7, (0.0, 1.0)),), 3.0),
        SubPolicy((OpChoice("Invert"),)),
        SubPolicy((OpChoice("ShearX", 1.0, (0.2, 0.5)), OpChoice("Color", 0.4, 0.3))),
        SubPolicy((OpChoice("ShearX", 1.0, (0.2, 0.5)), OpChoice("Color", 0.4, (0.0, 0.9)))),
    ),
    draws=2,
)


def shares(policy: Policy) -> torch.Tensor:
    return policy.tables.cumulative.diff(prepend=torch.zeros(1, dtype=torch.float64))


def test_levels_are_evenly_spread_over_a_range_with_its_share_and_draws() -> None:
    found = with_levels(RANGED)
    assert not found.tables.has_ranges
    assert found.draws == 2
    ones, several = 1 + 31 + 1 + 31, 8 * 8  # of two ranges together at most 64 rows
    assert len(found.sub_policies) == ones + several
    sizes = [1, 31, 1, 31, 64]
    grouped = torch.stack([part.sum() for part in shares(found).split(sizes)])
    assert torch.allclose(grouped, shares(RANGED))
    rotate = found.sub_policies[1:32]
    assert [row.ops[0].magnitude for row in rotate] == [level / 30 for level in range(31)]
    assert {row.ops[0].probability for row in rotate} == {0.7}
    sheared = [row.ops[0].magnitudes[0] for row in found.sub_policies[33:64]]
    assert sheared == pytest.approx([0.2 + 0.01 * level for level in range(31)])
    corners = {tuple(choice.magnitudes[0] for choice in row.ops) for row in found.sub_policies[64:]}
    assert {(0.2, 0.0), (0.5, 0.9)} <= corners
    assert len(corners) == 64


def test_a_policy_of_numbers_stays_what_it_is() -> None:
    for name in ("autoaugment", "random-s1", "none"):
        assert with_levels(named_policy(name)) == named_policy(name)
        assert with_ranges(named_policy(name)) == named_policy(name)


def test_all_levels_of_an_op_become_its_range_and_some_of_them_do_not() -> None:
    whole = tuple(SubPolicy((OpChoice("Rotate", 1.0, level / LEVELS),), 0.5) for level in range(LEVELS + 1))
    levels = Policy((SubPolicy(), *whole, SubPolicy((OpChoice("Invert"),))))
    found = with_ranges(levels)
    assert found.sub_policies[1].ops == (OpChoice("Rotate", 1.0, (0.0, 1.0)),)
    assert torch.allclose(shares(found), torch.tensor([1.0, 15.5, 1.0], dtype=torch.float64) / 17.5)
    for name in ("trivialaugment", "trivialaugment-x2"):
        assert with_ranges(with_levels(named_policy(name))) == named_policy(name)
    for some in (whole[1:], (*whole[:-1], replace(whole[-1], weight=1.0)), (*whole[:5], SubPolicy(), *whole[5:])):
        assert with_ranges(Policy(some)) == Policy(some)
