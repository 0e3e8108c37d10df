"""COCO's average precision: the same figures as pycocotools, from detections as detectors give them."""

import contextlib
import copy
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from jointsearch.data.marked import masks_of
from jointsearch.data.objects import Annotation, Objects
from jointsearch.metrics.coco import AveragePrecision, coco_truth, detections, evaluate_coco

CLASSES = ("cat", "dog", "hen")
HEIGHT, WIDTH = 48, 64
PLACES = {"AP": 0, "AP50": 1, "AP75": 2, "AP_small": 3, "AP_medium": 4, "AP_large": 5, "AR100": 8}


def square(box: list[float]) -> list[list[float]]:
    x0, y0, x1, y1 = box
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def random_image(dice: np.random.Generator, place: int, scale: float) -> tuple[Annotation, dict[str, torch.Tensor]]:
    """An image with up to seven objects, some of them crowds, and detections near them; both may be none."""
    count = int(dice.integers(0, 8))
    corner = dice.uniform(0, 0.7, (count, 2)) * (WIDTH * scale, HEIGHT * scale)
    boxes = np.concatenate([corner, corner + dice.uniform(2, 20 * scale, (count, 2))], 1)
    boxes = np.minimum(boxes, [WIDTH * scale, HEIGHT * scale] * 2)
    labels = dice.integers(0, len(CLASSES), count)
    crowd = dice.random(count) < 0.15
    annotation = Annotation(
        f"image {place}",
        f"{place}.png",
        (round(HEIGHT * scale), round(WIDTH * scale)),
        torch.from_numpy(boxes).reshape(-1, 4),
        torch.from_numpy(labels),
        torch.from_numpy(crowd),
        torch.from_numpy((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) * dice.uniform(0.5, 1, count)),
        tuple(square(box) for box in boxes.tolist()),
    )
    repeats = dice.integers(0, 3, count)
    near = np.repeat(boxes, repeats, 0)
    near = near + dice.normal(0, 1.5 * scale, near.shape)
    near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
    guessed = np.repeat(labels, repeats)
    guessed = np.where(dice.random(len(guessed)) < 0.8, guessed, 0)
    found = {
        "boxes": torch.from_numpy(near / scale).float(),  # the detector sees images of another size
        "scores": torch.from_numpy(dice.random(len(guessed)).round(2)),  # with ties
        "labels": torch.from_numpy(guessed),
        "masks": torch.from_numpy(dice.random((len(guessed), 1, 28, 28)) ** 0.3).float(),
    }
    return annotation, found


def random_set(seed: int, images: int = 12) -> list[tuple[Annotation, dict[str, torch.Tensor]]]:
    dice = np.random.default_rng(seed)
    return [random_image(dice, place, scale=1 + 7 * (seed % 3 == 0)) for place in range(images)]


def measured(pairs: list[tuple[Annotation, dict[str, torch.Tensor]]]) -> tuple[AveragePrecision, dict[str, float]]:
    metric = AveragePrecision(torch.device("cpu"))
    for first in range(0, len(pairs), 5):
        part = pairs[first : first + 5]
        sizes = torch.tensor([[HEIGHT, WIDTH]] * len(part))
        nothing = torch.zeros(len(part), 0, 4), torch.zeros(len(part), 0, dtype=torch.int64)
        objects = Objects(*nothing, sizes, None, tuple(annotation for annotation, _ in part), CLASSES)
        metric.update([found for _, found in part], objects)
    return metric, metric.compute()


def by_pycocotools(truth: dict[str, Any], found: list[dict[str, Any]], kind: str) -> Any:
    with contextlib.redirect_stdout(io.StringIO()):
        annotated = COCO()
        annotated.dataset = copy.deepcopy(truth)
        annotated.createIndex()
        # pycocotools takes no empty list of detections.
        evaluated = COCOeval(annotated, annotated.loadRes(copy.deepcopy(found)) if found else COCO(), kind)
        evaluated.evaluate()
        evaluated.accumulate()
        evaluated.summarize()
    return evaluated


@pytest.mark.parametrize("seed", range(50))
def test_every_figure_is_that_of_pycocotools(seed: int) -> None:
    pairs = random_set(seed)
    metric, figures = measured(pairs)
    found = metric.details(CLASSES)["detections"]
    for kind, prefix in (("bbox", ""), ("segm", "mask_")):
        truth = coco_truth([annotation for annotation, _ in pairs], CLASSES, kind == "segm")
        reference = by_pycocotools(truth, found, kind)
        for name, place in PLACES.items():
            if reference.stats[place] < 0:
                assert figures.get(prefix + name, 0.0) == 0.0
            else:
                assert figures[prefix + name] == pytest.approx(100 * reference.stats[place], abs=1e-6), (kind, name)
        of_classes = reference.eval["precision"][:, :, :, 0, -1]
        for place, name in enumerate(CLASSES):
            known = of_classes[:, :, place][of_classes[:, :, place] > -1]
            if known.size:
                assert figures[f"{prefix}AP/{name}"] == pytest.approx(100 * known.mean(), abs=1e-6)


