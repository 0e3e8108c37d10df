"""An op of user code has no counterpart in other libraries, and an export says so."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jointsearch.export.policy_albumentations import albumentations_policy
from jointsearch.export.policy_kornia import kornia_auto_augment
from jointsearch.export.policy_timm import timm_auto_augment
from jointsearch.export.policy_torchvision import torchvision_policy
from search_spaces.augment.op import AugOp
from search_spaces.augment.table import OPS, register_op
from search_spaces.errors import InputError
from search_spaces.policy import OpChoice, Policy, SubPolicy

WITHOUT = [albumentations_policy, kornia_auto_augment, torchvision_policy]


@pytest.fixture
def policy() -> Iterator[Policy]:
    register_op(AugOp("Dim", lambda images, amount: images * (1 - amount.view(-1, 1, 1, 1)), 0.0, 0.5))
    yield Policy((SubPolicy((OpChoice("Dim", 1.0, 1.0), OpChoice("Invert"))),))
    del OPS["Dim"]


@pytest.mark.parametrize("export", WITHOUT)
def test_an_op_of_user_code_is_refused_or_left_out_by_name(export: Callable[..., Any], policy: Policy) -> None:
    with pytest.raises(InputError, match="Dim has no counterpart in the other library; give leave_out=true"):
        export(policy)
    exported = export(policy, leave_out=True)
    assert "Dim x1: left out, because the other library has no such op" in exported.approximations
    assert '("Dim"' not in str(exported.value)


def test_timm_takes_an_op_of_user_code_as_an_object(policy: Policy) -> None:
    assert "Dim" in str(timm_auto_augment(policy).value.policy)
