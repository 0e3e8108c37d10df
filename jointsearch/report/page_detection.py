"""What detectors found, on the page: figures by size and class, precision and recall, and pictures beside the truth."""

import json
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch

from jointsearch.data.marked import masks_of
from jointsearch.data.object_sets import ObjectSet
from jointsearch.report.boxes_drawn import as_found, as_marked, draw
from jointsearch.report.contact_sheet import evenly_spread
from jointsearch.report.page_charts import Line, line_chart
from jointsearch.report.page_history import policy_colors, policy_legend
from jointsearch.report.page_html import DASH, Html, photographs, table, tag
from jointsearch.report.page_run import Part, Run
from jointsearch.report.pictures import Pictures
from jointsearch.runs.run_folder import PREDICTIONS_FILE
from search_spaces.errors import InputError
from search_spaces.plain_json import shown_path

PICTURES = 6
LEAST_SCORE = 0.5  # of what is drawn
FIGURES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR100", "mask_AP", "mask_AP50")
HOW_TO_READ = (
    "AP is the mean over overlaps (IoU) from 0.50 to 0.95, AP50 that at 0.50. Small, medium and large objects have up "
    "to 32x32, up to 96x96, and more pixels of the file. Every figure is a mean over seeds, in percent."
)


def detection_section(run: Run, pictures: Pictures) -> list[Html]:
    """Everything about detections; nothing where none were made."""
    parts = [part for part in run.trainings if part.setting("detector") is not None and part.result is not None]
    told = {part.name: predictions(part) for part in parts}
    if not parts:
        return []
    shown = [_figures(parts), tag("p", HOW_TO_READ, class_="faint"), *_classes(parts)]
    shown += _curves(run, parts, told)
    return [*shown, *_pictures(parts, told, pictures)]


def predictions(part: Part) -> dict[str, Any]:
    """What a training's detector found in the test images; empty where nothing was left."""
    path = part.folder / PREDICTIONS_FILE
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("detections"), list):
        raise InputError(f"{shown_path(path)} holds no detections; restore it or remove it")
    return found


def _rows(parts: Sequence[Part]) -> dict[str, list[dict[str, Any]]]:
    """The scores of each row's trainings."""
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for part in parts:
        scores = (part.result or {}).get("test_scores_last")
        rows[part.group].append({"AP": part.figure("test_AP_last"), **(scores if isinstance(scores, dict) else {})})
    return rows


def _table(parts: Sequence[Part], names: Sequence[str], head: Sequence[str]) -> Html:
    rows = _rows(parts)

    def mean(row: str, name: str) -> str:
        values = [scores[name] for scores in rows[row] if isinstance(scores.get(name), int | float)]
        return f"{statistics.fmean(values):.1f}" if values else DASH

    return table(["row", *head], [[row, *(mean(row, name) for name in names)] for row in rows])


def _figures(parts: Sequence[Part]) -> Html:
    known = {name for scores in _rows(parts).values() for one in scores for name in one}
    names = [name for name in FIGURES if name in known]
    return _table(parts, names, [name.replace("_", " ") for name in names])


def _classes(parts: Sequence[Part]) -> Iterator[Html]:
    names = list(dict.fromkeys(name for scores in _rows(parts).values() for one in scores for name in one))
    for title, prefix in (("AP of each class", "AP/"), ("AP of the masks of each class", "mask_AP/")):
        if own := [name for name in names if name.startswith(prefix)]:
            yield tag("h3", title)
            yield _table(parts, own, [name.removeprefix(prefix) for name in own])


def _curves(run: Run, parts: Sequence[Part], told: dict[str, dict[str, Any]]) -> Iterator[Html]:
    colors = policy_colors(run)
    by_class: dict[str, list[Line]] = defaultdict(list)
    for part in parts:
        for name, precision in told[part.name].get("precision_at_iou_50", {}).items():
            points = tuple((place / 100, 100 * float(value)) for place, value in enumerate(precision))
            by_class[str(name)].append(Line(points, colors[part.group]))
    if by_class:
        yield tag("h3", "Precision and recall at IoU 0.50")
        yield policy_legend(colors, "One curve for each seed: precision in percent over the share that is found.")
        charts = [
            tag(
                "figure",
                tag("figcaption", name),
                line_chart(lines, f"precision of {name} over recall", 100, "recall"),
            )
            for name, lines in by_class.items()
        ]
        yield tag("div", *charts, class_="charts")


def _pictures(parts: Sequence[Part], told: dict[str, dict[str, Any]], pictures: Pictures) -> Iterator[Html]:
    yield tag("h3", "Pictures")
    firsts = [*{part.group: part for part in reversed(parts)}.values()][::-1]
    shown: list[Html] = []
    for part in firsts:
        found = told[part.name].get("detections", [])
        drawn = pictures.detected(json.dumps(found).encode(), partial(_pairs, found))
        if drawn is None:
            yield tag("p", "The test images were not found again: give dataset= and its settings to scripts/report.py.")
            return
        pairs = [tag("figure", tag("figcaption", said), photographs(both, said), class_="pair") for said, both in drawn]
        opened = {} if shown else {"open": ""}
        shown.append(tag("details", tag("summary", f"{part.group}, seed {part.seed}"), *pairs, **opened))
    said = (
        f"Left: the labelled objects. Right: what the detector of the first seed gave a score of {LEAST_SCORE} or more."
    )
    yield tag("p", f"Some of the test images. {said}", class_="faint")
    yield from shown


def _pairs(detections: Sequence[dict[str, Any]], images: ObjectSet) -> Iterator[tuple[str, torch.Tensor]]:
    """Some of the test images as they are labelled and as they were detected, (2, 3, H, W) each, with a caption."""
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for one in detections:
        if one["score"] >= LEAST_SCORE:
            found[one["image_id"]].append(one)
    for row in evenly_spread(len(images), PICTURES):
        picture = images.source.read(int(images.rows[row]))
        size = picture.annotation.size
        pixels = torch.nn.functional.interpolate(picture.pixels[None], size, mode="bilinear", antialias=True)[0]
        masks = None if picture.annotation.outlines is None else masks_of(picture.annotation)
        marked = as_marked(picture.annotation, images.classes, masks)
        both = torch.stack([draw(pixels, marked), draw(pixels, as_found(found[row + 1], images.classes, size))])
        yield f"{picture.annotation.file}: {len(marked.labels)} labelled, {len(found[row + 1])} detected", both
