"""Trainings of a detector: the one training loop, with another network, loss, augmentation and score.

A row of a table is a backbone, trained before or with fresh weights, and the policy that the detector's own images are
augmented by: `found`, `scratch`, `scratch+trivialaugment`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from jointsearch.augmenters.objects import WithPolicyOnObjects
from jointsearch.data.object_datasets import ObjectSettings
from jointsearch.data.object_load import LoadedObjects
from jointsearch.data.object_sets import ObjectSet
from jointsearch.data.sets import DataSplits
from jointsearch.loops.backbones import Backbone, Backbones
from jointsearch.loops.grid import SEED, check_grid, check_seeds, folder_name, plain_dataset, run_grid
from jointsearch.loops.plan import Plan
from jointsearch.loops.recipe import Recipe, Timm
from jointsearch.loops.task import Task
from jointsearch.metrics.coco import AveragePrecision
from jointsearch.networks.detectors import DetectorSettings
from jointsearch.networks.features import FeatureMaps
from jointsearch.networks.network_settings import NetworkSettings
from jointsearch.objectives.detection import Detection
from jointsearch.runs.run_folder import check_writable
from jointsearch.settings import as_plain
from search_spaces.controls import resolve_policy
from search_spaces.errors import InputError
from search_spaces.policy import Policy
from search_spaces.schedule import PolicySchedule

OF_CLASSIFIERS = ("mixing", "label_smoothing", "drop_rate", "drop_path", "auxiliary_weight")
TIMM_OF_CLASSIFIERS = ("grad_accum_steps", "reprob", "bce_loss")
READING = ("workers", "in_memory")
NO_POLICY = "none"
EVALUATION_BATCH = 8


@dataclass(frozen=True)
class NewDetector:
    """Builds the network of a training."""

    settings: DetectorSettings
    backbone: Backbone

    def __call__(self, plan: Plan, splits: DataSplits) -> nn.Module:
        """The detector of a plan; draws from the global generator."""
        maps = FeatureMaps(self.backbone.build())
        return self.settings.build(maps, len(splits.train.classes), typical_side(splits.train))

    def identity(self) -> dict[str, Any]:
        """What decides the result."""
        return {"detector": as_plain(self.settings), "backbone": self.backbone.identity()}

    def description(self, plan: Plan, splits: DataSplits) -> dict[str, Any]:
        """What it takes to build it again, for `load_detector`."""
        return {
            "detector": {"name": self.settings.name, **as_plain(self.settings)},
            "backbone": self.backbone.told,
            "side": typical_side(splits.train),
            "classes": list(splits.train.classes),
            "mean": list(plan.standard.mean),
            "std": list(plan.standard.std),
            "shorter": plan.dataset.get("shorter"),
            "longer": plan.dataset.get("longer"),
        }


def _policy(name: str, seed: int) -> Policy | PolicySchedule:
    return resolve_policy(name.replace(SEED, str(seed)), None, seed)


def detection(settings: DetectorSettings, backbone: Backbone) -> Task:
    """The task of a detector on a backbone."""
    return Task(
        new_objective=_objective,
        new_metric=AveragePrecision,
        new_augmenter=WithPolicyOnObjects,
        new_network=NewDetector(settings, backbone),
        evaluation_batch=EVALUATION_BATCH,
    )


def _objective(recipe: Recipe) -> Detection:
    return Detection()


def typical_side(images: ObjectSet) -> int:
    """The median of the images' shorter sides, by which anchors are chosen."""
    sides = sorted(min(images.source.size(row)) for row in images.rows.tolist())
    return sides[len(sides) // 2]


@dataclass(frozen=True)
class DetectionGrid:
    """What is trained: a detector on every backbone, under every policy, with every seed, all else equal."""

    backbones: Backbones  # by name and seed
    dataset: ObjectSettings
    detector: DetectorSettings
    recipe: Recipe
    policy_names: tuple[str, ...] = (NO_POLICY,)
    rows: dict[str, tuple[str, str]] = field(init=False)  # backbone and policy of each row, by its name

    def __post_init__(self) -> None:
        if not self.backbones or not self.policy_names:
            raise InputError("backbones or policies is empty; give at least one of each")
        check_seeds(self.seeds)
        if uneven := [name for name, row in self.backbones.items() if tuple(row) != self.seeds]:
            raise InputError(f"backbone {uneven[0]} has other seeds than {list(self.seeds)}; give all rows the same")
        rows: dict[str, tuple[str, str]] = {}
        for backbone in self.backbones:
            for policy in self.policy_names:
                short = folder_name(policy)
                name = backbone if short == NO_POLICY else f"{backbone}+{short}"
                if name in rows:
                    raise InputError(f"two rows would share the folder {name}; rename one of the files")
                rows[name] = (backbone, policy)
        object.__setattr__(self, "rows", rows)
        for policy in self.policy_names:
            for seed in self.seeds:
                WithPolicyOnObjects(_policy(policy, seed), self.dataset.standard)
        given, plain = self.recipe.timm or Timm(), Timm()
        unread = [name for name in OF_CLASSIFIERS if getattr(self.recipe, name)]
        unread += [f"timm.{name}" for name in TIMM_OF_CLASSIFIERS if getattr(given, name) != getattr(plain, name)]
        if unread:
            raise InputError(f"recipe.{', recipe.'.join(unread)} is for classifiers; leave it out")

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that every backbone has."""
        return tuple(next(iter(self.backbones.values())))

    @property
    def policies(self) -> tuple[str, ...]:
        """The names of the rows."""
        return tuple(self.rows)

    def plan(self, row: str, seed: int, folder: Path, options: dict[str, Any]) -> Plan:
        """One of its trainings."""
        backbone, policy = self.rows[row]
        return Plan(
            folder=folder / row / f"seed{seed}",
            policy=_policy(policy, seed),
            network=NetworkSettings(self.detector.name),
            recipe=self.recipe,
            standard=self.backbones[backbone][seed].standard(self.dataset.standard),
            seed=seed,
            # How images are read decides nothing.
            dataset={name: value for name, value in plain_dataset(self.dataset).items() if name not in READING},
            task=detection(self.detector, self.backbones[backbone][seed]),
            **options,
        )


def run_detection(
    grid: DetectionGrid,
    folder: Path | str,
    checked: Callable[[float], None] = lambda seconds: None,
    loaded: LoadedObjects | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Train all of a grid: what is finished is read, what was interrupted continues.

    Arguments are those of run_grid; without `loaded` the data set is read here.
    """
    check_writable(Path(folder))
    loaded = loaded or LoadedObjects(grid.dataset, grid.detector.masks)
    rows = {backbone: row for row, (backbone, _) in reversed(grid.rows.items())}
    checked(sum(check_grid(grid, folder, loaded, row, **options) for row in rows.values()) / len(rows))
    return run_grid(grid, folder, loaded=loaded, **options)
