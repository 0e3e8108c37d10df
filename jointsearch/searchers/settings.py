"""What a search by gradients can be told, and which combinations make no sense."""

from dataclasses import dataclass, field
from typing import TypeAlias

from jointsearch.estimators.gumbel import Gumbel
from jointsearch.estimators.reinforce import Reinforce
from jointsearch.estimators.relax import Relax
from jointsearch.settings import bounded, changed, check_fields, choice, refuse_unread
from search_spaces.errors import InputError
from search_spaces.policy import Policy
from search_spaces.spaces import PAIRINGS, starting_policy

AnyEstimator: TypeAlias = Reinforce | Relax | Gumbel


def check_betas(group: str, betas: tuple[float, ...], usual: str) -> None:
    """Refuse what Adam does not take."""
    if len(betas) != 2:
        raise InputError(f"{group}.betas is {list(betas)}; Adam needs two numbers, as in {group}.betas={usual}")


@dataclass(frozen=True)
class SpaceSettings:
    """Which sub-policies may be chosen, and the numbers they start with."""

    start: str = "pairs"  # pairs, a control, or a policy file
    ops: tuple[str, ...] | None = None  # null takes DADA's fifteen, or the start's own
    pairing: str = choice("unordered", *PAIRINGS)
    probability: float = bounded(0.5, 0.0, 1.0)
    magnitude: float = bounded(0.5, 0.0, 1.0)
    share: str = choice("none", "none", "ops")  # ops: one logit for each op of each stage
    keep: float = bounded(0.0, 0.0, 0.99)  # share of the draws that stays with the start
    learn_probability: bool = True
    # false where the levels of an op are choices of their own. Those that learn begin between .01 and .99.
    learn_magnitude: bool = True
    steepness: float = bounded(1.0, 0.01, 100.0)  # how much faster probabilities and magnitudes move; 4: as if direct
    top: int | None = bounded(25, 1, 10_000)  # sub-policies of the finished policy; null keeps all
    weighted: bool = False  # in proportion to what was learned, or all equally likely

    def __post_init__(self) -> None:
        check_fields(self)
        if self.start != "pairs":
            unread = changed(self, "policy_space", ("pairing", "probability", "magnitude"))
            reason = f"policy_space.start={self.start} has its own sub-policies"
            refuse_unread(unread, reason, "leave it out, or use policy_space=pairs")
        if not (self.learn_probability or self.learn_magnitude):
            unread = changed(self, "policy_space", ("steepness",))
            refuse_unread(unread, "neither probabilities nor magnitudes are learned", "leave it out")
        self.check_top()

    def check_top(self) -> None:
        """Refuse to keep more sub-policies than there are, and to choose among those that cannot differ."""
        named = bool(changed(self, "policy_space", ("top",)))  # where it is not, a small space is kept whole
        if self.top is None or not (named or self.share == "ops"):
            return
        ops = [tuple(choice.op for choice in one.ops) for one in self.policy().sub_policies]
        if named and self.top > len(ops):
            raise InputError(
                f"policy_space.top={self.top} is more than the {len(ops)} sub-policies there are; use "
                "policy_space.top=null to keep all"
            )
        if self.share == "ops" and len(set(ops)) < len(ops):
            raise InputError(
                f"policy_space.top={self.top} keeps the likeliest sub-policies, and policy_space.share=ops makes those "
                "of the same ops equally likely; use policy_space.top=null or policy_space.share=none"
            )

    def policy(self) -> Policy:
        """The starting policy."""
        return starting_policy(self.start, self.ops, self.pairing, self.probability, self.magnitude)


@dataclass(frozen=True)
class EstimatorSettings:
    """How the reward of a draw reaches the logits."""

    name: str = choice("reinforce", "reinforce", "relax", "gumbel")
    # hierarchical: only what the drawn sub-policy holds is drawn and scored. joint: everything, as in the paper.
    scoring: str = choice("hierarchical", "hierarchical", "joint")
    baseline: str = choice("leave_one_out", "leave_one_out", "ema", "none")  # of reinforce
    temperature: float = bounded(0.5, 1e-3, 100.0)  # of relax and gumbel
    draws: str = choice("image", "image", "batch")  # one draw for each image, or one for all of a batch

    def __post_init__(self) -> None:
        check_fields(self)
        if self.name == "reinforce" and self.baseline == "leave_one_out" and self.draws == "batch":
            raise InputError(
                "estimator.baseline=leave_one_out compares a draw with the others of its batch, and "
                "estimator.draws=batch makes only one; use estimator.baseline=ema or estimator.draws=image"
            )
        if self.name == "gumbel" and self.scoring == "hierarchical":
            raise InputError(
                "estimator=gumbel weighs the images of all sub-policies and so draws the ops of all of them; use "
                "estimator.scoring=joint"
            )
        unread, other = ("temperature", "relax") if self.name == "reinforce" else ("baseline", "reinforce")
        reason, remedy = f"estimator={self.name} has no {unread}", f"leave it out, or use estimator={other}"
        refuse_unread(changed(self, "estimator", (unread,)), reason, remedy)

    def build(self, sub_policies: int, stages: int) -> AnyEstimator:
        """The estimator for a space of this size; draws its first weights from the global generator."""
        if self.name == "relax":
            return Relax(sub_policies, stages, self.scoring, self.temperature)
        if self.name == "gumbel":
            return Gumbel(self.temperature, hard=True, scoring=self.scoring)
        return Reinforce(self.baseline, self.scoring)


