"""Expands layered policies into sub-policies: a sequence of stages, each drawing an option, makes many sequences."""

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from search_spaces.policy import OpChoice, Policy, SubPolicy

# The options of one stage as (probability, ops). An option without ops leaves the image unchanged.
Stage = tuple[tuple[float, tuple[OpChoice, ...]], ...]

MAX_SUB_POLICIES = 1_000
# A policy file may have 1 MB, and an op in it takes up to 66 characters.
MAX_OPS = 14_000
SEED = 0


@dataclass(frozen=True)
class Branch:
    """A sequence of stages, and its relative probability."""

    weight: float
    stages: tuple[Stage, ...]


def listed(branches: Sequence[Branch], name: str) -> tuple[Policy, tuple[str, ...]]:
    """All sequences with their weights if they are few; otherwise a sample, and a line that reports the sampling."""
    branches = [Branch(branch.weight, tuple(map(_merged, branch.stages))) for branch in branches if branch.weight > 0]
    count = sum(math.prod(map(len, branch.stages)) for branch in branches)
    if count <= MAX_SUB_POLICIES:
        return _policy(_every(branches), name), ()
    longest = max(sum(max(len(ops) for _, ops in stage) for stage in branch.stages) for branch in branches)
    rows = min(MAX_SUB_POLICIES, MAX_OPS // longest)
    noise = torch.Generator().manual_seed(SEED)
    shares = _spread(torch.tensor([branch.weight for branch in branches]), rows, noise).bincount().tolist()
    found: Counter[tuple[OpChoice, ...]] = Counter()
    for branch, share in zip(branches, shares, strict=False):
        found.update(_sampled(branch.stages, share, noise))
    line = (
        f"{count:.2g} sequences of ops: {rows:,} of them were drawn (seed {SEED}); every op of a stage keeps its "
        f"probability to within one in {min(share for share in shares if share):,}"
    )
    return _policy(found, name), (line,)


def _merged(stage: Stage) -> Stage:
    weights: dict[tuple[OpChoice, ...], float] = {}
    for weight, ops in stage:
        if weight > 0:
            weights[ops] = weights.get(ops, 0.0) + weight
    total = sum(weights.values())
    return tuple((weight / total, ops) for ops, weight in weights.items())


def _every(branches: Sequence[Branch]) -> dict[tuple[OpChoice, ...], float]:
    weights: dict[tuple[OpChoice, ...], float] = {}
    for branch in branches:
        for options in itertools.product(*branch.stages):
            ops = tuple(op for _, chosen in options for op in chosen)
            weight = branch.weight * math.prod(weight for weight, _ in options)
            weights[ops] = weights.get(ops, 0.0) + weight
    return weights


def _sampled(stages: tuple[Stage, ...], rows: int, noise: torch.Generator) -> list[tuple[OpChoice, ...]]:
    """A Latin hypercube sample: options occur in proportion to their probability, stages are shuffled independently."""
    if not rows or not stages:
        return [()] * rows
    columns = []
    for stage in stages:
        chosen = _spread(torch.tensor([weight for weight, _ in stage]), rows, noise)  # (rows,)
        columns.append([stage[k][1] for k in chosen[torch.randperm(rows, generator=noise)].tolist()])
    return [tuple(itertools.chain(*row)) for row in zip(*columns, strict=True)]


def _spread(weights: Tensor, rows: int, noise: torch.Generator) -> Tensor:
    """`rows` draws at even distances along the cumulative weights: unbiased, and each count exact to within one."""
    running = weights.double().cumsum(0)
    points = (torch.arange(rows) + torch.rand((), generator=noise, dtype=torch.float64)) / rows * running[-1]
    return torch.searchsorted(running, points, right=True).clamp(max=len(weights) - 1)


def _policy(weights: Mapping[tuple[OpChoice, ...], float], name: str) -> Policy:
    return Policy(tuple(SubPolicy(ops, float(weight)) for ops, weight in weights.items()), name)
