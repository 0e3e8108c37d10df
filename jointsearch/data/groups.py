"""Groups of images: those of one class that share an attribute, as the even digits that are red.

A loss or a score that says `by_group = True` is handed `Grouped` labels where a data set has groups; any other one gets
the labels alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

# Images (B, C, H, W) in [0, 1], the groups (B,) that they are of, and an attribute's place in; as they look with that
# attribute out.
Translate: TypeAlias = Callable[[Tensor, Tensor, int], Tensor]


@dataclass(frozen=True, eq=False)
class Groups:
    """The group of each image. Group `class * attributes + attribute` is that class with that attribute."""

    numbers: Tensor  # (N,) int64
    attributes: tuple[str, ...]  # what an attribute may be, as red and green
    translate: Translate | None = None  # known of drawn images

    @classmethod
    def of(
        cls, labels: Tensor, values: Tensor, attributes: tuple[str, ...], translate: Translate | None = None
    ) -> Groups:
        """The groups of images by their classes (N,) and by the places (N,) of their attributes."""
        return cls(labels * len(attributes) + values, attributes, translate)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def values(self) -> Tensor:
        """The place of each image's attribute, (N,)."""
        return self.numbers % len(self.attributes)

    def at(self, rows: Tensor | slice) -> Groups:
        """Those of some images."""
        return replace(self, numbers=self.numbers[rows.to(self.numbers.device) if isinstance(rows, Tensor) else rows])

    def to(self, device: torch.device | str) -> Groups:
        """The same on another device."""
        return replace(self, numbers=self.numbers.to(device))

    def names(self, classes: Sequence[str]) -> tuple[str, ...]:
        """Every group by its number, as even/red."""
        return tuple(f"{name}/{attribute}" for name in classes for attribute in self.attributes)


@dataclass(frozen=True, eq=False)
class Grouped:
    """Labels (B,) of a batch together with its groups."""

    labels: Tensor
    groups: Groups

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, rows: slice) -> Grouped:
        """Those of some images."""
        return Grouped(self.labels[rows], self.groups.at(rows))

    def to(self, device: torch.device | str) -> Grouped:
        """The same on another device."""
        return Grouped(self.labels.to(device), self.groups.to(device))


def as_read_by(reader: Any, labels: Any) -> Any:
    """Labels as a loss or a score takes them: with groups only where it says `by_group`."""
    return labels.labels if isinstance(labels, Grouped) and not getattr(reader, "by_group", False) else labels
