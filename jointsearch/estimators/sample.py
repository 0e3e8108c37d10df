"""Draws with their relaxed samples, relaxed samples conditioned on a draw, and log probabilities.

The relaxed samples are those of Gumbel-softmax. The conditional samples are those of RELAX (Grathwohl et al., ICLR
2018): each rounds to the given draw, and over all draws they have the distribution of the unconditional samples.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from jointsearch.estimators.draw import Noise, PolicyLogits, per_draw


class Sample(NamedTuple):
    """D draws with their logits and relaxed values. Under joint scoring they hold the bits of all sub-policies."""

    sub_policy_logits: Tensor  # (D, N)
    act_logits: Tensor  # (D, K) or (D, N, K), of the bits that are drawn
    relaxed_sub_policy: Tensor  # (D, N)
    relaxed_acts: Tensor  # as act_logits
    sub_policy: Tensor  # (D,) int64
    bits: Tensor  # as act_logits, 0 or 1

    @property
    def acts(self) -> Tensor:
        """(D, K): the bits of the drawn sub-policy."""
        return self.bits if self.bits.dim() == 2 else rows(self.bits, self.sub_policy)

    def log_probability_of_sub_policy(self) -> Tensor:
        """(D,): log pi_c."""
        return rows(self.sub_policy_logits.log_softmax(-1), self.sub_policy)

    def log_probability_of_bits(self) -> Tensor:
        """(D,): the sum of the log probabilities of all drawn bits."""
        return log_probability_of_acts(self.act_logits, self.bits).flatten(1).sum(1)


def draw_sample(logits: PolicyLogits, noise: Noise, scoring: str) -> Sample:
    """Draw a sub-policy and its bits (hierarchical), or a sub-policy and the bits of all sub-policies (joint)."""
    logits = per_draw(logits, noise, scoring)
    scores = relaxed_sub_policy(logits.sub_policy, noise.sub_policy)  # (D, N)
    sub_policy = scores.argmax(-1)  # (D,)
    act_logits = logits.act if scoring == "joint" else rows(logits.act, sub_policy)
    act_scores = relaxed_acts(act_logits, noise.act)
    bits = (act_scores > 0).to(act_scores.dtype)
    return Sample(logits.sub_policy, act_logits, scores, act_scores, sub_policy, bits)


def relaxed_sub_policy(logits: Tensor, uniform: Tensor) -> Tensor:
    """(D, N) normalized logits plus Gumbel noise: the largest is the drawn sub-policy."""
    return logits.log_softmax(-1) - torch.log(-torch.log(uniform))


def relaxed_acts(logits: Tensor, uniform: Tensor) -> Tensor:
    """Logits plus logistic noise, same shape: an op acts where it is above 0."""
    return logits + torch.log(uniform) - torch.log1p(-uniform)


def relaxed_sub_policy_given(logits: Tensor, sub_policy: Tensor, uniform: Tensor) -> Tensor:
    """(D, N) a relaxed sample whose largest entry is the given sub-policy's, from noise independent of the draw."""
    # The largest of Gumbels whose probabilities sum to 1 is a standard Gumbel, whichever of them it is.
    largest = -torch.log(-torch.log(uniform.gather(-1, sub_policy[:, None])))  # (D, 1)
    fresh = relaxed_sub_policy(logits, uniform)
    # Each other entry is its own Gumbel, truncated at the largest: -log(-log(v) / p - log(v_c)). This form does not
    # overflow, and its rounding errors never exceed the largest.
    others = largest + logsigmoid(fresh - largest)
    is_given = torch.zeros_like(uniform, dtype=torch.bool).scatter(-1, sub_policy[:, None], True)
    return torch.where(is_given, largest, others)


def relaxed_acts_given(logits: Tensor, bits: Tensor, uniform: Tensor) -> Tensor:
    """A relaxed sample, above 0 exactly where the given bit is 1, same shape, from noise independent of the draw."""
    # logits + logit(v'), where v' is the noise scaled to the side of 1 - beta that gives the bit: v * beta + 1 - beta
    # for a 1, v * (1 - beta) for a 0. Written out, with beta in v' differentiable too, both are one mirrored formula.
    sign = 2 * bits - 1
    mirrored = torch.where(bits > 0, uniform, 1 - uniform)
    return -sign * (logsigmoid(-sign * logits - torch.log(mirrored)) + torch.log1p(-mirrored))


def log_probability_of_acts(logits: Tensor, bits: Tensor) -> Tensor:
    """The log probability of each bit, same shape."""
    return logsigmoid((2 * bits - 1) * logits)


def rows(values: Tensor, sub_policy: Tensor) -> Tensor:
    """Select the values of each draw's sub-policy: (D, N, ...) -> (D, ...)."""
    return values[torch.arange(len(sub_policy), device=values.device), sub_policy]
