"""What a network is, learns and is scored by, and how its images are augmented. Without a word, classification."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from jointsearch.augmenters.with_policy import WithPolicy
from jointsearch.data.decode import FITS
from jointsearch.data.sets import DataSplits
from jointsearch.loops.recipe import Recipe
from jointsearch.metrics.accuracy import Accuracy
from jointsearch.metrics.evaluate import EVALUATION_BATCH
from jointsearch.networks.create import architecture, create_network
from jointsearch.objectives.cross_entropy import CrossEntropy
from jointsearch.protocols import Augmenter, Metric, Objective

if TYPE_CHECKING:
    from jointsearch.loops.plan import Plan


def cross_entropy(recipe: Recipe) -> Objective:
    """The loss of classification under a recipe."""
    other: dict[str, Any] = {}
    if recipe.timm is not None and recipe.timm.bce_loss:
        other = {"loss_type": "bce", "bce_target_thresh": recipe.timm.bce_target_thresh}
    return CrossEntropy(recipe.label_smoothing, recipe.mixing is not None, recipe.auxiliary_weight, **other)


class NewNetwork(Protocol):
    """Builds the network of a training. It may also have `identity()`: what of it decides results, as plain data."""

    def __call__(self, plan: Plan, splits: DataSplits) -> nn.Module:
        """The network of a plan; fresh weights are drawn from the global generator."""

    def description(self, plan: Plan, splits: DataSplits) -> dict[str, Any]:
        """What it takes to build it again, as plain data."""


@dataclass(frozen=True)
class NewClassifier:
    """Any network by its name."""

    def __call__(self, plan: Plan, splits: DataSplits) -> nn.Module:
        """The network of a plan."""
        return create_network(*self._arguments(plan, splits))

    def description(self, plan: Plan, splits: DataSplits) -> dict[str, Any]:
        """For `load_network`, and for `timm.create_model(architecture, **model_args)`."""
        channels, height, width = splits.train.image_shape
        found = architecture(*self._arguments(plan, splits))
        return {
            "network": plan.network.name,
            "architecture": found.name,
            "model_args": found.args,
            "classes": list(splits.train.classes),
            "channels": channels,
            "image_size": min(height, width),
            "fit": plan.dataset.get("fit", FITS[0]),
            "background": plan.dataset.get("background", 255),
            "mean": list(plan.standard.mean),
            "std": list(plan.standard.std),
        }

    def _arguments(self, plan: Plan, splits: DataSplits) -> tuple[Any, ...]:
        channels, height, width = splits.train.image_shape
        rate, options = plan.recipe.drop_rate, plan.network_options
        return plan.network, len(splits.train.classes), channels, min(height, width), rate, options


@dataclass(frozen=True)
class Task:
    """The parts of trainings and searches that differ between tasks. Each training builds its own of each.

    run_study(study, "runs/mine", task=Task(new_metric=WorstGroup))
    """

    new_objective: Callable[[Recipe], Objective] = cross_entropy
    new_metric: Callable[[torch.device], Metric] = Accuracy
    new_augmenter: Callable[..., Augmenter] = WithPolicy  # of a policy and the standard augmentation
    new_network: NewNetwork = NewClassifier()
    evaluation_batch: int = EVALUATION_BATCH  # images that are scored at once

    def identity(self) -> dict[str, Any]:
        """What differs from classification and decides results, by name; a part may say more of itself."""
        found: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not item.default and item.name.startswith("new_"):
                told = getattr(value, "identity", lambda: None)()
                found |= told or {item.name.removeprefix("new_"): _name(value)}
        return found


CLASSIFICATION = Task()


def _name(value: object) -> str:
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{getattr(named, '__qualname__', '')}"
