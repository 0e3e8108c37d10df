"""Augmentation ops, and policies made of them. Usable without jointsearch: a policy.json is enough."""

from typing import TYPE_CHECKING

from search_spaces.on_demand import names_on_demand

if TYPE_CHECKING:
    from search_spaces.augment.apply import PolicyDraw, apply_draw, apply_policy, draw_matrix, draw_policy
    from search_spaces.augment.op import AugOp
    from search_spaces.augment.table import OPS, register_op
    from search_spaces.controls import resolve_policy
    from search_spaces.errors import InputError
    from search_spaces.policy import OpChoice, Policy, SubPolicy
    from search_spaces.readers.read import read_policy
    from search_spaces.schedule import PolicySchedule

__all__ = [
    "OPS",
    "AugOp",
    "InputError",
    "OpChoice",
    "Policy",
    "PolicyDraw",
    "PolicySchedule",
    "SubPolicy",
    "apply_draw",
    "apply_policy",
    "draw_matrix",
    "draw_policy",
    "read_policy",
    "register_op",
    "resolve_policy",
]


_PLACES = {
    "PolicyDraw": "search_spaces.augment.apply",
    "apply_draw": "search_spaces.augment.apply",
    "apply_policy": "search_spaces.augment.apply",
    "draw_matrix": "search_spaces.augment.apply",
    "draw_policy": "search_spaces.augment.apply",
    "AugOp": "search_spaces.augment.op",
    "OPS": "search_spaces.augment.table",
    "register_op": "search_spaces.augment.table",
    "resolve_policy": "search_spaces.controls",
    "InputError": "search_spaces.errors",
    "OpChoice": "search_spaces.policy",
    "Policy": "search_spaces.policy",
    "SubPolicy": "search_spaces.policy",
    "read_policy": "search_spaces.readers.read",
    "PolicySchedule": "search_spaces.schedule",
}

__getattr__, __dir__ = names_on_demand(__name__, _PLACES)
