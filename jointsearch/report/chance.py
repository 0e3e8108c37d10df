"""The accuracy that needs no look at an image, and whether trainings are above it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jointsearch.report.comparison import Comparison
from jointsearch.report.metric_facts import ACCURACY
from jointsearch.report.page_mistakes import read_predictions
from jointsearch.report.page_run import Run

NEAR = 3  # times chance: an accuracy below that is shown beside it


@dataclass(frozen=True)
class Chance:
    """The accuracy of a network that always says the largest class of the test images; of equal ones, of guessing."""

    classes: int
    images: int
    largest: int  # images of the largest class

    @property
    def accuracy(self) -> float:
        """In percent."""
        return 100 * self.largest / self.images

    @property
    def words(self) -> str:
        """What is done without a look."""
        equal = self.largest <= math.ceil(self.images / self.classes)
        return f"{'guessing among' if equal else 'always saying the largest of'} {self.classes} classes"

    @property
    def reach(self) -> float:
        """The accuracy that this exceeds in about one of 40 cases: two standard errors above the mean."""
        share = self.largest / self.images
        return 100 * (share + 2 * math.sqrt(share * (1 - share) / self.images))

    def is_near(self, values: Sequence[float]) -> bool:
        """Whether one of some accuracies is so low that chance belongs beside it."""
        return any(value < NEAR * self.accuracy for value in values)

    def holds(self, comparison: Comparison) -> bool:
        """Whether no row is above what chance may reach."""
        return max(row.mean for row in comparison.rows) <= self.reach

    def sentence(self, comparison: Comparison) -> str:
        """What is to be said then."""
        best = max(row.mean for row in comparison.rows)
        return (
            f"No row is above chance: the best mean accuracy is {best:.1f} %, and {self.words} gives "
            f"{self.accuracy:.1f} %, so these trainings cannot tell policies apart."
        )


def chance_of(run: Run) -> Chance | None:
    """Of a run that was scored by accuracy; None for another metric, and where no training left its predictions."""
    if run.metric != ACCURACY:
        return None
    for part in run.trainings:
        told = None if part.result is None else read_predictions(part)
        if told is not None and len(told.labels) and len(told.classes) > 1:
            return Chance(len(told.classes), len(told.labels), int(told.confusion().sum(1).max()))
    return None
