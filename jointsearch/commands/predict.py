"""Use a trained network: classes of images as a table, or boxes as COCO JSON and drawn pictures."""

import csv
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from jointsearch.data.decode import FITS, Form, decode_image
from jointsearch.data.files import IMAGE_SUFFIXES, Entry, shown
from jointsearch.data.folder import list_files
from jointsearch.data.objects import Padded, size_within
from jointsearch.data.standard import Standard, normalize
from jointsearch.device import choose_device
from jointsearch.metrics.coco import detections
from jointsearch.networks.trained import load_detector, load_network, read_description
from jointsearch.report.best import training_folder
from jointsearch.report.boxes_drawn import as_found, draw
from jointsearch.runs.run_folder import check_writable, replace_file
from jointsearch.settings import bounded, setting
from search_spaces.errors import InputError
from search_spaces.plain_json import shown_path

SUBJECT = "run"
MOST_USED = ("run", "images", "out", "least_score", "device")
BATCH = 64


@dataclass(frozen=True)
class Settings:
    """What is predicted by which network."""

    run: str | None = setting(None, help="folder of a training, or a run folder, of which the best row is taken")
    images: str | None = setting(None, help="a folder of images, an archive, or one image")
    out: str | None = setting(None, help="folder of the results; null: predictions in the folder of the training")
    least_score: float = bounded(0.5, 0.0, 1.0, help="of boxes that are drawn and written")
    device: str = setting("auto", help="auto, cpu, cuda, cuda:1, ...")
    plugins: tuple[str, ...] = setting((), help="Python files that add networks of your own")


def main(given: Settings) -> None:
    """Predict, write, and say where."""
    if given.run is None or given.images is None:
        raise InputError("predict needs run= and images=; give a folder of a training and one of images")
    folder = training_folder(Path(given.run))
    told = read_description(folder)
    entries = readable(images_in(Path(given.images).expanduser()))
    out = Path(given.out) if given.out else folder / "predictions"
    check_writable(out)
    print(f"{len(entries)} images by the network in {folder}", flush=True)
    device = choose_device(given.device)
    if "detector" in told:
        print(f"Boxes: {write_boxes(folder, told, entries, out, given.least_score, device)}, pictures beside it")
    else:
        print(f"Classes: {write_classes(folder, told, entries, out, device)}")


def images_in(path: Path) -> list[Entry]:
    """The images of a folder or an archive, also in folders within, or the one image that is named."""
    if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
        return [Entry(path.name, path.read_bytes)]
    entries = [entry for entry in list_files(path).entries if entry.name.lower().endswith(IMAGE_SUFFIXES)]
    if not entries:
        raise InputError(f"{shown_path(path)} holds no image; give a folder with {', '.join(IMAGE_SUFFIXES)}")
    return entries


def readable(entries: list[Entry]) -> list[Entry]:
    """The images that can be decoded; the others are told."""
    found = []
    for entry in entries:
        try:
            decode_image(entry.read(), shown(entry.name), 3)
        except InputError as error:
            print(f"Left out: {error}")
        else:
            found.append(entry)
    if not found:
        raise InputError("no image can be read; see the lines above")
    return found


def write_classes(folder: Path, told: dict[str, Any], entries: list[Entry], out: Path, device: torch.device) -> Path:
    """The likeliest class of every image with its probability, as a table."""
    network = load_network(folder).to(device)
    form, standard = _form(told), _standard(told)
    lines = [("image", "class", "probability")]
    for first in range(0, len(entries), BATCH):
        some = entries[first : first + BATCH]
        pixels = torch.stack([form.decode(entry.read(), shown(entry.name)) for entry in some]).to(device)
        with torch.no_grad():
            likely = network(normalize(pixels, standard)).softmax(1).max(1)
        found = zip(some, likely.indices.tolist(), likely.values.tolist(), strict=True)
        lines += [(entry.name, told["classes"][label], f"{value:.4f}") for entry, label, value in found]
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows(lines)
    return _written(out, "classes.csv", table.getvalue().encode("utf-8", "surrogateescape"))


def write_boxes(
    folder: Path, told: dict[str, Any], entries: list[Entry], out: Path, least: float, device: torch.device
) -> Path:
    """The boxes of every image in one file of COCO's form, and every image with its boxes drawn over it."""
    detector, standard, classes = load_detector(folder).to(device), _standard(told), told["classes"]
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for place, entry in enumerate(entries, start=1):
        image = decode_image(entry.read(), shown(entry.name), 3)
        height, width = image.shape[1:]
        found = _found(detector, image, told, standard, device)
        kept = [one for one in detections(*found, place) if one["score"] >= least]
        images.append({"id": place, "file_name": shown(entry.name), "height": height, "width": width})
        for one in kept:
            area = one["bbox"][2] * one["bbox"][3]
            boxes.append({"id": len(boxes) + 1, **one, "area": area, "iscrowd": 0})
        drawn = draw(image, as_found(kept, classes, (height, width)))
        _written(out / "drawn", f"{place:06d}_{_stem(entry.name)}.jpg", _jpeg(drawn))
    categories = [{"id": place, "name": name} for place, name in enumerate(classes, start=1)]
    whole = {"images": images, "annotations": boxes, "categories": categories}
    return _written(out, "boxes.json", json.dumps(whole).encode())


def _found(
    detector: Any, image: Tensor, told: dict[str, Any], standard: Standard, device: torch.device
) -> tuple[Any, tuple[int, int], tuple[int, int]]:
    """What a detector finds in an image, the image's size, and the size at which it was looked at."""
    height, width = image.shape[1:]
    size = size_within((height, width), told["shorter"], told["longer"])
    pixels = torch.nn.functional.interpolate(image[None], size, mode="bilinear", antialias=True).to(device)
    with torch.no_grad():
        [found] = detector(Padded(normalize(pixels, standard), torch.tensor([size])))
    return found, (height, width), size


def _standard(told: dict[str, Any]) -> Standard:
    return Standard(mean=tuple(told["mean"]), std=tuple(told["std"]))


def _jpeg(image: Tensor) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=90)
    return file.getvalue()


def _form(told: dict[str, Any]) -> Form:
    """How the images of the training were brought to one size; a network of before says nothing of it."""
    return Form(told["image_size"], told["channels"], told.get("background", 255), told.get("fit", FITS[0]))


def _stem(name: str) -> str:
    letters = os.path.splitext(os.path.basename(name))[0]
    return "".join(letter if letter.isalnum() and letter.isascii() else "_" for letter in letters)[:80]


def _written(folder: Path, name: str, content: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / name, content)
    return folder / name
