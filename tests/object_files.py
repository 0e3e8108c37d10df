"""Small data sets with objects, in the forms of VOC and COCO, for tests to read and to damage."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (60, 40)  # width and height
VOC = """<annotation><filename>{name}.jpg</filename><size><width>60</width><height>40</height><depth>3</depth></size>
{objects}</annotation>"""
VOC_OBJECT = """<object><name>{label}</name><difficult>{difficult}</difficult>
<bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"""
IMAGES = ("one", "two", "three", "four")
LISTS = {"trainval": "one\ntwo\n\nthree\n", "test": "four\n"}


def photo(seed: int, size: tuple[int, int] = SIZE) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def voc_object(label: str = "cat", box: tuple[Any, ...] = (11, 6, 30, 25), difficult: int = 0) -> str:
    x0, y0, x1, y1 = box
    return VOC_OBJECT.format(label=label, difficult=difficult, x0=x0, y0=y0, x1=x1, y1=y1)


def write_voc(root: Path) -> Path:
    """Three training images with a cat and a dog each, and a test image with a cat."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for seed, name in enumerate(IMAGES):
        (root / f"JPEGImages/{name}.png").write_bytes(photo(seed))
        objects = voc_object() + (voc_object("dog", (1, 1, 60, 40)) if name != "four" else "")
        (root / f"Annotations/{name}.xml").write_text(VOC.format(name=name, objects=objects))
    for name, lines in LISTS.items():
        (root / f"ImageSets/Main/{name}.txt").write_text(lines)
    return root


def coco_document(names: tuple[str, ...]) -> dict[str, Any]:
    """Every image with a cat, whose mask is a rectangle, and a dog in run lengths."""
    polygon = [[10.0, 5.0, 30.0, 5.0, 30.0, 25.0, 10.0, 25.0]]
    runs = {"size": [40, 60], "counts": [0, 2400]}
    document: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    document["categories"] = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]
    for place, name in enumerate(names):
        document["images"].append({"id": 100 + place, "file_name": f"{name}.png", "width": 60, "height": 40})
        for category, box, outline in ((3, [10, 5, 20, 20], polygon), (7, [0, 0, 60, 40], runs)):
            marked = {"id": len(document["annotations"]), "image_id": 100 + place, "category_id": category, "bbox": box}
            document["annotations"].append({**marked, "area": box[2] * box[3], "iscrowd": 0, "segmentation": outline})
    return document


def write_coco(root: Path) -> Path:
    for folder, names in (("train2017", IMAGES[:3]), ("val2017", IMAGES[3:])):
        (root / folder).mkdir(parents=True)
        for name in names:
            (root / folder / f"{name}.png").write_bytes(photo(IMAGES.index(name)))
        (root / "annotations").mkdir(exist_ok=True)
        (root / f"annotations/instances_{folder}.json").write_text(json.dumps(coco_document(names)))
    return root
