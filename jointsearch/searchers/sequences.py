"""Generators of sequences of transformation functions, and the REINFORCE gradient by which they learn.

A transformation function is an op at a fixed magnitude. K functions are numbered from 0; a sequence has L of them.
"""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jointsearch.searchers.controller import Controller
from search_spaces.augment.table import OPS
from search_spaces.policy import OpChoice, Policy, SubPolicy

DRAWN = 100  # sequences in the policy of an LSTM


class MeanField(nn.Module):
    """Every place of a sequence is drawn from the same categorical distribution. It begins uniform."""

    def __init__(self, functions: int, length: int, noise: torch.Generator) -> None:
        super().__init__()
        self.length = length
        self.logits = nn.Parameter(torch.zeros(functions))

    def forward(self, given: Tensor | None, count: int, noise: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Functions (B, L) as given, or drawn for `count` sequences; log-probabilities (B, L, K) at every place."""
        spread = self.logits.log_softmax(0)
        if given is None:
            drawn = torch.multinomial(spread.detach().exp(), count * self.length, replacement=True, generator=noise)
            given = drawn.view(count, self.length)
        return given, spread.expand(count, self.length, -1)

    def policy(self, functions: Sequence[OpChoice], seed: int) -> Policy:
        """Every function with its probability, drawn L times for an image."""
        with torch.no_grad():
            shares = self.logits.double().softmax(0).tolist()
        rows = (SubPolicy((one,), round(share, 8)) for one, share in zip(functions, shares, strict=True))
        return Policy(tuple(rows), name="found", draws=self.length)


class SequenceModel(Controller):
    """AutoAugment's LSTM, which is given the last function and draws the next one. It begins uniform."""

    def __init__(self, functions: int, length: int, noise: torch.Generator) -> None:
        super().__init__((functions,), length, noise)
        with torch.no_grad():
            for parameter in self.heads.parameters():
                parameter.zero_()

    def forward(
        self, given: Tensor | None, count: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Functions (B, L) as given, or drawn for `count` sequences; log-probabilities (B, L, K) at every place."""
        taken, spreads = zip(*self.decided(given, count, generator), strict=True)
        return torch.cat(taken, 1), torch.stack(spreads, 1)

    def policy(self, functions: Sequence[OpChoice], seed: int) -> Policy:
        """A hundred sequences drawn by the seed; one that is drawn several times weighs so much more."""
        drawn, _ = sample(self, seed)
        counts = Counter(map(tuple, drawn.tolist()))
        rows = (SubPolicy(tuple(functions[n] for n in row), float(count)) for row, count in counts.items())
        return Policy(tuple(rows), name="found")


@torch.no_grad()
def sample(generator: MeanField | SequenceModel, seed: int) -> tuple[Tensor, Tensor]:
    """A hundred sequences (100, L) and their log-probabilities (100, L, K), the same for the same seed and weights."""
    return generator(None, DRAWN, torch.Generator().manual_seed(seed))


def functions_of(ops: Sequence[str], magnitudes: Sequence[float]) -> tuple[OpChoice, ...]:
    """Every op at every magnitude, or once where it has none."""
    return tuple(
        OpChoice(op, 1.0, magnitude) for op in ops for magnitude in (magnitudes if OPS[op].has_magnitude else (None,))
    )


def future(rewards: Tensor, discount: float) -> Tensor:
    """Of the rewards (B, L) of each step, what follows from a step: its own, and later ones, discounted by distance."""
    total = torch.zeros_like(rewards[:, 0])
    found = []
    for reward in rewards.flip(1).unbind(1):
        total = reward + discount * total
        found.append(total)
    return torch.stack(found[::-1], 1)


def policy_loss(logs: Tensor, rewards: Tensor, discount: float) -> Tensor:
    """A number whose gradient is that of REINFORCE: log-probabilities (B, L) of what was drawn, and rewards (B, L).

    The baseline of a step is the mean of the other sequences at that step. It does not depend on what is drawn, so the
    gradient stays unbiased; with a mean that counts the sequence itself it would shrink to (B - 1) / B of it.
    """
    ahead, count = future(rewards, discount), len(rewards)
    baseline = (ahead.sum(0) - ahead) / max(count - 1, 1)
    return -(logs * (ahead - baseline)).sum(1).mean()
