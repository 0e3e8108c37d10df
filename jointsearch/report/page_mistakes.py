"""What trained networks mistake for what: the confusion of classes, and the worst mistakes as pictures."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jointsearch.report.comparison import Comparison
from jointsearch.report.page_html import Html, percent, photographs, table, tag
from jointsearch.report.page_run import Part, Run, number
from jointsearch.report.pictures import Pictures
from jointsearch.runs.run_folder import PREDICTIONS_FILE
from search_spaces.errors import InputError
from search_spaces.plain_json import shown_path

MOST_CLASSES = 25  # of a matrix; of more the pairs that are confused most
PAIRS = 15
MISTAKES = 12
SHADES = 8  # as many as the style sheet names
UPRIGHT_FROM, LONGEST = 3, 18  # letters of a class above a column
KEYS = ("classes", "labels", "predicted", "confidence")


@dataclass(frozen=True)
class Predictions:
    """What the network of a training said of every test image, in the order of the test split."""

    part: Part
    classes: tuple[str, ...]
    labels: np.ndarray  # (N,) int
    predicted: np.ndarray  # (N,) int
    confidence: np.ndarray  # (N,) the probability of the predicted class

    def confusion(self) -> np.ndarray:
        """Images by class (rows) and by what was predicted (columns)."""
        count = len(self.classes)
        return np.bincount(self.labels * count + self.predicted, minlength=count**2).reshape(count, count)


@dataclass(frozen=True)
class Mistake:
    """A test image that a network took for another class."""

    row: int
    label: str
    predicted: str
    confidence: float
    seeds: int  # that mistake it for some other class


def mistakes_section(run: Run, comparison: Comparison | None, pictures: Pictures) -> list[Html]:
    """The mistakes of the best row over its seeds; nothing where no training left its predictions."""
    told = _best(run, comparison)
    if not told:
        return []
    first, row, seeds = told[0], told[0].part.group, len(told)
    total = sum((one.confusion() for one in told), np.zeros((len(first.classes),) * 2, dtype=np.int64))
    who = f"row {row}, the best one, {seeds} seed{'s' * (seeds > 1)}"
    few = len(first.classes) <= MOST_CLASSES
    shown = _matrix(first.classes, total, who) if few else _pairs(first.classes, total, who)
    return [*shown, *_pictures(told, pictures)]


def read_predictions(part: Part) -> Predictions | None:
    """What a training left; None where it left nothing, or boxes of a detector."""
    path = part.folder / PREDICTIONS_FILE
    if not path.is_file():
        return None
    try:
        told = json.loads(path.read_bytes())
    except ValueError:
        told = None
    if isinstance(told, dict) and "detections" in told:
        return None
    columns = [told.get(key) if isinstance(told, dict) else None for key in KEYS]
    if not all(isinstance(column, list) for column in columns):
        raise _damaged(path, f"it has no lists {', '.join(KEYS)}")
    return _checked(part, path, *columns)


def worst_mistakes(told: Sequence[Predictions], most: int = MISTAKES) -> list[Mistake]:
    """The test images that were wrong with the highest confidence, each once, with its most confident mistake."""
    wrong = np.stack([one.predicted != one.labels for one in told])  # (seeds, N)
    confidence = np.where(wrong, np.stack([one.confidence for one in told]), -1.0)
    highest = confidence.max(0)
    chosen = [row for row in np.argsort(-highest, kind="stable")[:most].tolist() if highest[row] >= 0]
    found = []
    for row in chosen:
        one = told[int(confidence[:, row].argmax())]
        label, predicted = one.classes[one.labels[row]], one.classes[one.predicted[row]]
        found.append(Mistake(row, label, predicted, float(highest[row]), int(wrong[:, row].sum())))
    return found


def _best(run: Run, comparison: Comparison | None) -> list[Predictions]:
    """Those of the best row that has any, of seeds that had the same test images."""
    order = [row.policy for row in comparison.rows] if comparison is not None else []
    for name in order:
        parts = [part for part in run.trainings if part.group == name and part.result is not None]
        told = [one for part in parts if (one := read_predictions(part)) is not None and len(one.labels)]
        if told:
            first = told[0]
            return [one for one in told if one.classes == first.classes and np.array_equal(one.labels, first.labels)]
    return []


def _checked(part: Part, path: Path, classes: Any, labels: Any, predicted: Any, confidence: Any) -> Predictions:
    if not classes or not all(isinstance(name, str) for name in classes):
        raise _damaged(path, "its classes are no names")
    if not len(labels) == len(predicted) == len(confidence):
        raise _damaged(
            path, f"it has {len(labels)} labels, {len(predicted)} predicted and {len(confidence)} confidence"
        )
    for name, column in (("labels", labels), ("predicted", predicted)):
        if not all(isinstance(one, int) and not isinstance(one, bool) and 0 <= one < len(classes) for one in column):
            raise _damaged(path, f"{name} holds what is no place in its {len(classes)} classes")
    if not all((value := number(one)) is not None and 0 <= value <= 1.001 for one in confidence):
        raise _damaged(path, "confidence holds what is no probability")
    said, true = np.array(predicted, dtype=np.int64), np.array(labels, dtype=np.int64)
    return Predictions(part, tuple(classes), true, said, np.array(confidence, dtype=np.float64))


def _damaged(path: Path, why: str) -> InputError:
    return InputError(f"{shown_path(path)} cannot be used: {why}; restore it or remove it")


def _matrix(classes: Sequence[str], total: np.ndarray, who: str) -> list[Html]:
    """Every class in a line: the share of its images that was taken for each class, in percent."""
    sums = total.sum(1)
    heads = [tag("th", "true class", class_="word")]
    for name in classes:
        short = name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"
        heads.append(tag("th", tag("span", short), class_="cell" if len(name) <= UPRIGHT_FROM else "upright"))
    heads.append(tag("th", "images", class_="number"))
    lines = []
    for place, name in enumerate(classes):
        cells = [tag("th", name, class_="word")]
        for other in range(len(classes)):
            share = total[place, other] / sums[place] if sums[place] else 0.0
            kind = "right" if other == place else "wrong"
            shade = min(SHADES, int(np.ceil(share * SHADES)))
            shown = f"{100 * share:.0f}" if 100 * share >= 0.5 else ""
            cells.append(tag("td", shown, class_=f"cell {kind}{shade}"))
        cells.append(tag("td", f"{sums[place]:,}", class_="number"))
        lines.append(tag("tr", *cells))
    said = (
        f"Of {who}: each line is a class, and its numbers say which percentage of its test images was taken for which "
        "class. Right is on the diagonal, in blue. Images are counted once for each seed."
    )
    whole = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *lines), class_="confusion")
    return [tag("p", said, class_="faint"), tag("div", whole, class_="scroll", tabindex=0)]


def _pairs(classes: Sequence[str], total: np.ndarray, who: str) -> list[Html]:
    """The pairs of classes that are confused most, for more classes than a matrix can show."""
    wrong = total * (1 - np.eye(len(classes), dtype=np.int64))
    sums = total.sum(1)
    places = [divmod(int(place), len(classes)) for place in np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]]
    rows = [
        (classes[label], classes[other], f"{wrong[label, other]:,}", percent(wrong[label, other] / sums[label]))
        for label, other in places
        if wrong[label, other]
    ]
    said = (
        f"Of {who}: the pairs of its {len(classes)} classes that were confused most. Images are counted once for each "
        "seed."
    )
    head = ("true class", "taken for", "images", "of its class")
    return [tag("p", said, class_="faint"), table(head, rows, words=(0, 1))]


def _pictures(told: Sequence[Predictions], pictures: Pictures) -> list[Html]:
    worst = worst_mistakes(told)
    title = tag("h3", "The worst mistakes")
    if not worst:
        return [title, tag("p", "No test image was mistaken.")]
    first = told[0]
    images = pictures.test(first.part, [one.row for one in worst], first.labels.tolist())
    if images is None:
        return [
            title,
            tag("p", "The test images were not found again: give dataset= and its settings to scripts/report.py."),
            table(
                ("test image", "true class", "taken for", "confidence"),
                [(one.row, one.label, one.predicted, percent(one.confidence)) for one in worst],
                words=(1, 2),
            ),
        ]
    shown = [
        tag(
            "figure",
            photographs(image[None], f"{one.label}, taken for {one.predicted}"),
            tag(
                "figcaption",
                tag("span", tag("b", one.predicted), f" {one.confidence:.0%}"),
                tag("span", _truth(one, told)),
            ),
        )
        for one, image in zip(worst, images, strict=True)
    ]
    said = (
        "Test images that were wrong with the highest confidence. Bold is what the network said, with its confidence; "
        "below is the label. Some labels may be wrong themselves."
    )
    return [title, tag("p", said, class_="faint"), tag("div", *shown, class_="mistakes")]


def _truth(mistake: Mistake, told: Sequence[Predictions]) -> str:
    wrong = f", wrong with {mistake.seeds} of {len(told)} seeds" if len(told) > 1 else ""
    return f"is {mistake.label}{wrong}"
