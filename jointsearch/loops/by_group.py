"""Losses of groups by name: one class of settings for each, which makes the objective of a training.

Task(new_objective=GroupDro(step_size=0.1))     # as retrain.py objective=group_dro objective.step_size=0.1
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from jointsearch.loops.recipe import Recipe
from jointsearch.networks.cyclegan import file_digest, load_translator
from jointsearch.objectives import clamp, group_dro
from jointsearch.protocols import Objective
from jointsearch.settings import as_plain, bounded, check_fields, setting


class ObjectiveSettings(Protocol):
    """Settings of a loss: a frozen dataclass that makes the objective of a training under a recipe."""

    def __call__(self, recipe: Recipe) -> Objective:
        """A new objective."""

    def identity(self) -> dict[str, Any]:
        """What decides the result, as plain data under "objective"."""


@dataclass(frozen=True)
class GroupDro:
    """Group DRO: the worse the loss of a group, the more it weighs."""

    name: ClassVar[str] = "group_dro"

    step_size: float = bounded(0.01, 0.0, 100.0, help="by which weights of groups follow losses; 0: equal weights")
    adjustment: float = bounded(0.0, 0.0, 1000.0, help="this, over the root of a group's size, is added to its loss")

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, recipe: Recipe) -> group_dro.GroupDro:
        """A new objective."""
        group_dro.check_recipe(recipe, self.name)
        return group_dro.GroupDro(group_dro.GroupWeights(self.step_size, self.adjustment), recipe.label_smoothing)

    def identity(self) -> dict[str, Any]:
        """What decides the result."""
        return {"objective": {"name": self.name, **as_plain(self)}}


@dataclass(frozen=True)
class Clamp(GroupDro):
    """CLAMP: group DRO within classes, and equal predictions for an image and its translations."""

    name: ClassVar[str] = "clamp"

    consistency: float = bounded(5.0, 0.0, 10_000.0, help="of the distance between predictions; 0: not trained on")
    translator: str | None = setting(None, help="a file of translator.py; null: what is known of drawn images")

    def __call__(self, recipe: Recipe) -> clamp.Clamp:
        """A new objective."""
        group_dro.check_recipe(recipe, self.name)
        weights = group_dro.GroupWeights(self.step_size, self.adjustment, within_classes=True)
        translate = None if self.translator is None else load_translator(self.translator)
        return clamp.Clamp(weights, self.consistency, translate, recipe.label_smoothing)

    def identity(self) -> dict[str, Any]:
        """What decides the result: of a translator what is in its file, and not where it lies."""
        file = {} if self.translator is None else {"translator": file_digest(self.translator)}
        return {"objective": super().identity()["objective"] | file}
