"""A race of policies: whole trainings judge them, and the search returns the control when nothing is better.

Arms (race_arms.py) are untuned controls, what other searches proposed, and points of a family around TrivialAugment.
Every job is one whole training of an arm on all folds of the training images but one, which judges it. A Gaussian model
(race_model.py) estimates the effect of every arm, with its uncertainty. To choose what is trained next, effects are
drawn from these estimates, and the best or the second best arm of such a draw is taken. An arm leaves when the 95 %
interval of its difference to the leader lies below zero. The race returns the arm with the largest estimate if the
interval of its difference to the control lies above zero, else the control. The control is TrivialAugment, where cells
take part with random ones. With tune=recipe, the race first chooses the recipe in the same way, by the trainings of all
arms, and compares arms under that recipe.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from jointsearch.jobs import TUNED, Job, JobResult, PopulationContext
from jointsearch.protocols import About, Found
from jointsearch.searchers.race_arms import CONTROL, FACTORS, Arm, Arms
from jointsearch.searchers.race_model import Belief
from jointsearch.settings import bounded, check_fields, choice, setting
from search_spaces.controls import named_policy
from search_spaces.errors import InputError, check_distinct

UNTUNED = ("none", CONTROL, "trivialaugment-x2", "trivialaugment-x3", "randaugment-n2-m15", "autoaugment")
NEXT = 2  # arms that may join after each round
OF_CONTROL = 0.1  # of all trainings are of the control, because everything is compared with it
SURE = 1.96  # standard deviations of an interval, which says what is surely better or worse


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
    tune: str = choice(
        "nothing", "nothing", "recipe", help="recipe: learning rate and weight decay, for all arms alike"
    )
    storage: str | None = setting(
        None, help="the URL of a database that shares the trainings of machines without a common disk; null: a file"
    )
    shuffled: bool = setting(False, help="the control: scores are permuted among all trainings")

    GROUP: ClassVar[str] = "searcher"  # how its errors name it
    about: ClassVar[About] = About(judges=True)

    def __post_init__(self) -> None:
        check_fields(self)
        for name in self.untuned:
            named_policy(name)
        check_distinct("searcher.untuned", self.untuned)
        if CONTROL not in self.untuned:
            raise InputError(f"searcher.untuned lacks {CONTROL}, which is returned when nothing is better; add it")

    def scalings(self) -> list[dict[str, float]]:
        """What the recipe may be multiplied with."""
        recipes = itertools.product(*FACTORS.values()) if self.tune == "recipe" else ()
        return [dict(zip(FACTORS, factors, strict=True)) for factors in recipes]

    def cost(self, epochs: int) -> tuple[int, float]:
        """Jobs, and whole trainings."""
        return self.trainings, self.trainings

    def population(self, context: PopulationContext) -> "RaceSearcher":
        """Begin a race."""
        if both := context.proposals.keys() & set(self.untuned):
            raise InputError(f"{min(both)} is the name of a proposal and in searcher.untuned; leave one of the two out")
        return RaceSearcher(self, context)


class RaceSearcher:
    """The arms, what was told of them, and which are trained next."""

    def __init__(self, settings: Race, context: PopulationContext) -> None:
        self.settings, self.context = settings, context
        self.generator = torch.Generator().manual_seed(context.seed)
        self.arms = Arms(settings.untuned, settings.family, settings.tune == "recipe", context)
        self.given = self.arms.begin(settings.untuned, self.generator)  # each of so many is trained at least once
        self.told, self.left = Told(), dict[int, int]()  # the number of trainings after which an arm left
        self.asked: list[tuple[int, int]] = []  # arm and fold of every job so far
        self.round: list[tuple[Job, JobResult]] = []
        self.weighed: list[float] = []  # the scores, or the same ones shuffled
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
            return self._handed_over(self.arms.control, {})
        arms = self.arms.copy()  # what is compared here takes no part in what follows
        facts, factors = self._recipe(arms)
        control = arms.add(replace(arms.control, factors=factors))
        rivals = {arms.add(replace(arms.all[arm], factors=factors)) for arm in self.told.arms}
        belief = self._belief(arms)
        mean, deviation = belief.minus(control)
        leader = max(sorted(rivals), key=lambda arm: float(mean[arm]))
        is_better = float(mean[leader]) > SURE * float(deviation[leader])
        chosen = arms.all[leader if is_better else control]
        facts |= {
            "trainings": len(self.told.arms),
            "chosen": chosen.name,
            "leader": arms.all[leader].name,
            "leader_minus_control": float(mean[leader]),
            "leader_interval": SURE * float(deviation[leader]),
            "control": arms.all[control].name,
            "noise": belief.noise,
            "arms": self._rows(mean, deviation),
        }
        return self._handed_over(chosen, facts)

    def _recipe(self, arms: Arms) -> tuple[dict[str, Any], tuple[float, ...]]:
        """For each setting the factor that is best on average over all trained pairs, or 1 if none is surely better."""
        if self.settings.tune == "nothing":
            return {}, ()
        trained = dict.fromkeys(replace(arms.all[arm], factors=()) for arm in self.told.arms)
        recipes = arms.recipes
        numbers = [[arms.add(replace(arm, factors=factors)) for arm in trained] for factors in recipes]
        belief, rows, chosen = self._belief(arms), [], []
        for place, (name, levels) in enumerate(FACTORS.items()):
            weights = torch.zeros(len(levels), len(arms.all), dtype=torch.float64)
            for factors, of_recipe in zip(recipes, numbers, strict=True):
                weights[levels.index(factors[place]), of_recipe] = len(levels) / len(recipes) / len(trained)
            mean, deviation = belief.contrasts(weights - weights[levels.index(1.0)])
            best = int(mean.argmax())
            is_better = float(mean[best]) > SURE * float(deviation[best])
            chosen.append(float(levels[best]) if is_better else 1.0)
            rows += [
                {"setting": name, "factor": level, "minus_given": float(one), "interval": SURE * float(other)}
                for level, one, other in zip(levels, mean, deviation, strict=True)
            ]
        return {TUNED: dict(zip(FACTORS, chosen, strict=True)), "tried_factors": rows}, tuple(chosen)

    def _handed_over(self, arm: Arm, facts: dict[str, Any]) -> Found:
        return Found(self.arms.policy(arm), self.arms.genotypes.get(arm.cells), facts)

    def _rows(self, mean: Tensor, deviation: Tensor) -> list[dict[str, Any]]:
        """Every arm that was trained, best first."""
        times, rows = Counter(self.told.arms), []
        for arm, count in times.items():
            scores = [score for one, score in zip(self.told.arms, self.told.scores, strict=True) if one == arm]
            rows.append(
                {
                    "arm": self.arms.all[arm].name,
                    "trainings": count,
                    "score": self.context.sign * sum(scores) / count,
                    "minus_control": float(mean[arm]),
                    "interval": SURE * float(deviation[arm]),
                    "left_after": self.left.get(arm),
                }
            )
        return sorted(rows, key=lambda row: -row["minus_control"])

    def _running(self) -> list[int]:
        return [arm for arm in range(len(self.arms.all)) if arm not in self.left]

    def _next(self) -> int:
        """An arm to train: the control so often, else one that may be the best."""
        control = self.arms.add(self.arms.control)
        if [arm for arm, _ in self.asked].count(control) < OF_CONTROL * (len(self.asked) + 1):
            return control
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
        chosen = self.arms.all[arm]
        return Job(
            chosen.name,
            self.arms.policy(chosen),
            fold,
            seed=self.context.seed_of(of_arm[fold]),
            genotype=self.arms.genotypes.get(chosen.cells),
            scaled=chosen.scaled,
        )

    def _believe(self) -> None:
        """Weigh what was told, let arms leave that are surely worse than the leader, and let promising points join."""
        told = self.told
        if len(told.arms) > self.given:
            self.arms.join_promising(self.belief.levels, NEXT)
        self.weighed = told.scores
        if self.settings.shuffled:
            order = torch.randperm(len(told.scores), generator=self.generator).tolist()
            self.weighed = [told.scores[place] for place in order]
        self.belief = self._belief(self.arms)
        trained, control = set(told.arms), self.arms.add(self.arms.control)
        mean, _ = self.belief.minus(control)
        leader = max(trained, key=lambda arm: float(mean[arm]))
        behind, deviation = self.belief.minus(leader)
        for arm in sorted(trained - {leader, control} - self.left.keys()):
            if float(behind[arm] + SURE * deviation[arm]) < 0:
                self.left[arm] = len(told.arms)

    def _belief(self, arms: Arms) -> Belief:
        """What the trainings so far say about arms."""
        return Belief(arms.features(arms.all), self.told.arms, self.told.folds, self.weighed)
