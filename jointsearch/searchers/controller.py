"""AutoAugment's search (Cubuk et al., CVPR 2019): a recurrent network writes policies, and learns from their scores.

A policy is five sub-policies of two ops, each with a probability and a magnitude: thirty decisions, one after the
other. The controller is an LSTM that is given its last decision. A child is a whole training under the policy that it
wrote. The controller learns by REINFORCE or PPO, against a moving mean of the scores, with a bonus for entropy. The
five best policies are joined to one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from jointsearch.jobs import Job, JobResult, PopulationContext
from jointsearch.protocols import Found
from jointsearch.settings import bounded, check_fields, choice, setting
from search_spaces.augment.table import DADA_OPS, OPS, check_op_names
from search_spaces.policy import OpChoice, Policy, SubPolicy

AUTOAUGMENT_OPS = (*DADA_OPS, "SamplePairing")
PROBABILITIES, MAGNITUDES = 11, 10
STAGES = 2  # ops of a sub-policy
HIDDEN, EMBEDDING = 100, 32
ENTROPY = 1e-5  # weight of the entropy of the decisions
DECAY = 0.95  # of the moving mean that scores are compared with
SPREAD = 0.1  # first weights are uniform within it
CLIP = 0.2  # of PPO: how far a probability ratio may go
EPOCHS_OF_PPO = 4


@dataclass(frozen=True)
class ControllerSettings:
    """An LSTM writes policies; whole trainings score them."""

    trainings: int = bounded(500, 2, 100_000, help="children, each a whole training; the paper made 15,000")
    at_once: int = bounded(10, 1, 1000, help="children between two updates of the controller")
    folds: int = bounded(5, 2, 100, help="parts of the training images; the first judges")
    ops: tuple[str, ...] = setting(AUTOAUGMENT_OPS, help="ops to choose from")
    sub_policies: int = bounded(5, 1, 100, help="of a child")
    kept: int = bounded(5, 1, 1000, help="children whose policies are joined in the end")
    learn: str = choice("ppo", "ppo", "reinforce", help="how the controller learns from scores")
    learning_rate: float = bounded(3.5e-4, 0.0, 10.0, help="of the controller, with Adam; 0: random search")
    shuffled: bool = setting(False, help="the control: scores are permuted among the children of a round")

    def __post_init__(self) -> None:
        check_fields(self)
        check_op_names(self.ops, "searcher.ops")

    def cost(self, epochs: int) -> tuple[int, float]:
        """Jobs, and whole trainings."""
        return self.trainings, self.trainings

    def population(self, context: PopulationContext) -> "ControllerSearcher":
        """Begin a search."""
        return ControllerSearcher(self, context)


class Controller(nn.Module):
    """An LSTM that makes decisions one after the other, of a few kinds in turn: op, probability, magnitude, and again.

    `kinds` are the choices of a decision of each kind.
    """

    def __init__(self, kinds: Sequence[int], decisions: int, generator: torch.Generator) -> None:
        super().__init__()
        self.kinds, self.length = len(kinds), decisions
        self.embeddings = nn.ModuleList([nn.Embedding(size, EMBEDDING) for size in kinds])
        self.heads = nn.ModuleList([nn.Linear(HIDDEN, size) for size in kinds])
        self.cell = nn.LSTMCell(EMBEDDING, HIDDEN)
        self.first = nn.Parameter(torch.empty(EMBEDDING))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-SPREAD, SPREAD, generator=generator)

    def forward(self, given: Tensor | None, count: int, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """Decisions (B, D) as given, or drawn for `count` children; their log-probabilities and entropies, (B, D)."""
        taken, logs, entropies = [], [], []
        for chosen, spread in self.decided(given, count, generator):
            taken.append(chosen)
            logs.append(spread.gather(1, chosen))
            entropies.append(-(spread.exp() * spread).sum(1, keepdim=True))
        return torch.cat(taken, 1), torch.cat(logs, 1), torch.cat(entropies, 1)

    def decided(
        self, given: Tensor | None, count: int, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One decision (B, 1) after the other, and the log-probabilities of all of its choices, (B, choices)."""
        inputs = self.first.expand(count, -1)
        state: tuple[Tensor, Tensor] | None = None
        for place in range(self.length):
            state = self.cell(inputs, state)
            spread = self.heads[place % self.kinds](state[0]).log_softmax(1)
            if given is None:
                chosen = torch.multinomial(spread.detach().exp(), 1, generator=generator)
            else:
                chosen = given[:, place : place + 1]
            yield chosen, spread
            inputs = self.embeddings[place % self.kinds](chosen.squeeze(1))


