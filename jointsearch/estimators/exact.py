"""Exact sums over all N * 2^K outcomes of a draw: the reference for every estimator."""

import itertools

import torch
from torch import Tensor

from jointsearch.estimators.draw import PolicyLogits
from jointsearch.estimators.sample import log_probability_of_acts


def outcomes(stages: int) -> Tensor:
    """(2^K, K) all patterns of bits in counting order; the last bit changes fastest."""
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=stages)))


def log_probabilities(logits: PolicyLogits) -> Tensor:
    """(N, 2^K) the log probability of every outcome; the exponentials sum to 1."""
    sub_policies, stages = logits.act.shape
    bits = outcomes(stages).to(logits.act).expand(sub_policies, -1, -1)  # (N, 2^K, K)
    of_bits = log_probability_of_acts(logits.act[:, None], bits).sum(-1)  # (N, 2^K)
    return logits.sub_policy.log_softmax(0)[:, None] + of_bits


def expected_reward(logits: PolicyLogits, table: Tensor) -> Tensor:
    """The expectation of an (N, 2^K) table of rewards, a scalar that is differentiable in the logits."""
    return (log_probabilities(logits).exp() * table).sum()
