"""Trainings of a detector: the one training loop, with another network, loss, augmentation and score.

A row of a table is a backbone, trained before or with fresh weights, and the policy that the detector's own images are
augmented by: `found`, `scratch`, `scratch+trivialaugment`.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from jointsearch.augmenters.objects import WithPolicyOnObjects
from jointsearch.data.object_datasets import ObjectSettings
from jointsearch.data.object_sets import ObjectSet
from jointsearch.data.sets import DataSplits
from jointsearch.loops.grid import check_seeds, folder_name, plain_dataset
from jointsearch.loops.plan import Plan
from jointsearch.loops.recipe import Recipe
from jointsearch.loops.task import Task
from jointsearch.metrics.coco import AveragePrecision
from jointsearch.networks.detectors import DetectorSettings
from jointsearch.networks.features import FeatureMaps
from jointsearch.networks.trained import WEIGHTS_FILE, build_network, load_network, read_description
from jointsearch.objectives.detection import Detection
from jointsearch.settings import as_plain
from search_spaces.controls import resolve_policy
from search_spaces.errors import InputError
from search_spaces.plain_json import shown_path

SCRATCH = "scratch"  # the backbone with fresh weights
NO_POLICY = "none"
EVALUATION_BATCH = 8


@dataclass(frozen=True)
class Backbone:
    """The network that becomes a backbone: how it is built, and the folder of its weights, if it has any."""

    told: dict[str, Any]  # as network.json has it
    weights: Path | None = None

    @classmethod
    def of(cls, folder: Path) -> "Backbone":
        """The network of a finished training."""
        told = read_description(folder)
        if told["channels"] != 3:
            raise InputError(
                f"the network in {shown_path(folder)} takes images of {told['channels']} channel(s), and a detector "
                "sees 3; train the backbone on color images"
            )
        return cls(told, folder)

    def fresh(self) -> "Backbone":
        """The same with fresh weights."""
        return Backbone(self.told)

    def build(self) -> nn.Module:
        """The network; draws the same from the global generator with weights and without."""
        if self.weights is None:
            return build_network(self.told, any_size=True)
        return load_network(self.weights, any_size=True)

    def identity(self) -> str:
        """What tells it from others, in words."""
        digest = None
        if self.weights is not None:
            digest = hashlib.sha256((self.weights / WEIGHTS_FILE).read_bytes()).hexdigest()[:16]
        genotype = self.told["options"].get("genotype")
        cells = "" if genotype is None else f", cells {hashlib.sha256(repr(genotype).encode()).hexdigest()[:16]}"
        return f"{self.told['network']}{cells}, {'fresh' if digest is None else f'weights {digest}'}"


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

    backbones: dict[str, dict[int, Backbone]]  # by name and seed
    dataset: ObjectSettings
    detector: DetectorSettings
    recipe: Recipe
    policy_names: tuple[str, ...] = (NO_POLICY,)
    seeds: tuple[int, ...] = (0, 1, 2)
    rows: dict[str, tuple[str, str]] = field(init=False)  # backbone and policy of each row, by its name

    def __post_init__(self) -> None:
        check_seeds(self.seeds)
        if not self.backbones or not self.policy_names:
            raise InputError("backbones or policies is empty; give at least one of each")
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
            WithPolicyOnObjects(resolve_policy(policy), self.dataset.standard)
        if self.recipe.mixing or self.recipe.drop_path or self.recipe.auxiliary_weight:
            raise InputError(
                "recipe.mixing, recipe.drop_path and recipe.auxiliary_weight are for classification; leave them out"
            )

    @property
    def policies(self) -> tuple[str, ...]:
        """The names of the rows."""
        return tuple(self.rows)

    def plan(self, row: str, seed: int, folder: Path, options: dict[str, Any]) -> Plan:
        """One of its trainings."""
        backbone, policy = self.rows[row]
        return Plan(
            folder=folder / row / f"seed{seed}",
            policy=resolve_policy(policy),
            network=self.detector.name,
            recipe=self.recipe,
            standard=self.dataset.standard,
            seed=seed,
            dataset=plain_dataset(self.dataset),
            task=detection(self.detector, self.backbones[backbone][seed]),
            **options,
        )
