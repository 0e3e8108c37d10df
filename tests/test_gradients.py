"""Gradients that cannot be followed are noticed wherever they stand."""

import pytest
import torch

from jointsearch.searchers.gradients import all_finite


@pytest.mark.parametrize("bad", [None, torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", [0, 2])
def test_one_value_that_is_no_number_is_noticed_in_any_gradient(bad: float | None, place: int) -> None:
    learned = [torch.zeros(3, requires_grad=True) for _ in range(4)]
    for one in learned[:3]:  # the last one has no gradient
        one.grad = torch.ones(3)
    if bad is not None:
        learned[place].grad[1] = bad
    assert all_finite(learned) == (bad is None)


def test_where_nothing_has_a_gradient_nothing_is_wrong() -> None:
    assert all_finite([torch.zeros(2)])
    assert all_finite([])
