"""The race on planted data: does it hand over what gradients found, where untuned policies cannot know the answer?"""

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from jointsearch.benchmarks.planted import planted_plan, planted_search
from jointsearch.data.planted import PLANTED_ANSWER, planted
from jointsearch.loops.population import Population
from jointsearch.loops.retrain import retrain
from jointsearch.protocols import Found, SearcherSettings
from jointsearch.searchers.race import CONTROL, Race
from search_spaces.controls import named_policy
from search_spaces.policy import Policy

PROPOSAL = "gradients"


@dataclass(frozen=True)
class RaceOutcome:
    """The result of one race."""

    chosen: str
    first_op: str  # the one that images get most often
    difference: float  # of the chosen arm and the control, on images that judge
    interval: float
    accuracy: float  # on test images, of what is handed over
    control_accuracy: float
    seconds: float


def race_outcome(race: Race, proposing: SearcherSettings, seed: int) -> RaceOutcome:
    """Search by gradients, race the finding against the arms of a race, and train with what is handed over."""
    splits = planted(seed)
    with tempfile.TemporaryDirectory() as scratch:
        _, proposed = planted_search(proposing, seed, Path(scratch) / "search")
        population = Population(
            plan=replace(planted_plan(None, seed, Path(scratch) / "race"), search={}),
            jobs=race.trainings,
            new_searcher=race.population,
            proposals={PROPOSAL: Found(proposed)},
            splits=lambda fold: splits,  # validation images are given, and all training images train
        )
        result = population.run()
        policy = Policy.load(population.plan.folder / "policy.json")
        accuracies = [
            retrain(planted_plan(one, seed, Path(scratch) / name), splits)["test_accuracy_last"]
            for name, one in {"found": policy, "control": named_policy(CONTROL)}.items()
        ]
    chosen = next(row for row in result["arms"] if row["arm"] == result["chosen"])
    return RaceOutcome(
        result["chosen"],
        most_frequent_op(policy),
        chosen["minus_control"],
        chosen["interval"],
        accuracies[0],
        accuracies[1],
        result["seconds"],
    )


def most_frequent_op(policy: Policy) -> str:
    """The op that acts on most images, as often as an image draws."""
    shares: defaultdict[str, float] = defaultdict(float)
    for row in policy.sub_policies:
        for choice in row.ops:
            shares[choice.op] += row.weight * choice.probability
    return max(shares, key=lambda op: shares[op], default="none")


def race_table(race: Race, proposing: SearcherSettings, seeds: Iterable[int]) -> Iterator[str]:
    """A line for every seed, as Markdown, and one that counts."""
    yield (
        f"| seed | handed over | its most frequent op | minus {CONTROL}, judged | test accuracy, % | "
        f"of {CONTROL}, % | seconds |"
    )
    yield "|---|---|---|---|---|---|---|"
    found: list[RaceOutcome] = []
    for seed in seeds:
        one = race_outcome(race, proposing, seed)
        found.append(one)
        yield (
            f"| {seed} | {one.chosen} | {one.first_op} | {one.difference:+.1f} ± {one.interval:.1f} | "
            f"{one.accuracy:.1f} | {one.control_accuracy:.1f} | {one.seconds:.0f} |"
        )
    first = sum(one.first_op in PLANTED_ANSWER["recover"] for one in found)
    better = sum(one.difference > one.interval for one in found)
    helps = ", ".join(PLANTED_ANSWER["recover"])
    yield ""
    yield f"{helps} is most frequent in {first} of {len(found)} seeds; {CONTROL} is beaten in {better}."
