"""Searches on drawn shapes: do they keep what validation images need, and drop what makes one class of another?"""

import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from jointsearch.benchmarks.planted import CPU, started
from jointsearch.data.datasets import DataSettings
from jointsearch.data.load import Loaded
from jointsearch.data.shapes import SHAPES_ANSWER
from jointsearch.loops.plan import Plan
from jointsearch.loops.recipe import Recipe
from jointsearch.loops.retrain import retrain
from jointsearch.loops.search import search
from jointsearch.networks.network_settings import NetworkSettings
from jointsearch.protocols import SearcherSettings
from jointsearch.runs.run_folder import POLICY_FILE
from jointsearch.settings import as_plain
from search_spaces.augment.table import DADA_OPS
from search_spaces.policy import Policy

NETWORK = NetworkSettings("tiny_cnn")
RECIPE = Recipe(epochs=60, batch_size=128, clip_gradient=5.0, precision="float32", evaluate_every=1)
OPS = (*DADA_OPS, "HorizontalFlip")


@dataclass(frozen=True)
class ShapesOutcome:
    """The result of one search."""

    over_uniform: dict[str, float]  # what each op of the answer has of all ops that act, over an equal share
    accuracy: float  # of the network trained with what was found, in percent
    start_accuracy: float  # and with what the search started from
    forward_equivalents: int
    seconds: float

    @property
    def matches(self) -> bool:
        """Whether every op to recover has more than an equal share, and every op to avoid less."""
        recovered = all(self.over_uniform[op] > 1 for op in SHAPES_ANSWER["recover"])
        return recovered and all(self.over_uniform[op] < 1 for op in SHAPES_ANSWER["avoid"])


def shapes_outcome(settings: SearcherSettings, seed: int, data: DataSettings) -> ShapesOutcome:
    """Search on the shapes, and train with what was found and with what it started from."""
    start: Policy = settings.policy_space.policy()  # type: ignore[attr-defined]
    loaded = Loaded(data)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "search"
        plan = Plan(folder, NETWORK, RECIPE, data.standard, seed, search={"searcher": as_plain(settings)}, device=CPU)
        found = search(plan, loaded.search_splits(seed), started(settings, plan))
        policy = Policy.load(folder / POLICY_FILE)
        accuracies = [
            retrain(
                Plan(Path(scratch) / name, NETWORK, RECIPE, data.standard, seed, one, device=CPU), loaded.splits(seed)
            )
            for name, one in (("found", policy), ("start", start))
        ]
    shares = op_shares(policy)
    used = {choice.op for sub_policy in start.sub_policies for choice in sub_policy.ops}
    over_uniform = {op: shares[op] * len(used) for ops in SHAPES_ANSWER.values() for op in ops}
    reached, before = (one["test_accuracy_last"] for one in accuracies)
    return ShapesOutcome(over_uniform, reached, before, found["forward_equivalents"], found["seconds"])


def op_shares(policy: Policy) -> defaultdict[str, float]:
    """Which share of the ops that act is this one, for each op; all 0 where none acts."""
    acting: defaultdict[str, float] = defaultdict(float)
    for sub_policy in policy.sub_policies:
        for choice in sub_policy.ops:
            acting[choice.op] += sub_policy.weight * choice.probability
    total = sum(acting.values()) or 1.0
    return defaultdict(float, {op: share / total for op, share in acting.items()})
