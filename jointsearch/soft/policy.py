"""A soft policy: sub-policy logits, probabilities and magnitudes that gradients can train."""

import torch
from torch import Tensor, nn

from jointsearch.estimators.draw import PolicyLogits
from search_spaces.augment.apply import PolicyDraw, draw_of
from search_spaces.augment.table import OPS, op_tables
from search_spaces.errors import InputError
from search_spaces.policy import OpChoice, Policy, SubPolicy

# The noise of a draw stays inside (1e-6, 1 - 1e-6), so that an op of logit 20 always acts and one of -20 never.
ALWAYS = 20.0
# Learned probabilities and magnitudes start this far from 0 and 1, where their logits would not move.
SMALLEST_SHARE = 0.01
FINEST = 4  # decimals of an exported number


class SoftPolicy(nn.Module):
    """The trainable form of a starting policy: N sub-policies of K stages. It stays on the CPU, where draws are made.

    With `share` "none" each sub-policy has its own logit. With "ops" each op of each stage has one, and a sub-policy's
    logit is the sum over its ops. `start_share` is the fixed share of draws from the starting policy. Probabilities and
    magnitudes are sigmoid(steepness * parameter); with steepness 4 the slope at one half is 1.
    """

    op: Tensor  # (N, K) place in OPS, -1 for none
    start_logits: Tensor  # (N,)
    start_probability: Tensor  # (N, K)
    start_magnitude: Tensor  # (N, K)
    visits: Tensor  # (N,) rewarded draws of each sub-policy so far

    def __init__(
        self,
        start: Policy,
        learn_probability: bool = True,
        learn_magnitude: bool = True,
        share: str = "none",
        start_share: float = 0.0,
        steepness: float = 1.0,
    ) -> None:
        super().__init__()
        if start.tables.has_ranges or start.draws > 1:
            raise InputError(
                "a policy with ranges of magnitudes or several draws has no numbers that gradients could move; take "
                "search_spaces.levels.with_levels(policy) of a policy with one draw"
            )
        # A sub-policy of weight 0 is not in the space: log 0 cannot be trained, and the hard policy must not hold it.
        start = Policy(tuple(one for one in start.sub_policies if one.weight), name=start.name)
        tables = start.tables
        self.start, self.start_share, self.steepness = start, start_share, steepness
        self.learn_probability, self.learn_magnitude = learn_probability, learn_magnitude
        shares = tables.cumulative.diff(prepend=torch.zeros(1, dtype=torch.float64)).clamp(min=1e-12)
        self.register_buffer("op", tables.op)
        self.register_buffer("start_logits", shares.log().float())
        self.register_buffer("start_probability", tables.probability)
        self.register_buffer("start_magnitude", tables.magnitude)
        self.register_buffer("visits", torch.zeros(len(shares), dtype=torch.int64))
        sizes = {"none": (len(shares),), "ops": (tables.op.shape[1], len(OPS) + 1)}
        self.preference = nn.Parameter(torch.zeros(sizes[share]))  # added to start_logits
        self.probability_logits = nn.Parameter(_logit(tables.probability) / steepness)
        self.magnitude_logits = nn.Parameter(_logit(tables.magnitude) / steepness)

    @property
    def stages(self) -> int:
        """The number of ops of the longest sub-policy, K."""
        return self.op.shape[1]

    def log_shares(self) -> Tensor:
        """The log probability of each sub-policy, (N,)."""
        preference = self.preference if self.preference.dim() == 1 else self._preference_by_ops()
        learned = (self.start_logits + preference).log_softmax(0)
        if not self.start_share:
            return learned
        kept = self.start_logits + torch.tensor(self.start_share).log()
        return torch.logaddexp(learned + torch.tensor(1 - self.start_share).log(), kept)

    def _preference_by_ops(self) -> Tensor:
        return self.preference[torch.arange(self.stages), self.op].sum(1)  # (N,): the last column serves op -1

    def logits(self) -> PolicyLogits:
        """The logits that the estimators draw from and score."""
        fixed = torch.where(self.start_probability > 0, ALWAYS, -ALWAYS)
        learns = (self.start_probability > 0) & (self.start_probability < 1) & (self.op >= 0)
        if not self.learn_probability:
            return PolicyLogits(self.log_shares(), torch.where(learns, self.start_probability.logit(), fixed))
        return PolicyLogits(self.log_shares(), torch.where(learns, self.steepness * self.probability_logits, fixed))

    def magnitudes(self) -> Tensor:
        """The magnitude of every op, (N, K)."""
        if not self.learn_magnitude:
            return self.start_magnitude
        return torch.where(op_tables().has_magnitude[self.op], (self.steepness * self.magnitude_logits).sigmoid(), 0.0)

    def draw(self, sub_policy: Tensor, acts: Tensor, noise: torch.Generator) -> PolicyDraw:
        """The draw of images with these sub-policies (B,) and acting ops (B, K), differentiable in the magnitudes."""
        op = torch.where(acts > 0, self.op[sub_policy], -1)
        uniform = torch.rand(4 * self.stages, len(sub_policy), generator=noise)
        return draw_of(sub_policy, op, self.magnitudes()[sub_policy], uniform)

    def entropy(self) -> Tensor:
        """The entropy of the sub-policies' shares; its exponential is the effective number of sub-policies."""
        log_shares = self.log_shares()
        return -(log_shares.exp() * log_shares).sum()

    def divergence(self) -> Tensor:
        """The Kullback-Leibler divergence of the shares from those of the starting policy."""
        log_shares = self.log_shares()
        return (log_shares.exp() * (log_shares - self.start_logits.log_softmax(0))).sum()

    @torch.no_grad()
    def idle_share(self) -> Tensor:
        """The share of draws that leave an image unchanged, or nearly unchanged (every magnitude below .05)."""
        logits, magnitudes = self.logits(), self.magnitudes()
        nearly = (self.op < 0) | (op_tables().has_magnitude[self.op] & (magnitudes < 0.05))
        rests = torch.where(nearly, 1.0, 1 - logits.act.sigmoid()).prod(1)  # (N,)
        return (logits.sub_policy.exp() * rests).sum()

    @torch.no_grad()
    def harden(self, top: int | None = 25, weighted: bool = False, name: str = "found") -> Policy:
        """The finished policy: the `top` sub-policies by share, equally likely or weighted by their shares."""
        shares, act, magnitudes = self.log_shares().exp(), self.logits().act.sigmoid(), self.magnitudes()
        order = shares.argsort(descending=True, stable=True)[:top].tolist()
        sub_policies = []
        for n in order:
            stages = range(len(self.start.sub_policies[n].ops))
            ops = tuple(self._choice(n, k, float(act[n, k]), float(magnitudes[n, k])) for k in stages)
            sub_policies.append(SubPolicy(ops, float(shares[n]) if weighted else 1.0))
        return Policy(tuple(sub_policies), name=name)

    def _choice(self, n: int, k: int, probability: float, magnitude: float) -> OpChoice:
        """An op with its learned numbers rounded, and the others as in the starting policy."""
        began = self.start.sub_policies[n].ops[k]
        stays = not self.learn_probability or began.probability in (0, 1)
        probability = began.probability if stays else round(probability, FINEST)
        if began.magnitude is None or not self.learn_magnitude:
            return OpChoice(began.op, probability, began.magnitude)
        return OpChoice(began.op, probability, round(magnitude, FINEST))


def _logit(share: Tensor) -> Tensor:
    return share.clamp(SMALLEST_SHARE, 1 - SMALLEST_SHARE).logit()
