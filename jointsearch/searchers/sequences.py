"""Generators of sequences of transformation functions, and the REINFORCE gradient by which they learn.

A transformation function is an op at a fixed magnitude. K functions are numbered from 0; a sequence has L of them.
"""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from search_spaces.augment.table import OPS
from search_spaces.policy import OpChoice, Policy, SubPolicy

HIDDEN, EMBEDDING = 100, 32  # as AutoAugment's controller has them
SPREAD = 0.1  # first weights are uniform within it
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


class SequenceModel(nn.Module):
    """An LSTM that is given the last function draws the next one. It begins uniform."""

    def __init__(self, functions: int, length: int, noise: torch.Generator) -> None:
        super().__init__()
        self.length = length
        self.embedding = nn.Embedding(functions, EMBEDDING)
        self.cell = nn.LSTMCell(EMBEDDING, HIDDEN)
        self.first = nn.Parameter(torch.empty(EMBEDDING))
        self.head = nn.Linear(HIDDEN, functions)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-SPREAD, SPREAD, generator=noise)
            for parameter in self.head.parameters():
                parameter.zero_()

    def forward(self, given: Tensor | None, count: int, noise: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Functions (B, L) as given, or drawn for `count` sequences; log-probabilities (B, L, K) at every place."""
        inputs = self.first.expand(count, -1)
        state: tuple[Tensor, Tensor] | None = None
        taken, spreads = [], []
        for place in range(self.length):
            state = self.cell(inputs, state)
            spread = self.head(state[0]).log_softmax(1)  # (B, K)
            if given is None:
                one = torch.multinomial(spread.detach().exp(), 1, generator=noise).squeeze(1)
            else:
                one = given[:, place]
            taken.append(one)
            spreads.append(spread)
            inputs = self.embedding(one)
        return torch.stack(taken, 1), torch.stack(spreads, 1)

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