class ControllerSearcher:
    """Draws children from the controller, and lets it learn from their scores."""

    def __init__(self, settings: ControllerSettings, context: PopulationContext) -> None:
        self.settings, self.context = settings, context
        self.generator = torch.Generator().manual_seed(context.seed)
        decisions = settings.sub_policies * STAGES * 3
        self.controller = Controller((len(settings.ops), PROBABILITIES, MAGNITUDES), decisions, self.generator)
        self.optimizer = torch.optim.Adam(self.controller.parameters(), settings.learning_rate)
        self.baseline: float | None = None
        self.children = torch.empty(0, decisions, dtype=torch.int64)
        self.scores: list[float] = []

    def ask(self) -> Sequence[Job]:
        """Children of the controller as it is now."""
        count = min(self.settings.at_once, self.settings.trainings - len(self.children))
        if count <= 0:
            return ()
        with torch.no_grad():
            drawn, *_ = self.controller(None, count, self.generator)
        begin = len(self.children)
        self.children = torch.cat([self.children, drawn])
        return [
            Job(f"child{number}", self._policy([number], f"child{number}"), seed=self.context.seed_of(number))
            for number in range(begin, begin + count)
        ]

    def tell(self, job: Job, result: JobResult) -> None:
        """Take in a child; with the last one of a round, learn."""
        self.scores.append(self.context.sign * result.score)
        if len(self.scores) < len(self.children):
            return
        begin = len(self.scores) - ((len(self.scores) - 1) % self.settings.at_once + 1)
        told = torch.tensor(self.scores[begin:])
        if self.settings.shuffled:
            told = told[torch.randperm(len(told), generator=self.generator)]
            self.scores[begin:] = told.tolist()
        self._learn(self.children[begin:], told / 100)

    @property
    def continued(self) -> frozenset[int]:
        """No job continues another one."""
        return frozenset()

    def found(self) -> Found:
        """The best children, joined."""
        count = len(self.scores)
        order = sorted(range(count), key=lambda number: -self.scores[number])[: self.settings.kept]
        facts: dict[str, Any] = {"trainings": count}
        if count:
            with torch.no_grad():
                last = self.children[-self.settings.at_once :]
                *_, entropies = self.controller(last, len(last))
            facts |= {
                "best_score": self.context.sign * self.scores[order[0]],
                "decision_entropy": float(entropies.mean()),
                "kept_children": order,
                "child_scores": [self.context.sign * score for score in self.scores],
            }
        return Found(self._policy(order, "found") if order else Policy((SubPolicy(),), name="none"), facts=facts)

    def _learn(self, children: Tensor, rewards: Tensor) -> None:
        """Raise the probability of children above the baseline."""
        settings = self.settings
        mean = float(rewards.mean())
        self.baseline = mean if self.baseline is None else self.baseline
        # Permuted scores still tell how good a round was as a whole: the control leaves that out.
        advantage = rewards - (mean if settings.shuffled else self.baseline)
        self.baseline = DECAY * self.baseline + (1 - DECAY) * mean
        before: Tensor | None = None
        for _ in range(EPOCHS_OF_PPO if settings.learn == "ppo" else 1):
            _, logs, entropies = self.controller(children, len(children))
            logs = logs.sum(1)
            before = logs.detach() if before is None else before
            loss = surrogate(logs, before, advantage, settings.learn) - ENTROPY * entropies.sum(1).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    def _policy(self, numbers: Sequence[int], name: str) -> Policy:
        """The sub-policies of some children, equally likely."""
        rows = [row for number in numbers for row in self._sub_policies(self.children[number].tolist())]
        return Policy(tuple(rows), name=name)

    def _sub_policies(self, decisions: Sequence[int]) -> list[SubPolicy]:
        step = 3 * STAGES
        return [
            SubPolicy(tuple(self._op(*decisions[at : at + 3]) for at in range(begin, begin + step, 3)))
            for begin in range(0, len(decisions), step)
        ]

    def _op(self, op: int, probability: int, magnitude: int) -> OpChoice:
        name = self.settings.ops[op]
        strength = magnitude / (MAGNITUDES - 1) if OPS[name].has_magnitude else None
        return OpChoice(name, probability / (PROBABILITIES - 1), strength)


def surrogate(logs: Tensor, before: Tensor, advantage: Tensor, learn: str) -> Tensor:
    """What the controller descends, but for entropy: its gradient is that of REINFORCE as long as nothing has moved."""
    if learn == "reinforce":
        return -(logs * advantage).mean()
    ratio = (logs - before).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage).mean()
