"""Augmentation ops, and policies made of them. Usable without jointsearch: a policy.json is enough."""

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
