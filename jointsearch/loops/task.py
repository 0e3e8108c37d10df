"""What a network learns and how it is scored: a loss and a metric. Without a word, classification."""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch

from jointsearch.loops.recipe import Recipe
from jointsearch.metrics.accuracy import Accuracy
from jointsearch.objectives.cross_entropy import CrossEntropy
from jointsearch.protocols import Metric, Objective


def cross_entropy(recipe: Recipe) -> Objective:
    """The loss of classification under a recipe."""
    return CrossEntropy(recipe.label_smoothing, recipe.mixing is not None, recipe.auxiliary_weight)


@dataclass(frozen=True)
class Task:
    """The loss and the score of trainings and searches. Each of them builds its own.

    run_study(study, "runs/mine", task=Task(new_metric=WorstGroup))
    """

    new_objective: Callable[[Recipe], Objective] = cross_entropy
    new_metric: Callable[[torch.device], Metric] = Accuracy

    def identity(self) -> dict[str, str]:
        """What differs from classification, by name."""
        return {
            item.name.removeprefix("new_"): _name(value)
            for item in fields(self)
            if (value := getattr(self, item.name)) is not item.default
        }


CLASSIFICATION = Task()


def _name(value: object) -> str:
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{getattr(named, '__qualname__', '')}"
