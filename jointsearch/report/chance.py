"""The accuracy of guessing, and whether trainings are above it."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from jointsearch.networks.weights import MODEL_FILE
from jointsearch.report.comparison import Comparison
from jointsearch.report.metric_facts import ACCURACY
from jointsearch.report.page_run import Run

NEAR = 3  # times chance: an accuracy below that is shown beside it


@dataclass(frozen=True)
class Chance:
    """Guessing among so many classes, measured on so many test images."""

    classes: int
    images: int

    @property
    def accuracy(self) -> float:
        """In percent."""
        return 100 / self.classes

    @property
    def reach(self) -> float:
        """The accuracy that guessing exceeds in about one of 40 cases: two standard errors above the mean."""
        share = 1 / self.classes
        return 100 * (share + 2 * math.sqrt(share * (1 - share) / max(self.images, 1)))

    def is_near(self, values: Sequence[float]) -> bool:
        """Whether one of some accuracies is so low that chance belongs beside it."""
        return min(values) < NEAR * self.accuracy

    def holds(self, comparison: Comparison) -> bool:
        """Whether no row is above what guessing may reach."""
        return max(row.mean for row in comparison.rows) <= self.reach

    def sentence(self, comparison: Comparison) -> str:
        """What is to be said then."""
        best = max(row.mean for row in comparison.rows)
        return (
            f"No row is above chance: the best mean accuracy is {best:.1f} %, and guessing among {self.classes} "
            f"classes gives {self.accuracy:.1f} %, so these trainings cannot tell policies apart."
        )


def chance_of(run: Run) -> Chance | None:
    """Where trainings were scored by accuracy; None where another metric scored, or nobody knows the classes."""
    if run.metric != ACCURACY:
        return None
    for part in run.trainings:
        path, images = part.folder / MODEL_FILE, part.figure("test_images")
        if part.result is None or part.setting("detector") is not None or images is None or not path.is_file():
            continue
        try:
            told = json.loads(path.read_bytes())
        except ValueError:
            continue
        classes = told.get("classes") if isinstance(told, dict) else None
        if isinstance(classes, list) and len(classes) > 1:
            return Chance(len(classes), int(images))
    return None
