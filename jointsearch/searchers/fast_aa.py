"""Fast AutoAugment (Lim et al., NeurIPS 2019): policies under which a network that never saw them still does well.

Each fold trains one network without a policy, on the other folds. Then policies are tried by its score on the images of
the fold, augmented by each: nothing is trained any more. A tree-structured Parzen estimator proposes what to try next.
The best policies of every fold are joined to one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jointsearch.jobs import Job, JobResult, PopulationContext
from jointsearch.protocols import Found
from jointsearch.settings import bounded, check_fields, choice, setting
from search_spaces.augment.table import DADA_OPS, OPS, check_op_names
from search_spaces.controls import named_policy
from search_spaces.policy import OpChoice, Policy, SubPolicy

if TYPE_CHECKING:
    import optuna

STAGES = 2  # ops of a sub-policy


@dataclass(frozen=True)
class FastAA:
    """Tries policies on the images of a fold, with a network that was trained on the others."""

    folds: int = bounded(5, 2, 100, help="parts of the training images; each tries policies on a network of its own")
    rounds: int = bounded(2, 1, 100, help="explorations of each fold, one after the other")
    trials: int = bounded(200, 1, 100_000, help="policies that are tried in one of them")
    kept: int = bounded(10, 1, 1000, help="of them, which are joined in the end")
    ops: tuple[str, ...] = setting(DADA_OPS, help="ops to choose from")
    sub_policies: int = bounded(5, 1, 100, help="of a policy")
    sampler: str = choice("tpe", "tpe", "random", help="what proposes policies; random is the control")

    def __post_init__(self) -> None:
        check_fields(self)
        check_op_names(self.ops, "searcher.ops")

    def cost(self, epochs: int) -> tuple[int, float]:
        """Jobs, and whole trainings: what is tried afterwards costs one look at a fold each."""
        return self.folds * (1 + self.rounds * self.trials), self.folds

    def population(self, context: PopulationContext) -> FastAASearcher:
        """Begin a search."""
        return FastAASearcher(self, context)


class FastAASearcher:
    """Trains a network for every fold, then asks every fold for one policy after the other."""

    def __init__(self, settings: FastAA, context: PopulationContext) -> None:
        self.settings, self.context = settings, context
        self.trained = False
        self.tried: list[list[tuple[float, Policy]]] = []  # of every exploration, in the order of folds
        self.studies: list[optuna.Study] = []  # of the current one
        self.asked: list[tuple[optuna.trial.Trial, Policy]] = []

    def ask(self) -> Sequence[Job]:
        """The networks, then a policy for every fold."""
        settings = self.settings
        if not self.trained:
            return [self._job(fold) for fold in range(settings.folds)]
        if not self.tried or len(self.tried[-1]) == settings.trials:
            if len(self.tried) == settings.rounds * settings.folds:
                return ()
            self._explore()
        number = len(self.tried[-1])
        self.asked = [self._proposed(study, f"fold{fold}-trial{number}") for fold, study in enumerate(self.studies)]
        return [self._job(fold, policy) for fold, (_, policy) in enumerate(self.asked)]

    def tell(self, job: Job, result: JobResult) -> None:
        """Take in a network, or the score of a policy."""
        if not self.trained:
            self.trained = job.fold == self.settings.folds - 1
            return
        score = self.context.sign * result.score
        trial, policy = self.asked[job.fold]
        self.studies[job.fold].tell(trial, score)
        self.tried[job.fold - self.settings.folds].append((score, policy))

    @property
    def continued(self) -> frozenset[int]:
        """The networks of the folds."""
        return frozenset(range(self.settings.folds))

    def found(self) -> Found:
        """The best policies of every exploration, joined."""
        best = [self._best(explored) for explored in self.tried]
        policies = [policy for one in best for _, policy in one]
        if not policies:
            return Found(named_policy("none"))
        rows = tuple(row for policy in policies for row in policy.sub_policies)
        facts: dict[str, Any] = {
            "tried": sum(map(len, self.tried)),
            "best_scores": [self.context.sign * one[0][0] for one in best if one],
            "joined_policies": len(policies),
        }
        return Found(Policy(rows, name="found"), facts=facts)

    def _best(self, explored: Sequence[tuple[float, Policy]]) -> list[tuple[float, Policy]]:
        return sorted(explored, key=lambda one: -one[0])[: self.settings.kept]

    def _explore(self) -> None:
        """Begin an exploration of every fold, with a sampler of its own."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        done = len(self.tried)
        self.studies = []
        for fold in range(self.settings.folds):
            seed = self.context.seed_of(done + fold)
            sampler: optuna.samplers.BaseSampler = (
                optuna.samplers.TPESampler(seed=seed)
                if self.settings.sampler == "tpe"
                else optuna.samplers.RandomSampler(seed=seed)
            )
            self.studies.append(optuna.create_study(direction="maximize", sampler=sampler))
            self.tried.append([])

    def _proposed(self, study: optuna.Study, name: str) -> tuple[optuna.trial.Trial, Policy]:
        trial = study.ask()
        rows = []
        for row in range(self.settings.sub_policies):
            choices = []
            for stage in range(STAGES):
                op = trial.suggest_categorical(f"op{row}.{stage}", self.settings.ops)
                probability = trial.suggest_float(f"probability{row}.{stage}", 0.0, 1.0)
                magnitude = trial.suggest_float(f"magnitude{row}.{stage}", 0.0, 1.0)
                choices.append(OpChoice(op, probability, magnitude if OPS[op].has_magnitude else None))
            rows.append(SubPolicy(tuple(choices)))
        return trial, Policy(tuple(rows), name=name)

    def _job(self, fold: int, policy: Policy | None = None) -> Job:
        """The network of a fold; or, with a policy, its score on the images of the fold under it."""
        plain = named_policy("none")
        if policy is None:
            return Job(f"network{fold}", plain, fold=fold, seed=self.context.seed_of(fold))
        return Job(
            f"fold{fold}",
            plain,
            fold=fold,
            seed=self.context.seed_of(self.settings.folds + len(self.tried[-1])),
            until_epoch=self.context.epochs,
            start=fold,
            judged_under=policy,
        )
