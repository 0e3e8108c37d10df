"""A race of policies: whole trainings judge them, and the search returns the control when nothing is better.

Arms are untuned controls, what other searches proposed, and points of a family around TrivialAugment. Every job is one
whole training of an arm on all folds of the training images but one, which judges it. A Gaussian model (race_model.py)
estimates the effect of every arm, with its uncertainty. To choose what is trained next, effects are drawn from these
estimates, and the best or the second best arm of such a draw is taken. An arm leaves when the 95 % interval of its
difference to the leader lies below zero. The race returns the arm with the largest estimate if it is above that of the
control by 1.645 standard deviations, else the control.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from jointsearch.jobs import Job, JobResult, PopulationContext
from jointsearch.protocols import Found
from jointsearch.searchers.race_model import Belief
from jointsearch.settings import bounded, check_fields, check_once, setting
from search_spaces.controls import named_policy
from search_spaces.errors import InputError
from search_spaces.family import LEVELS_OF, Levels, Point, points, policy_of
from search_spaces.policy import Policy
from search_spaces.schedule import PolicySchedule

CONTROL = "trivialaugment"
UNTUNED = ("none", CONTROL, "trivialaugment-x2", "trivialaugment-x3", "randaugment-n2-m15", "autoaugment")
POINTS_OF = {
    CONTROL: Point(),
    **{f"{CONTROL}-x{draws}": Point(draws=draws) for draws in (2, 3)},
    **{f"randaugment-n{draws}-m15": Point(draws, "m15") for draws in (1, 2, 3)},
}
DRAWN, NEXT = 16, 2  # points of the family at the start, and that may join after each round
OF_CONTROL = 0.1  # of all trainings are of the control, because everything is compared with it
SURE = 1.96  # standard deviations: of intervals, and of an arm that leaves
BETTER = 1.645  # of what is returned in place of the control


@dataclass(frozen=True)
class Arm:
    """What runs in a race."""

    name: str
    policy: Policy | PolicySchedule
    point: Point | None = None  # None: it shares no levels with other arms


@dataclass
class Told:
    """What the race was told."""

    arms: list[int] = field(default_factory=list)
    folds: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class Race:
    """Whole trainings decide among controls, proposals of other searches and a family of policies."""

    trainings: int = bounded(40, 2, 100_000, help="whole trainings that it may make")
    seconds: float | None = bounded(None, 1.0, help="or fewer, if they have taken so long together; null: no limit")
    folds: int = bounded(5, 2, 100, help="parts of the training images; each judges while the others train")
    at_once: int = bounded(4, 1, 1000, help="trainings that are chosen together, and may run at the same time")
    untuned: tuple[str, ...] = setting(UNTUNED, help="controls that take part")
    family: bool = setting(True, help="whether policies around TrivialAugment take part")
    storage: str | None = setting(
        None, help="the URL of a database that shares the trainings of machines without a common disk; null: a file"
    )
    shuffled: bool = setting(False, help="the control: scores are permuted among all trainings")

    def __post_init__(self) -> None:
        check_fields(self)
        for name in self.untuned:
            named_policy(name)
        check_once("searcher.untuned", self.untuned)
        if CONTROL not in self.untuned:
            raise InputError(f"searcher.untuned lacks {CONTROL}, which is returned when nothing is better; add it")

    def cost(self, epochs: int) -> tuple[int, float]:
        """Jobs, and whole trainings."""
        return self.trainings, self.trainings

    def population(self, context: PopulationContext) -> "RaceSearcher":
        """Begin a race."""
        return RaceSearcher(self, context)


class RaceSearcher:
    """The arms, what was told of them, and which are trained next."""

    def __init__(self, settings: Race, context: PopulationContext) -> None:
        self.settings, self.context = settings, context
        self.generator = torch.Generator().manual_seed(context.seed)
        self.arms = [Arm(name, named_policy(name), point=POINTS_OF.get(name)) for name in settings.untuned]
        for name, found in context.proposals.items():
            if found.policy is not None:
                self.arms.append(Arm(name, found.policy))
        self.control = settings.untuned.index(CONTROL)
        # Where images are mirrored anyway, mirroring them again changes nothing.
        self.levels_of = {name: levels for name, levels in LEVELS_OF.items() if name != "flip" or not context.mirrored}
        if settings.family:
            self._add(drawn_points(DRAWN, self.generator, self.levels_of))
        self.given = len(self.arms)  # each of them is trained at least once
        self.told, self.left = Told(), dict[int, int]()  # the number of trainings after which an arm left
        self.asked: list[tuple[int, int]] = []  # arm and fold of every job so far
        self.round: list[tuple[Job, JobResult]] = []
        self.belief: Belief  # once the first round is told

    def ask(self) -> Sequence[Job]:
        """The next trainings."""
        settings = self.settings
        count = min(settings.at_once, settings.trainings - len(self.asked))
        late = settings.seconds is not None and self.told.seconds >= settings.seconds
        if count <= 0 or late or len(self._running()) < 2:
            return ()
        if len(self.asked) < self.given:  # in one round, because none of them depends on another
            chosen = list(range(self.given))[: settings.trainings]
        else:
            chosen = [self._next() for _ in range(count)]
        return [self._job(arm) for arm in chosen]

    def tell(self, job: Job, result: JobResult) -> None:
        """Take in a training; with the last one of a round, believe and let arms leave."""
        self.round.append((job, result))
        if len(self.round) + len(self.told.arms) < len(self.asked):
            return
        told = self.told
        for (arm, fold), (_, result) in zip(self.asked[len(told.arms) :], self.round, strict=True):
            told.arms.append(arm)
            told.folds.append(fold)
            told.scores.append(self.context.sign * result.score)
            told.seconds += result.seconds
        self.round = []
        self._believe()

    @property
    def continued(self) -> frozenset[int]:
        """No job continues another one."""
        return frozenset()

    def found(self) -> Found:
        """The arm that is surely better than the control, or the control; and every arm with its interval."""
        if not self.told.arms:
            control = self.arms[self.control]
            return Found(control.policy)
        mean, deviation = self.belief.minus(self.control)
        trained = sorted(set(self.told.arms))
        leader = max(trained, key=lambda arm: float(mean[arm]))
        is_better = float(mean[leader]) > BETTER * float(deviation[leader])
        chosen = self.arms[leader if is_better else self.control]
        facts: dict[str, Any] = {
            "trainings": len(self.told.arms),
            "chosen": chosen.name,
            "leader": self.arms[leader].name,
            "leader_minus_control": float(mean[leader]),
            "leader_interval": SURE * float(deviation[leader]),
            "control": self.arms[self.control].name,
            "noise": self.belief.noise,
            "arms": self._rows(mean, deviation),
        }
        return Found(chosen.policy, facts=facts)

    def _rows(self, mean: Tensor, deviation: Tensor) -> list[dict[str, Any]]:
        """Every arm that was trained, best first."""
        times, rows = Counter(self.told.arms), []
        for arm, count in times.items():
            scores = [score for one, score in zip(self.told.arms, self.told.scores, strict=True) if one == arm]
            rows.append(
                {
                    "arm": self.arms[arm].name,
                    "trainings": count,
                    "score": self.context.sign * sum(scores) / count,
                    "minus_control": float(mean[arm]),
                    "interval": SURE * float(deviation[arm]),
                    "left_after": self.left.get(arm),
                }
            )
        return sorted(rows, key=lambda row: -row["minus_control"])

    def _running(self) -> list[int]:
        return [arm for arm in range(len(self.arms)) if arm not in self.left]

    def _add(self, new: Sequence[Point]) -> None:
        there = {arm.point for arm in self.arms}
        self.arms += [Arm(point.name, policy_of(point), point=point) for point in new if point not in there]

    def _next(self) -> int:
        """An arm to train: the control so often, else one that may be the best."""
        if [arm for arm, _ in self.asked].count(self.control) < OF_CONTROL * (len(self.asked) + 1):
            return self.control
        running = torch.tensor(self._running())
        first = int(running[self.belief.draw(self.generator)[running].argmax()])
        if float(torch.rand((), generator=self.generator)) < 0.5:
            return first
        others = running[running != first]
        return int(others[self.belief.draw(self.generator)[others].argmax()])

    def _job(self, arm: int) -> Job:
        """A training of an arm on the fold that has judged it least, and of these the one that has judged least."""
        of_arm, of_all = (
            Counter(fold for one, fold in self.asked if one == arm),
            Counter(fold for _, fold in self.asked),
        )
        fold = min(range(self.settings.folds), key=lambda one: (of_arm[one], of_all[one], one))
        self.asked.append((arm, fold))
        chosen = self.arms[arm]
        return Job(chosen.name, chosen.policy, fold, seed=self.context.seed_of(of_arm[fold]))

    def _believe(self) -> None:
        """Weigh what was told, let arms leave that are surely worse than the leader, and let promising points join."""
        told = self.told
        if self.settings.family and len(told.arms) > self.given:
            self._add(self._promising())
        scores = told.scores
        if self.settings.shuffled:
            scores = [scores[place] for place in torch.randperm(len(scores), generator=self.generator).tolist()]
        self.belief = Belief(self._features(), told.arms, told.folds, scores)
        trained = set(told.arms)
        mean, _ = self.belief.minus(self.control)
        leader = max(trained, key=lambda arm: float(mean[arm]))
        behind, deviation = self.belief.minus(leader)
        for arm in sorted(trained - {leader, self.control} - self.left.keys()):
            if float(behind[arm] + SURE * deviation[arm]) < 0:
                self.left[arm] = len(told.arms)

    def _promising(self) -> list[Point]:
        """Points that take no part yet and whose levels are expected to do best."""
        there = {arm.point for arm in self.arms}
        new = [point for point in points(self.levels_of) if point not in there]
        expected = torch.stack([self._levels(point) for point in new]) @ self.belief.levels
        return [new[place] for place in expected.topk(min(NEXT, len(new))).indices.tolist()]

    def _features(self) -> Tensor:
        """Which levels every arm has."""
        none = torch.zeros(sum(map(len, self.levels_of.values())), dtype=torch.float64)
        return torch.stack([none if arm.point is None else self._levels(arm.point) for arm in self.arms])

    def _levels(self, point: Point) -> Tensor:
        """Which levels a point has, as 0 and 1 over all levels of all factors."""
        has = [float(getattr(point, name) == level) for name, levels in self.levels_of.items() for level in levels]
        return torch.tensor(has, dtype=torch.float64)


def drawn_points(count: int, generator: torch.Generator, levels_of: Levels) -> list[Point]:
    """Points among which every level of a factor comes about equally often."""
    columns = []
    for levels in levels_of.values():
        rounds = -(-count // len(levels))
        orders = [torch.randperm(len(levels), generator=generator) for _ in range(rounds)]
        columns.append([levels[place] for place in torch.cat(orders)[:count].tolist()])
    found = [Point(**dict(zip(levels_of, row, strict=True))) for row in zip(*columns, strict=True)]
    return list(dict.fromkeys(found))
