"""Searches on data with a known answer: do they find the op that helps, and shun the one that falsifies labels?"""

import itertools
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from jointsearch.data.planted import COUNTS, PLANTED_ANSWER, SHADES_ANSWER, Answer, planted, planted_shades
from jointsearch.data.sets import DataSplits
from jointsearch.data.standard import Standard
from jointsearch.loops.grid import CELLS
from jointsearch.loops.plan import NewStepSearcher, Plan
from jointsearch.loops.recipe import Recipe
from jointsearch.loops.retrain import retrain
from jointsearch.loops.search import search
from jointsearch.networks.network_settings import NetworkSettings
from jointsearch.networks.supernet import SUPERNET, SupernetSettings
from jointsearch.protocols import Context, SearcherSettings, StepSearcher, TrainStep
from jointsearch.runs.run_folder import GENOTYPE_FILE, POLICY_FILE
from jointsearch.searchers.cell_learner import ArchitectureSettings, CellLearner
from jointsearch.searchers.spaces import Pairs
from jointsearch.searchers.table_entries import table_entries
from jointsearch.settings import as_plain
from jointsearch.soft.network import SuperNet
from search_spaces.genotype import Genotype
from search_spaces.policy import Policy

NETWORK = NetworkSettings("tiny_mlp")
CPU = torch.device("cpu")  # where all published figures were measured
STANDARD = Standard()
STEPS = 320  # as many as DADA takes on CIFAR-10
RECIPE = Recipe(
    batch_size=128, learning_rate=0.01, weight_decay=0.0, schedule="none", precision="float32", evaluate_every=1
)

CHANNELS, LAYERS = 4, 3
CELL_RECIPE = Recipe(
    epochs=40,
    batch_size=125,
    optimizer="momentum",
    learning_rate=0.3,
    weight_decay=3e-4,
    schedule="none",
    clip_gradient=5.0,
    precision="float32",
    evaluate_every=40,
)
CELL_STEPS = CELL_RECIPE.epochs * CELL_RECIPE.check_steps(COUNTS["train"])


@dataclass(frozen=True)
class PlantedOutcome:
    """The result of one search."""

    auc: float | None  # of ranking what holds the planted op above the rest; None where nothing is ranked
    ranked: str  # what there is to rank: the pairs of a space, or the ops of a table
    poison: float | None  # mass of the sub-policies with the poison op, over what a uniform choice gives them
    accuracy: float  # of the retrained network, in percent
    forward_equivalents: int  # of the search
    seconds: float


def planted_outcome(
    settings: SearcherSettings, seed: int, architecture: ArchitectureSettings | None = None
) -> PlantedOutcome:
    """Search on the planted data, train with what was found, and score both.

    `architecture` searches cells too, on planted shades.
    """
    splits, answer = _data(seed, architecture is not None)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "search"
        found, policy = planted_search(settings, seed, folder, architecture)
        plan = planted_plan(policy, seed, Path(scratch) / "training")
        if architecture is not None:
            options = {"genotype": Genotype.load(folder / GENOTYPE_FILE), "channels": CHANNELS, "layers": LAYERS}
            plan = replace(plan, network=NetworkSettings(CELLS), recipe=CELL_RECIPE, network_options=options)
        trained = retrain(plan, splits)
    space = getattr(settings, "policy_space", Pairs()).policy()
    shares, recover = found.get("sub_policy_shares"), answer["recover"]
    scores, positive = shares, holding(space, recover)
    if table := found.get("table"):  # all that it keeps is as likely as before; it ranks by what they gain
        scores, positive = [row["gain"] for row in table], [row["op"] in recover for row in table]
        space = table_entries(getattr(settings, "policy_space"), getattr(settings, "levels"))  # noqa: B009
    return PlantedOutcome(
        None if scores is None else auc(scores, positive),
        "-" if scores is None else f"{len(scores)} {'rows' if table else 'sub-policies'}",
        None if shares is None else mass(shares, space, answer["avoid"]),
        trained["test_accuracy_last"],
        found["forward_equivalents"],
        found["seconds"],
    )


def planted_search(
    settings: SearcherSettings, seed: int, folder: Path, architecture: ArchitectureSettings | None = None
) -> tuple[dict[str, Any], Policy]:
    """The result of a search on the planted data, or with cells on planted shades, and the policy it found."""
    plan = replace(planted_plan(None, seed, folder), search={"searcher": as_plain(settings)})
    if architecture is not None:
        options = SupernetSettings("small", CHANNELS, LAYERS).options()
        plan = replace(plan, network=NetworkSettings(SUPERNET), recipe=CELL_RECIPE, network_options=options)
    splits, _ = _data(seed, architecture is not None)
    found = search(plan, splits, started(settings, plan, architecture))
    return found, Policy.load(folder / POLICY_FILE)


def started(
    settings: SearcherSettings, plan: Plan, architecture: ArchitectureSettings | None = None
) -> NewStepSearcher:
    """Builds the searcher of a policy, and of cells where `architecture` says how they learn."""

    def start(network: nn.Module, train_step: TrainStep, noise: torch.Generator) -> StepSearcher:
        cells = CellLearner(architecture, network) if architecture and isinstance(network, SuperNet) else None
        return settings.start(Context(network, train_step, plan.standard, noise, plan.recipe.epochs, plan.seed, cells))

    return start


def _data(seed: int, cells: bool) -> tuple[DataSplits, Answer]:
    """The images and the ops to find and to avoid."""
    return (planted_shades(seed), SHADES_ANSWER) if cells else (planted(seed), PLANTED_ANSWER)


def planted_plan(policy: Policy | None, seed: int, folder: Path) -> Plan:
    """A training on planted data."""
    steps = RECIPE.check_steps(COUNTS["train"])
    return Plan(folder, NETWORK, replace(RECIPE, epochs=STEPS // steps), STANDARD, seed, policy, device=CPU)


def holding(space: Policy, ops: tuple[str, ...]) -> list[bool]:
    """Which sub-policies hold one of these ops."""
    return [any(choice.op in ops for choice in sub_policy.ops) for sub_policy in space.sub_policies]


def auc(scores: list[float], positive: list[bool]) -> float:
    """How often a positive entry scores above a negative one; ties count half."""
    above = [score for score, is_positive in zip(scores, positive, strict=True) if is_positive]
    below = [score for score, is_positive in zip(scores, positive, strict=True) if not is_positive]
    wins = sum((high > low) + (high == low) / 2 for high in above for low in below)
    return wins / (len(above) * len(below))


def mass(shares: list[float], space: Policy, ops: tuple[str, ...]) -> float:
    """The mass of the sub-policies with one of these ops, over what the space gives them before any search."""
    held = holding(space, ops)
    weights = [sub_policy.weight for sub_policy in space.sub_policies]
    return sum(itertools.compress(shares, held)) / (sum(itertools.compress(weights, held)) / sum(weights))
