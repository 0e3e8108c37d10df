"""The arms of a race: what its trainings may differ in.

An arm is a policy: an untuned control, a proposal of another search, or a point of the family around TrivialAugment.
Where cells take part it is a pair, policy@cells, and where the recipe is tuned it has factors of the learning rate and
of the weight decay, too. Arms that share a level of a factor are alike in it, so a training of one tells of the others.
"""

import copy
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jointsearch.jobs import PopulationContext
from search_spaces.controls import named_policy
from search_spaces.family import LEVELS_OF, Levels, Point, points, policy_of
from search_spaces.genotype import Genotype
from search_spaces.policy import Policy
from search_spaces.schedule import PolicySchedule

CONTROL = "trivialaugment"
NAMES = {
    Point(): CONTROL,
    **{Point(draws): f"{CONTROL}-x{draws}" for draws in (2, 3)},
    **{Point(draws, "m15"): f"randaugment-n{draws}-m15" for draws in (1, 2, 3)},
}
DRAWN = 16  # points of the family at the start
# What the learning rate and the weight decay of the recipe are multiplied with.
FACTORS: dict[str, tuple[float, ...]] = {"learning_rate": (0.3, 1.0, 3.0), "weight_decay": (0.2, 1.0, 5.0)}
AS_GIVEN = (1.0, 1.0)

Label = tuple[str, object]  # a factor and its level


@dataclass(frozen=True)
class Arm:
    """What trainings are made with."""

    policy: str  # its name
    cells: str = ""  # their name, where cells take part
    factors: tuple[float, ...] = ()  # of the recipe, where it is tuned, in the order of FACTORS

    @property
    def name(self) -> str:
        """As in trivialaugment@random with learning_rate x3."""
        parts = [f"{name} x{factor:g}" for name, factor in self.scaled.items() if factor != 1]
        return self.policy + (f"@{self.cells}" if self.cells else "") + (f" with {', '.join(parts)}" if parts else "")

    @property
    def scaled(self) -> dict[str, float]:
        """The factors by the names of their settings."""
        return dict(zip(FACTORS, self.factors, strict=True)) if self.factors else {}


class Arms:
    """All arms so far. New ones join at the end, so that every arm keeps its number."""

    def __init__(self, untuned: Sequence[str], family: bool, tuned: bool, context: PopulationContext) -> None:
        self.proposed: dict[str, Policy | PolicySchedule] = {
            name: found.policy for name, found in context.proposals.items() if found.policy is not None
        }
        self.own = {name: found.genotype for name, found in context.proposals.items() if found.genotype is not None}
        self.policies = self.proposed | {name: named_policy(name) for name in untuned}
        self.genotypes: dict[str, Genotype] = {**context.cells, **self.own}
        self.cells = list(self.genotypes) or [""]
        self.recipes: list[tuple[float, ...]] = list(itertools.product(*FACTORS.values())) if tuned else [()]
        # Where images are mirrored anyway, mirroring them again changes nothing.
        self.levels_of = {name: levels for name, levels in LEVELS_OF.items() if name != "flip" or not context.mirrored}
        self.points = {NAMES.get(point, point.name): point for point in points(self.levels_of)}
        self.family = list(self.points) if family else []
        self.columns = {label: place for place, label in enumerate(self._vocabulary())}
        self.all: list[Arm] = []
        self.control = Arm(CONTROL, self.cells[0], AS_GIVEN if tuned else ())

    def begin(self, untuned: Sequence[str], noise: torch.Generator) -> int:
        """Let the first arms join, and count them. Cells and recipes come about equally often."""
        first = untuned.index(CONTROL)
        pairs = [(name, self.cells[(place - first) % len(self.cells)]) for place, name in enumerate(untuned)]
        for name in self.proposed:  # as it was found, and each part beside what nobody searched
            pairs += [(name, name), (name, self.cells[0]), (CONTROL, name)] if name in self.own else [(name, "")]
        if self.family:
            drawn = drawn_points(DRAWN, noise, self.levels_of)
            pairs += [
                (NAMES.get(point, point.name), self.cells[place % len(self.cells)]) for place, point in enumerate(drawn)
            ]
        order = torch.randperm(len(self.recipes), generator=noise).tolist()
        for place, (policy, cells) in enumerate(dict.fromkeys(pairs)):
            arm = Arm(policy, cells or self.cells[0], self.recipes[order[place % len(order)]])
            self.add(self.control if (arm.policy, arm.cells) == (CONTROL, self.cells[0]) else arm)
        return len(self.all)

    def copy(self) -> "Arms":
        """The same arms, which others may join alone."""
        other = copy.copy(self)
        other.all = list(self.all)
        return other

    def add(self, arm: Arm) -> int:
        """The number of an arm, which joins if it is not there."""
        if arm not in self.all:
            self.all.append(arm)
        return self.all.index(arm)

    def join_promising(self, levels: Tensor, count: int) -> None:
        """Let the arms join whose levels are expected to do best, of those that take no part yet."""
        everything = itertools.product([*self.family, *self.policies], self.cells, self.recipes)
        there = set(self.all)
        new = [arm for arm in dict.fromkeys(Arm(*parts) for parts in everything) if arm not in there]
        if new:
            expected = self.features(new) @ levels
            self.all += [new[place] for place in expected.topk(min(count, len(new))).indices.tolist()]

    def policy(self, arm: Arm) -> Policy | PolicySchedule:
        """The policy of an arm."""
        return self.policies[arm.policy] if arm.policy in self.policies else policy_of(self.points[arm.policy])

    def features(self, arms: Sequence[Arm]) -> Tensor:
        """Which levels arms have, as 0 and 1 over all levels of all factors."""
        rows = torch.zeros(len(arms), len(self.columns), dtype=torch.float64)
        places = [[self.columns[label] for label in self._labels(arm)] for arm in arms]
        which = [number for number, of_arm in enumerate(places) for _ in of_arm]
        rows[which, [place for of_arm in places for place in of_arm]] = 1.0
        return rows

    def _labels(self, arm: Arm) -> Iterator[Label]:
        point = self.points.get(arm.policy)
        if point is not None:
            yield from ((name, getattr(point, name)) for name in self.levels_of)
        elif arm.cells or arm.factors:  # else the arm is the only one that has this policy
            yield "policy", arm.policy
        if arm.cells:
            yield "cells", arm.cells
        yield from arm.scaled.items()

    def _vocabulary(self) -> Iterator[Label]:
        """All levels of all factors."""
        tuned = len(self.recipes) > 1
        own = [name for name in self.policies if name not in self.points] if self.genotypes or tuned else []
        factors: dict[str, Iterable[object]] = {
            **self.levels_of,
            "policy": own,
            "cells": self.genotypes,
            **(FACTORS if tuned else {}),
        }
        yield from ((name, level) for name, levels in factors.items() for level in levels)


def drawn_points(count: int, generator: torch.Generator, levels_of: Levels) -> list[Point]:
    """Points among which every level of a factor comes about equally often."""
    columns = []
    for levels in levels_of.values():
        rounds = -(-count // len(levels))
        orders = [torch.randperm(len(levels), generator=generator) for _ in range(rounds)]
        columns.append([levels[place] for place in torch.cat(orders)[:count].tolist()])
    found = [Point(**dict(zip(levels_of, row, strict=True))) for row in zip(*columns, strict=True)]
    return list(dict.fromkeys(found))
