"""RandAugment's search (Cubuk et al., NeurIPS 2020): a grid over the number of ops and their one magnitude.

Every cell of the grid is trained on the same folds, and the best mean is returned. With `per_op` a second round tries
the other levels of each op alone, and each op keeps the one that did best: a magnitude of its own.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch

from jointsearch.jobs import Job, JobResult, PopulationContext
from jointsearch.protocols import Found
from jointsearch.settings import bounded, check_fields, setting
from search_spaces.augment.table import OPS
from search_spaces.controls import RANDAUGMENT_OPS
from search_spaces.errors import InputError, check_distinct
from search_spaces.levels import LEVELS
from search_spaces.policy import OpChoice, Policy, SubPolicy

MOST_OPS = 8
WITH_LEVELS = tuple(op for op in RANDAUGMENT_OPS if OPS[op].has_magnitude)


@dataclass(frozen=True)
class RandAugmentGrid:
    """Trains with every number of ops at every level, and keeps the best mean."""

    counts: tuple[int, ...] = setting((1, 2, 3), help="ops of an image")
    levels: tuple[int, ...] = setting((3, 6, 9, 12, 15), help="of the magnitude, of 30")
    judges: int = bounded(1, 1, 100, help="folds that judge every cell of the grid; each is a training")
    folds: int = bounded(5, 2, 100, help="parts of the training images")
    per_op: bool = setting(False, help="whether each op gets a level of its own afterwards")
    shuffled: bool = setting(False, help="the control: scores are permuted among the trainings of a round")

    def __post_init__(self) -> None:
        check_fields(self)
        for name, values, most in (("counts", self.counts, MOST_OPS), ("levels", self.levels, LEVELS)):
            check_distinct(f"searcher.{name}", values)
            if not values or min(values) < 0 or max(values) > most:
                raise InputError(f"searcher.{name} is {list(values)}; give numbers from 0 to {most}")
        if self.judges > self.folds:
            raise InputError(f"searcher.judges is {self.judges} of {self.folds} folds; lower it")

    def cost(self, epochs: int) -> tuple[int, float]:
        """Jobs, and whole trainings."""
        cells = len(self.counts) * len(self.levels)
        further = len(WITH_LEVELS) * (len(self.levels) - 1) if self.per_op else 0
        jobs = (cells + further) * self.judges
        return jobs, jobs

    def population(self, context: PopulationContext) -> "GridSearcher":
        """Begin a search."""
        return GridSearcher(self, context)


class GridSearcher:
    """Asks for the whole grid at once, and with `per_op` for the other levels of every op at once."""

    def __init__(self, settings: RandAugmentGrid, context: PopulationContext) -> None:
        self.settings, self.context = settings, context
        self.generator = torch.Generator().manual_seed(context.seed)
        self.cells = {
            f"randaugment-n{count}-m{level}": (count, dict.fromkeys(RANDAUGMENT_OPS, level))
            for count in settings.counts
            for level in settings.levels
        }
        self.of_ops: dict[str, tuple[str, int]] = {}  # op and level of the cells of the second round
        self.scores: defaultdict[str, list[float]] = defaultdict(list)
        self.round: list[tuple[str, float]] = []
        self.asked = 0

    def ask(self) -> Sequence[Job]:
        """The grid, then with `per_op` each op at each other level."""
        settings = self.settings
        if not self.asked:
            names = list(self.cells)
        elif settings.per_op and not self.of_ops:
            names = self._further()
        else:
            names = []
        jobs = [self._job(name, fold) for fold in range(settings.judges) for name in names]
        self.asked += len(jobs)
        return jobs

    def tell(self, job: Job, result: JobResult) -> None:
        """Take in a training."""
        self.round.append((job.name, self.context.sign * result.score))
        if sum(map(len, self.scores.values())) + len(self.round) < self.asked:
            return
        values = [score for _, score in self.round]
        if self.settings.shuffled:
            values = [values[place] for place in torch.randperm(len(values), generator=self.generator).tolist()]
        for (name, _), score in zip(self.round, values, strict=True):
            self.scores[name].append(score)
        self.round = []

    @property
    def continued(self) -> frozenset[int]:
        """No job continues another one."""
        return frozenset()

    def found(self) -> Found:
        """The best cell; with `per_op`, its ops at their best levels."""
        if not self.scores:
            return Found(self._policy(next(iter(self.cells))))
        means = {name: fmean(scores) for name, scores in self.scores.items()}
        best = self._best()
        count, levels = self.cells[best]
        chosen = dict(levels)
        for op in WITH_LEVELS if self.of_ops else ():
            tried = {level: means[name] for name, (one, level) in self.of_ops.items() if one == op and name in means}
            tried[levels[op]] = means[best]
            chosen[op] = max(tried, key=lambda level: tried[level])
        facts = {
            "trainings": sum(map(len, self.scores.values())),
            "chosen": best if chosen == levels else f"{best}-per-op",
            "levels": {op: chosen[op] for op in WITH_LEVELS},
            "grid": [{"cell": name, "score": self.context.sign * mean} for name, mean in means.items()],
        }
        return Found(policy_at(count, chosen, str(facts["chosen"])), facts=facts)

    def _best(self) -> str:
        grid = [name for name in self.scores if name not in self.of_ops]
        return max(grid, key=lambda name: fmean(self.scores[name]))

    def _further(self) -> list[str]:
        """The cells of the second round: the best one with another level of one op."""
        best = self._best()
        count, levels = self.cells[best]
        for op in WITH_LEVELS:
            for level in self.settings.levels:
                if level != levels[op]:
                    name = f"{best}-{op}{level}"
                    self.of_ops[name] = (op, level)
                    self.cells[name] = (count, levels | {op: level})
        return list(self.of_ops)

    def _job(self, name: str, fold: int) -> Job:
        return Job(name, self._policy(name), fold=fold, seed=self.context.seed_of(fold))

    def _policy(self, name: str) -> Policy:
        count, levels = self.cells[name]
        return policy_at(count, levels, name)


def policy_at(count: int, levels: dict[str, int], name: str) -> Policy:
    """So many ops drawn uniformly, with replacement, from RandAugment's and the identity, each at its level."""
    rows = [SubPolicy()]
    for op, level in levels.items():
        rows.append(SubPolicy((OpChoice(op, 1.0, level / LEVELS if OPS[op].has_magnitude else None),)))
    return Policy(tuple(rows), name=name, draws=count)