@pytest.mark.parametrize("empty", ["detections", "objects", "both"])
def test_sets_without_detections_or_objects_have_figures(empty: str) -> None:
    pairs = []
    for annotation, found in random_set(1):
        if empty != "detections":
            marks = ("boxes", "labels", "crowd", "areas", "outlines")
            cut = {name: getattr(annotation, name)[:0] for name in marks}
            annotation = replace(annotation, **cut)
        if empty != "objects":
            found = {name: value[:0] for name, value in found.items()}
        pairs.append((annotation, found))
    _, figures = measured(pairs)
    assert figures["AP"] == 0
    assert figures["mask_AP"] == 0
    assert all(value == 0 for value in figures.values())


def test_what_is_marked_itself_has_an_ap_of_100() -> None:
    pairs = []
    for annotation, _ in random_set(4):
        keep = ~annotation.crowd
        found = {"boxes": annotation.boxes[keep].float(), "labels": annotation.labels[keep]}
        pairs.append((annotation, {**found, "scores": torch.ones(int(keep.sum()))}))
    metric = AveragePrecision(torch.device("cpu"))
    for annotation, found in pairs:
        sizes = torch.tensor([annotation.size])
        nothing = torch.zeros(1, 0, 4), torch.zeros(1, 0, dtype=torch.int64)
        boxes_only = replace(annotation, outlines=None)
        metric.update([found], Objects(*nothing, sizes, None, (boxes_only,), CLASSES))
    figures = metric.compute()
    assert figures["AP"] == pytest.approx(100)
    assert "mask_AP" not in figures


def test_the_file_of_predictions_is_read_by_pycocotools(tmp_path: Path) -> None:
    pairs = random_set(5)
    metric, figures = measured(pairs)
    told = json.loads(json.dumps(metric.details(CLASSES)))
    (tmp_path / "found.json").write_text(json.dumps(told["detections"]))
    truth = coco_truth([annotation for annotation, _ in pairs], CLASSES, False)
    reference = by_pycocotools(truth, json.loads((tmp_path / "found.json").read_text()), "bbox")
    assert figures["AP"] == pytest.approx(100 * reference.stats[0], abs=1e-6)
    assert [image["file_name"] for image in told["images"]] == [annotation.file for annotation, _ in pairs]
    curve = reference.eval["precision"][0, :, 1, 0, -1]
    assert told["precision_at_iou_50"]["dog"] == pytest.approx(curve, abs=1e-4)


def test_annotations_are_written_as_coco_has_them() -> None:
    marked = Annotation(
        "somewhere.json, image a.png",
        "a.png",
        (40, 60),
        torch.tensor([[1.0, 2.0, 11.0, 22.0], [0.0, 0.0, 60.0, 40.0]], dtype=torch.float64),
        torch.tensor([2, 0]),
        torch.tensor([False, True]),
        torch.tensor([150.0, 2400.0], dtype=torch.float64),
    )
    assert coco_truth([marked], CLASSES, masks=False) == {
        "info": {},
        "images": [{"id": 1, "height": 40, "width": 60}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 10, 20], "area": 150, "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": [0, 0, 60, 40], "area": 2400, "iscrowd": 1},
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "hen"}],
    }


def test_masks_are_drawn_within_their_boxes_at_the_size_of_the_file() -> None:
    whole = torch.ones(1, 1, 28, 28)
    found = {"boxes": torch.tensor([[4.0, 2.0, 12.0, 10.0]]), "scores": torch.ones(1), "labels": torch.zeros(1).long()}
    [row] = detections({**found, "masks": whole}, (40, 60), (20, 30), 1)
    assert row["bbox"] == [8, 4, 16, 16]
    outline = {"size": [40, 60], "counts": row["segmentation"]["counts"]}
    one = torch.zeros(1)
    marked = Annotation("x", "x", (40, 60), torch.zeros(1, 4), one.long(), one > 0, one, (outline,))
    drawn = masks_of(marked)[0]
    assert drawn[4:20, 8:24].float().mean() > 0.9
    assert drawn.sum() <= 17 * 17


def test_evaluation_prints_nothing_and_leaves_what_it_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    pairs = random_set(6)
    truth = coco_truth([annotation for annotation, _ in pairs], CLASSES, False)
    found = [row for place, (one, seen) in enumerate(pairs, 1) for row in detections(seen, one.size, (48, 64), place)]
    before = copy.deepcopy((truth["annotations"], found))
    evaluate_coco(truth, found, "bbox")
    assert capsys.readouterr().out == ""
    assert (truth["annotations"], found) == before