@dataclass(frozen=True)
class GradientSettings:
    """How rewards are measured and what is made of them. The defaults are ours."""

    name: str = choice("differentiable", "differentiable")
    learning_rate: float = bounded(0.02, 1e-8, 10.0)
    betas: tuple[float, ...] = bounded((0.5, 0.999), 0.0, 0.999999)
    through_step: str = choice("finite_difference", "finite_difference", "jvp", "none")
    # pathwise: through the op. ones: every pixel counts as moving by the magnitude's change (DADA, Eq. 10).
    magnitude_gradient: str = choice("pathwise", "pathwise", "ones", "none")
    # difference: the estimator sees the reward. sides: it sees the losses at w+ and w-, and cancels (as published).
    estimate_on: str = choice("difference", "difference", "sides")
    rewards: str = choice("real", "real", "shuffled")  # shuffled among the images of a batch: the control
    reward_scale: str = choice("none", "none", "loss", "rank")
    draws_per_validation: int = bounded(1, 1, 1000)
    validation_batches: int = bounded(1, 1, 1000)
    first_validation_batch_only: bool = False  # as DADA's released code does
    from_epoch: int = bounded(0, 0, 100_000)  # epochs under the starting policy before anything is learned
    entropy_bonus: float = bounded(0.0, 0.0, 1000.0)  # on the entropy relative to the start

    def __post_init__(self) -> None:
        check_fields(self)
        check_betas("searcher", self.betas, "[0.5,0.999]")
        if self.through_step == "jvp" and self.estimate_on == "sides":
            raise InputError(
                "searcher.estimate_on=sides needs the losses on both sides of a finite difference; use "
                "searcher.through_step=finite_difference or searcher.estimate_on=difference"
            )
        if self.through_step == "jvp" and self.reward_scale == "loss":
            raise InputError(
                "searcher.reward_scale=loss takes the losses from a finite difference; use "
                "searcher.through_step=finite_difference or searcher.reward_scale=rank"
            )
        if self.estimate_on == "sides" and self.changes_rewards:
            raise InputError(
                "searcher.estimate_on=sides has no reward to scale or shuffle; use searcher.reward_scale=none and "
                "searcher.rewards=real (its control is searcher=random), or searcher.estimate_on=difference"
            )

    @property
    def changes_rewards(self) -> bool:
        """Whether the estimator is given something else than the rewards themselves."""
        return self.reward_scale != "none" or self.rewards == "shuffled"


@dataclass(frozen=True)
class ArchitectureSettings:
    """How the architecture weights of a supernet learn. The defaults are those of DARTS, first order."""

    learning_rate: float = bounded(3e-4, 1e-8, 10.0)  # with Adam
    betas: tuple[float, ...] = bounded((0.5, 0.999), 0.0, 0.999999)
    weight_decay: float = bounded(1e-3, 0.0, 1.0)
    order: str = choice("first", "first", "second")  # second: also through the training step
    from_epoch: int = bounded(0, 0, 100_000)  # epochs of the weights alone before anything is learned
    beta_decay: float = bounded(0.0, 0.0, 10_000.0)  # weight of the penalty at the end; it rises from 0
    most_skips: int | None = bounded(None, 0, 1000)  # of the normal cell; null allows any number
    hessian_monitor: bool = False  # the largest eigenvalue of the validation loss in the architecture, every epoch

    def __post_init__(self) -> None:
        check_fields(self)
        check_betas("architecture", self.betas, "[0.5,0.999]")


