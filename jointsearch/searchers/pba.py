"""Population Based Augmentation (Ho et al., ICML 2019): a population of trainings learns a schedule of policies.

Every member trains for a few epochs under a policy of its own. Then the worst quarter goes on from the weights, the
optimizer and the generators of the best quarter, under its policy, changed at random. What is found is the schedule of
the best member: the policies that its weights were trained under, from the first epoch on. Training under it from the
same seed repeats these weights bit for bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from jointsearch.jobs import OWN_NETWORK, Job, JobResult, PopulationContext
from jointsearch.protocols import Found
from jointsearch.settings import bounded, check_fields, setting
from search_spaces.augment.table import DADA_OPS, OPS, check_op_names
from search_spaces.policy import OpChoice, Policy, SubPolicy
from search_spaces.schedule import PolicySchedule

TOP_PROBABILITY, TOP_LEVEL = 10, 9  # probabilities are tenths, magnitudes ninths of our ranges
COUNTS = (0.2, 0.3, 0.5)  # chances that an image gets no op, one, or two
COPIES = 2  # of every op, each with its own probability and magnitude
RESAMPLED = 0.2  # share of numbers that are drawn anew when a policy is changed; the others move
FARTHEST = 3  # that a number moves
WORST = 0.25  # share of the members that give up, and share that they copy

Numbers = tuple[int, ...]  # probability and level of every copy of every op, one after the other


@dataclass(frozen=True)
class Pba:
    """A population of trainings finds a schedule of policies."""

    members: int = bounded(16, 2, 10_000, help="trainings side by side")
    every: int = bounded(3, 1, 100_000, help="epochs between two looks at who is worst")
    folds: int = bounded(5, 2, 100, help="parts of the training images; the first judges")
    ops: tuple[str, ...] = setting(DADA_OPS, help="ops to choose from")
    shuffled: bool = setting(False, help="the control: scores are permuted among the members")

    def __post_init__(self) -> None:
        check_fields(self)
        check_op_names(self.ops, "searcher.ops")

    def cost(self, epochs: int) -> tuple[int, float]:
        """Jobs, and whole trainings."""
        return self.members * -(-epochs // self.every), self.members

    def population(self, context: PopulationContext) -> "PbaSearcher":
        """Begin a search."""
        return PbaSearcher(self, context)


@dataclass
class Member:
    """Where a training of the population stands."""

    numbers: Numbers
    spans: tuple[tuple[int, Numbers], ...] = ()  # what its weights were trained under: first epochs and numbers
    root: int = 0  # the member whose fresh weights its own began as
    job: int | None = None  # the last one
    score: float = 0.0


class PbaSearcher:
    """Asks for the next epochs of all members."""

    def __init__(self, settings: Pba, context: PopulationContext) -> None:
        self.settings, self.context = settings, context
        self.generator = torch.Generator().manual_seed(context.seed)
        nothing = (0,) * (2 * COPIES * len(settings.ops))
        self.members = [Member(nothing, root=place) for place in range(settings.members)]
        self.epoch = self.jobs = 0
        self.round: list[float] = []

    def ask(self) -> Sequence[Job]:
        """The next epochs of every member."""
        if self.epoch >= self.context.epochs:
            return ()
        until = min(self.epoch + self.settings.every, self.context.epochs)
        jobs = []
        for place, member in enumerate(self.members):
            seed = None if self.epoch else self.context.seed_of(place)
            policy = policy_of(member.numbers, self.settings.ops, f"member{place}")
            jobs.append(Job(f"member{place}", policy, seed=seed, until_epoch=until, start=member.job))
            if not member.spans or member.spans[-1][1] != member.numbers:
                member.spans = (*member.spans, (self.epoch, member.numbers))
        self.epoch = until
        return jobs

    def tell(self, job: Job, result: JobResult) -> None:
        """Take in a member; after the last one the worst copy the best."""
        self.round.append(self.context.sign * result.score)
        if len(self.round) < len(self.members):
            return
        if self.settings.shuffled:
            order = torch.randperm(len(self.round), generator=self.generator).tolist()
            self.round = [self.round[place] for place in order]
        for place, (member, score) in enumerate(zip(self.members, self.round, strict=True)):
            member.job, member.score = self.jobs + place, score
        self.jobs += len(self.members)
        self.round = []
        if self.epoch < self.context.epochs:
            self._exploit()

    @property
    def continued(self) -> frozenset[int]:
        """The last job of every member."""
        return frozenset(member.job for member in self.members if member.job is not None)

    def found(self) -> Found:
        """The schedule of the best member."""
        best = max(self.members, key=lambda member: member.score)
        spans = best.spans or ((0, best.numbers),)
        policies = tuple((epoch, policy_of(numbers, self.settings.ops, "found")) for epoch, numbers in spans)
        facts = {
            "best_score": self.context.sign * best.score,
            "seed_of_best": self.context.seed_of(best.root),
            OWN_NETWORK: best.job,
            "spans": len(spans),
            "roots_left": len({member.root for member in self.members}),
        }
        return Found(PolicySchedule(policies, name="found"), facts=facts)

    def _exploit(self) -> None:
        """The worst quarter takes over from the best quarter, in order, and changes its policy."""
        order = sorted(range(len(self.members)), key=lambda place: -self.members[place].score)
        count = max(1, int(WORST * len(order)))
        for better, worse in zip(order[:count], reversed(order[-count:]), strict=True):
            source, target = self.members[better], self.members[worse]
            target.spans, target.root, target.job = source.spans, source.root, source.job
            target.numbers = changed(source.numbers, self.generator)


def changed(numbers: Numbers, generator: torch.Generator) -> Numbers:
    """Numbers of which a fifth is drawn anew, and the others move by up to three, within their bounds."""
    found = []
    for place, value in enumerate(numbers):
        most = TOP_LEVEL if place % 2 else TOP_PROBABILITY
        anew, drawn, step, up = torch.rand(4, generator=generator).tolist()
        if anew < RESAMPLED:
            found.append(int(drawn * (most + 1)))
        else:
            distance = int(step * (FARTHEST + 1))
            found.append(min(most, max(0, value + (distance if up < 0.5 else -distance))))
    return tuple(found)


@lru_cache(maxsize=256)
def policy_of(numbers: Numbers, ops: tuple[str, ...], name: str) -> Policy:
    """The policy of a member, exactly.

    The paper draws a count of ops, goes through all copies of all ops in a random order, lets each act with its
    probability, and stops when as many have acted. Each outcome becomes a sub-policy with its chance.
    """
    copies = [op for op in ops for _ in range(COPIES)]
    chances = np.array(numbers[::2]) / TOP_PROBABILITY
    choices = [
        OpChoice(op, 1.0, level / TOP_LEVEL if OPS[op].has_magnitude else None)
        for op, level in zip(copies, numbers[1::2], strict=True)
    ]
    rows = [
        SubPolicy(tuple(choices[place] for place in acting), weight)
        for acting, weight in outcomes(chances).items()
        if weight > 0
    ]
    return Policy(tuple(rows), name=name)


def outcomes(chances: np.ndarray) -> dict[tuple[int, ...], float]:
    """The chance of every sequence of ops that act on an image: none, one, or two in their order."""
    # A random order is that of random times in (0, 1). An op is the first to act, at time t, if it acts and no other
    # one acts before t: the integral over t of its chance times the product of (1 - t * chance) of the others. These
    # are polynomials, so that Gauss-Legendre quadrature is exact.
    nodes, weights = np.polynomial.legendre.leggauss(len(chances) // 2 + 2)
    times, weights = (nodes + 1) / 2, weights / 2
    idle = 1 - times[:, None] * chances  # (T, N)
    whole = idle.prod(1)
    nobody = float((1 - chances).prod())
    found: dict[tuple[int, ...], float] = {(): COUNTS[0] + (COUNTS[1] + COUNTS[2]) * nobody}
    acting = [place for place, chance in enumerate(chances) if chance > 0]
    for first in acting:
        others = np.delete(chances, first)
        at_all = float(weights @ (chances[first] * whole / idle[:, first]))
        alone = float(chances[first] * (1 - others).prod())
        found[(first,)] = COUNTS[1] * at_all + COUNTS[2] * alone
        for second in acting:
            if second != first:
                rest = whole / (idle[:, first] * idle[:, second])
                both = weights @ (times * chances[first] * chances[second] * rest)
                found[first, second] = COUNTS[2] * float(both)
    return found
