"""What a result says of the metric that scored it: its name, its unit, and whether more of it is better."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jointsearch.metrics.groups import GAP, LARGEST
from search_spaces.errors import InputError
from search_spaces.plain_json import shown

EPOCHS = ("last", "selected")  # whose network is scored: that of the last epoch, or of the one validation selects
KEYS = ("name", "unit", "higher_is_better")
DIGITS = 4  # that a number shows of the largest in its table


@dataclass(frozen=True)
class MetricFacts:
    """A metric as `protocols.Metric` describes itself, without the code that computes it."""

    name: str
    unit: str = ""
    higher_is_better: bool = True

    def __str__(self) -> str:
        unit = f"in {self.unit}, " if self.unit else ""
        return f"{self.words} ({unit}{self.direction})"

    @property
    def direction(self) -> str:
        """Which of two scores is the better one, in words."""
        return f"{'higher' if self.higher_is_better else 'lower'} is better"

    @property
    def words(self) -> str:
        """Its name in a sentence."""
        return self.name.replace("_", " ")

    @property
    def validation(self) -> str:
        """The score on validation images, in a record of an epoch."""
        return f"validation_{self.name}"

    def test(self, epoch: str) -> str:
        """The score on test images, in a result."""
        return f"test_{self.name}_{epoch}"

    def title(self, name: str) -> str:
        """A score of this metric for people, with its unit."""
        words = name.replace("_", " ")
        return f"{words}, {self.unit}" if self.unit else words

    def decimals(self, values: Sequence[float]) -> int:
        """How many decimals numbers beside each other have: two of percents, else as many as the largest needs."""
        largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
        if self.unit == "%" or not largest:
            return 2
        return max(0, DIGITS - 1 - math.floor(math.log10(largest)))


# Scores beside the main one of which less is better. The others have unit and direction of the main one.
LOWER_IS_BETTER = ("calibration_error", LARGEST, GAP)

ACCURACY = MetricFacts("accuracy", "%")  # what every result was scored by before results named their metric


def beside_facts(name: str, main: MetricFacts) -> MetricFacts:
    """A score that a metric tells beside its main one."""
    return MetricFacts(name, main.unit, False if name.partition("/")[0] in LOWER_IS_BETTER else main.higher_is_better)


def metric_facts(result: Mapping[str, Any], place: str) -> MetricFacts:
    """The metric of a result; `place` names its file in errors."""
    if "metric" not in result:
        return ACCURACY
    told = result["metric"]
    name, unit, higher = (told.get(key) if isinstance(told, dict) else None for key in KEYS)
    words = isinstance(name, str) and isinstance(unit, str) and f"{name}{unit}".isprintable()
    if words and name and isinstance(higher, bool):
        return MetricFacts(str(name), str(unit), higher)
    raise InputError(f"{place} has the metric {shown(told)}; wanted {', '.join(KEYS)}: restore its result")
