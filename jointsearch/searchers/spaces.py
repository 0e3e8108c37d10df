"""Which policies a search may choose from, and the numbers they start with."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

from jointsearch.settings import bounded, check_fields, choice, setting
from jointsearch.soft.stages import FASTER_AA_OPS
from search_spaces.augment.table import OPS, check_op_names
from search_spaces.controls import resolve_policy
from search_spaces.errors import InputError
from search_spaces.levels import with_levels
from search_spaces.policy import MAX_STAGES, OpChoice, Policy, SubPolicy
from search_spaces.spaces import DADA_OPS, PAIRINGS, pairs

SHARES = ("none", "ops")


class PolicySpace(Protocol):
    """A space that a policy with logits can be made of."""

    @property
    def share(self) -> str:
        """What shares a logit: "none", every sub-policy has its own; or "ops", all with the same op of a stage."""

    @property
    def top(self) -> int | None:
        """So many sub-policies in the finished policy; None keeps all, weighted."""

    @property
    def learn_magnitude(self) -> bool:
        """Whether magnitudes may move."""

    def policy(self) -> Policy:
        """The starting policy: every sub-policy that may be chosen, with its first numbers."""


@dataclass(frozen=True)
class Pairs:
    """DADA's space: pairs of ops, each with a probability and a magnitude that are learned."""

    learn_magnitude: ClassVar[bool] = True

    ops: tuple[str, ...] | None = setting(None, help="ops to choose from; null for DADA's fifteen")
    pairing: str = choice("unordered", *PAIRINGS, help="105, 120, 210 or 225 pairs of fifteen ops")
    share: str = choice(
        "none", *SHARES, help="none: a logit for each pair; ops: one for each op of a stage, and a pair adds its two"
    )
    top: int | None = bounded(
        25, 1, 10_000, help="number of sub-policies that are kept, equally likely; null keeps all, weighted"
    )

    def __post_init__(self) -> None:
        check_fields(self)
        check_top(self, changed=self.top != type(self).top)

    def policy(self) -> Policy:
        """The starting policy."""
        return pairs(DADA_OPS if self.ops is None else self.ops, self.pairing)


@dataclass(frozen=True)
class Start:
    """A policy whose sub-policies are the choices: of TrivialAugment single ops, their ranges as 31 levels."""

    start: str = setting("trivialaugment", help="a control, as randaugment-n2-m9, or a policy file")
    ops: tuple[str, ...] | None = setting(None, help="ops to choose from; null for those of the start")
    learn_magnitude: bool = setting(False, help="whether magnitudes move; false chooses among the levels of the start")
    share: str = choice(
        "ops", *SHARES, help="ops: one logit for each op, whose levels stay equally likely; none: one for each level"
    )
    top: int | None = bounded(
        None, 1, 10_000, help="number of sub-policies that are kept, equally likely; null keeps all, weighted"
    )

    def __post_init__(self) -> None:
        check_fields(self)
        check_top(self, changed=self.top is not None)

    def policy(self) -> Policy:
        """The starting policy."""
        return one_policy(self.start, self.ops)


@dataclass(frozen=True)
class Measured:
    """The policy that the weights are trained under, and the ops that are measured one by one."""

    start: str = setting("trivialaugment", help="policy of the training images: a control, or a policy file")
    ops: tuple[str, ...] | None = setting(None, help="ops that are measured; null for those of the start")

    def __post_init__(self) -> None:
        check_fields(self)

    def policy(self) -> Policy:
        """The starting policy."""
        return one_policy(self.start, self.ops)


@dataclass(frozen=True)
class Stages:
    """Faster AutoAugment's space: L sub-policies of K stages; any op may come at any stage. It starts at random."""

    ops: tuple[str, ...] | None = setting(None, help="ops to choose from; null for the sixteen of the paper")
    sub_policies: int = bounded(10, 1, 1000, help="number of sub-policies, all equally likely")
    stages: int = bounded(2, 1, MAX_STAGES, help="ops of a sub-policy, one after the other")

    def __post_init__(self) -> None:
        check_fields(self)
        if self.stages > (count := len(self.names())):
            raise InputError(
                f"policy_space.stages={self.stages} is more than the {count} ops to choose from, so that some would "
                "have to act twice; lower it, or name more policy_space.ops"
            )

    def names(self) -> tuple[str, ...]:
        """The ops to choose from."""
        return FASTER_AA_OPS if self.ops is None else check_op_names(self.ops, "policy_space.ops")

    def policy(self) -> Policy:
        """What a stage does on average over all random starts: any op, at probability and magnitude .5."""
        choices = (OpChoice(name, 0.5, 0.5 if OPS[name].has_magnitude else None) for name in self.names())
        return Policy(tuple(SubPolicy((one,)) for one in choices), name="a stage's average beginning")


def one_policy(start: str, ops: tuple[str, ...] | None) -> Policy:
    """A control or a policy file, but no schedule; ranges of magnitudes as levels, of which a search can choose."""
    policy = resolve_policy(start, ops)
    if not isinstance(policy, Policy):
        raise InputError(f"policy_space.start={start} is a schedule; a search starts from one policy, name one")
    if policy.draws > 1:
        raise InputError(
            f"policy_space.start={start} draws {policy.draws} times for an image, and a search learns from one draw; "
            "name a policy that draws once"
        )
    return with_levels(policy)


def check_top(space: PolicySpace, changed: bool) -> None:
    """Refuse to keep more sub-policies than there are, and to choose among those that cannot differ."""
    if space.top is None or not (changed or space.share == "ops"):
        return
    ops = [tuple(one.op for one in sub_policy.ops) for sub_policy in space.policy().sub_policies]
    if changed and space.top > len(ops):
        raise InputError(
            f"policy_space.top={space.top} is more than the {len(ops)} sub-policies there are; use "
            "policy_space.top=null to keep all"
        )
    if space.share == "ops" and len(set(ops)) < len(ops):
        raise InputError(
            f"policy_space.top={space.top} keeps the likeliest sub-policies, and policy_space.share=ops makes those "
            "of the same ops equally likely; use policy_space.top=null or policy_space.share=none"
        )
