"""Searches on data with a known answer: do they find the op that helps, and shun the one that falsifies labels?"""

import itertools
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jointsearch.data.planted import COUNTS, PLANTED_ANSWER, planted
from jointsearch.data.standard import Standard
from jointsearch.loops.recipe import Recipe
from jointsearch.loops.retrain import retrain
from jointsearch.loops.search import search
from jointsearch.loops.trial import Trial
from jointsearch.searchers.make import AnySearch, new_searcher
from jointsearch.searchers.table_settings import TableSearch
from jointsearch.settings import as_plain
from search_spaces.policy import Policy

NETWORK = "tiny_mlp"
STANDARD = Standard()
STEPS = 320  # as many as DADA takes on CIFAR-10
RECIPE = Recipe(batch_size=128, learning_rate=0.01, weight_decay=0.0, schedule="none", precision="float32")


@dataclass(frozen=True)
class PlantedOutcome:
    """What one search came to."""

    auc: float | None  # of ranking what holds the planted op above the rest; None where nothing is ranked
    ranked: str  # what there is to rank: the pairs of a space, or the ops of a table
    poison: float | None  # mass of the sub-policies with the poison op, over what a uniform choice gives them
    accuracy: float  # of the retrained network, in percent
    forward_equivalents: int  # of the search
    seconds: float


def planted_outcome(settings: AnySearch, seed: int) -> PlantedOutcome:
    """Search on the planted data, train with what was found, and score both."""
    with tempfile.TemporaryDirectory() as scratch:
        found, policy = planted_search(settings, seed, Path(scratch) / "search")
        trained = retrain(_trial(policy, seed, Path(scratch) / "training"), planted(seed))
    space = settings.entries() if isinstance(settings, TableSearch) else settings.policy_space.policy()
    shares, recover = found.get("sub_policy_shares"), PLANTED_ANSWER["recover"]
    scores, positive = shares, holding(space, recover)
    if table := found.get("table"):  # all that it keeps is as likely as before; it ranks by what they gain
        scores, positive = [row["gain"] for row in table], [row["op"] in recover for row in table]
    return PlantedOutcome(
        None if scores is None else auc(scores, positive),
        "-" if scores is None else f"{len(scores)} {'rows' if table else 'sub-policies'}",
        None if shares is None else mass(shares, space, PLANTED_ANSWER["avoid"]),
        trained["test_accuracy_last"],
        found["forward_equivalents"],
        found["seconds"],
    )


def planted_search(settings: AnySearch, seed: int, folder: Path) -> tuple[dict[str, Any], Policy]:
    """The result of a search on the planted data, and the policy it found."""
    trial = replace(_trial(settings.policy_space.policy(), seed, folder), search=as_plain(settings))
    found = search(trial, planted(seed), new_searcher(settings, STANDARD, seed, trial.recipe.epochs))
    return found, Policy.load(folder / "found.json")


def _trial(policy: Policy, seed: int, folder: Path) -> Trial:
    steps = RECIPE.check_steps(COUNTS["train"])
    return Trial(folder, policy, NETWORK, replace(RECIPE, epochs=STEPS // steps), STANDARD, seed, dataset={})


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