@dataclass(frozen=True)
class DifferentiableSearch:
    """A search by gradients: of what, in which space, how it is estimated and how rewarded."""

    searcher: GradientSettings = field(default_factory=GradientSettings)
    policy_space: SpaceSettings = field(default_factory=SpaceSettings)
    estimator: EstimatorSettings = field(default_factory=EstimatorSettings)
    architecture: ArchitectureSettings = field(default_factory=ArchitectureSettings)
    search: str = choice("policy", "policy", "architecture", "joint")  # architecture: the policy stays as it starts

    def __post_init__(self) -> None:
        check_fields(self)
        self.check_policy_has_a_gradient()
        self.check_rewards()
        self.check_magnitudes()

    def check_policy_has_a_gradient(self) -> None:
        """Refuse a policy that would silently stay as it is, and cells without the losses that they need."""
        if self.searcher.through_step == "none" and self.search != "architecture":
            raise InputError(
                "searcher.through_step=none leaves the policy without a gradient: validation images are not augmented, "
                "so the validation loss reaches the policy only through the trained weights; use "
                "searcher.through_step=finite_difference or jvp, or search=architecture to search cells only"
            )
        if self.architecture.order == "second" and self.searcher.through_step != "finite_difference":
            raise InputError(
                f"architecture.order=second takes the losses of a finite difference, and searcher.through_step is "
                f"{self.searcher.through_step}; use searcher.through_step=finite_difference or architecture.order=first"
            )
        if self.search == "architecture" and self.searcher.rewards == "shuffled":
            raise InputError(
                "searcher.rewards=shuffled is a control of policies, and search=architecture leaves the policy as it "
                "is; the control of cells is a random genotype, as in controls=[trivialaugment@random]"
            )
        if self.architecture.order == "second" and self.searcher.rewards == "shuffled":
            raise InputError(
                "architecture.order=second learns from the same rewards that searcher.rewards=shuffled deals to other "
                "images; use architecture.order=first in the control"
            )

    def check_rewards(self) -> None:
        """Refuse rewards that the estimator cannot use."""
        if self.searcher.changes_rewards and self.estimator.name == "gumbel":
            raise InputError(
                "estimator=gumbel differentiates through the images and sees no reward to scale or shuffle; use "
                "estimator=reinforce, or searcher.reward_scale=none and searcher.rewards=real (its control is "
                "searcher=random)"
            )
        if self.searcher.estimate_on == "sides" and self.estimator.name == "gumbel":
            raise InputError(
                "estimator=gumbel differentiates through the images and estimates nothing on two sides; "
                "use searcher.estimate_on=difference, or estimator=relax"
            )
        if self.searcher.estimate_on == "sides" and (self.estimator.name, self.estimator.baseline) == (
            "reinforce",
            "ema",
        ):
            raise InputError(
                "estimator.baseline=ema is the same number on both sides of searcher.estimate_on=sides and cancels; "
                "use searcher.estimate_on=difference, or estimator.baseline=none"
            )
        if self.searcher.changes_rewards and self.estimator.draws == "batch":
            raise InputError(
                "estimator.draws=batch has one reward for a batch, and there is nothing to shuffle or rank; use "
                "estimator.draws=image, or searcher.reward_scale=none and searcher.rewards=real"
            )

    def check_something_is_learned(self) -> None:
        """Refuse a policy that nothing can change, at the full cost of changing it."""
        if self.search == "architecture":
            return
        likely = [sub_policy for sub_policy in self.policy_space.policy().sub_policies if sub_policy.weight]
        choices = [choice for sub_policy in likely for choice in sub_policy.ops]
        probability = self.policy_space.learn_probability and any(0 < choice.probability < 1 for choice in choices)
        magnitude = self.learns_magnitude and any(choice.magnitude is not None for choice in choices)
        if len(likely) < 2 and not probability and not magnitude:
            raise InputError(
                f"policy_space.start={self.policy_space.start} has one sub-policy, and nothing in it that "
                "learns: the policy would stay as it is; use policy_space.start=trivialaugment or pairs, or "
                "search=architecture"
            )

    @property
    def learns_from(self) -> int:
        """The first epoch in which all that is searched learns."""
        policy = 0 if self.search == "architecture" else self.searcher.from_epoch
        return max(policy, 0 if self.search == "policy" else self.architecture.from_epoch)

    @property
    def learns_probability(self) -> bool:
        """Whether probabilities move."""
        return self.search != "architecture" and self.policy_space.learn_probability

    @property
    def learns_magnitude(self) -> bool:
        """Whether magnitudes move: the space lets them and the searcher has a gradient for them."""
        lets = self.search != "architecture" and self.policy_space.learn_magnitude
        return lets and self.searcher.magnitude_gradient != "none"

    def check_magnitudes(self) -> None:
        """Refuse a gradient of magnitudes that stay, and those that learn at the end of their range."""
        if self.searcher.magnitude_gradient == "ones" and not self.policy_space.learn_magnitude:
            reason, remedy = "policy_space.learn_magnitude is false", "leave it out, or set that to true"
            refuse_unread(["searcher.magnitude_gradient=ones"], reason, remedy)
        if not self.learns_magnitude or self.policy_space.start != "pairs":
            return
        if not 0 < self.policy_space.magnitude < 1:
            raise InputError(
                f"policy_space.magnitude={self.policy_space.magnitude:g} is where a magnitude that learns never gets, "
                "as its logit would be infinite; start between .01 and .99, or use searcher.magnitude_gradient=none"
            )
