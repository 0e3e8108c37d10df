"""What the tests of the report share: run folders written by hand, as searches leave them, and a strict reader."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jointsearch.data.datasets import Digits
from jointsearch.loops.grid import plain_dataset
from search_spaces.cells.random import random_genotype
from search_spaces.cells.space import CELL_SPACES
from search_spaces.controls import named_policy
from search_spaces.policy import OpChoice, Policy, SubPolicy

DIGITS = Digits()
FOUND = Policy((SubPolicy((OpChoice("Invert"),), 3.0), SubPolicy((OpChoice("Rotate", 0.5, 1.0),))), "found")
OUTCOMES = {"policy": "Policy", "architecture": "Cells", "joint": "Policy and cells"}
EPOCHS = 4
SEEDS = (0, 1)
BIRTH = {
    "command": "joint_search.py seeds=[0,1]",
    "commit": "0123456789ab",
    "date": "2026-01-02T03:04:05+00:00",
    "python": "3.11.7",
    "torch": "2.15.0",
    "torchvision": "0.29.2",
    "hardware": "a processor, 2 cores",
    "threads": 1,
}


def write(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def edit(path: Path, **changes: Any) -> None:
    """Change the top level of a JSON file."""
    write(path, json.loads(path.read_text()) | changes)


def settings(seed: int, train: int, **others: Any) -> dict[str, Any]:
    data = {"train": train, "validation": 150, "digest": str(seed)}
    recipe = {"epochs": EPOCHS}
    dataset = plain_dataset(DIGITS)
    return {"network": "tiny_cnn", "recipe": recipe, "seed": seed, "dataset": dataset, "data": data, **others}


def write_metrics(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record | {"step": 3 * record["epoch"]}) + "\n" for record in records))


def write_search(folder: Path, seed: int, searched: str = "policy", select_epoch: str = "last") -> None:
    """A finished search; of `select_epoch=best` the second epoch is selected."""
    search: dict[str, Any] = {"outcome": OUTCOMES[searched], "select_epoch": select_epoch}
    if searched != "architecture":
        search["searcher"] = {"is": "Differentiable"}
    if searched != "policy":
        search["architecture"] = {"order": "first"}
    write(folder / "settings.json", settings(seed, 150, search=search))
    write(folder / "birth.json", BIRTH)
    records = [
        {
            **{"epoch": epoch, "train_loss": 3.0 - epoch / 2, "validation_accuracy": 90 - 5 * abs(epoch - 2) + seed},
            **{"effective_sub_policies": 10.0 / epoch, "share/Invert": 0.2 * epoch, "share/Rotate": 0.1},
        }
        for epoch in range(1, EPOCHS + 1)
    ]
    write_metrics(folder / "metrics.jsonl", records)
    selected = 2 if select_epoch == "best" else EPOCHS
    figures = {"epochs": EPOCHS, "seconds": 30.0, "forward_equivalents": 1200, "skipped_steps": 0}
    shares = {"sub_policy_preferences": [0.5, 0.3, 0.2] if seed else [0.4, 0.35, 0.25]}
    write(folder / "result.json", {**figures, **shares, "select_epoch": select_epoch, "selected_epoch": selected})
    FOUND.save(folder / "policy.json")
    if searched != "policy":
        random_genotype(CELL_SPACES["small"], seed).save(folder / "genotype.json")


def write_training(folder: Path, seed: int, accuracy: float) -> None:
    write(folder / "settings.json", settings(seed, 300))
    write(folder / "birth.json", BIRTH)
    write_metrics(folder / "metrics.jsonl", [{"epoch": epoch, "train_loss": 2.0 / epoch} for epoch in (1, 2, 3, 4)])
    figures = {"epochs": EPOCHS, "seconds": 10.0, "test_images": 749, "test_accuracy_last": accuracy}
    write(folder / "result.json", figures)
    named_policy("none" if folder.parent.name == "none" else "random-s1").save(folder / "policy.json")


def write_trainings(folder: Path, seeds: tuple[int, ...] = SEEDS) -> None:
    """Of what was found, and of the control without a policy: better by 1, 1.2, 1.4, ..."""
    for seed in seeds:
        write_training(folder / "none" / f"seed{seed}", seed, 80.0 + seed)
        write_training(folder / "found" / f"seed{seed}", seed, 81.0 + 1.2 * seed)


def write_run(folder: Path, searched: str = "policy", select_epoch: str = "last") -> Path:
    """A finished run of joint_search.py."""
    for seed in SEEDS:
        first = "policy" if searched == "separate" else searched
        place = folder / "policy" if searched == "separate" else folder
        write_search(place / f"search-seed{seed}", seed, first, select_epoch)
        if searched == "separate":
            write_search(folder / f"search-seed{seed}", seed, "architecture", select_epoch)
    write_trainings(folder)
    return folder


HOSTILE = "<img src=x onerror=alert(1)>\"'&"


def write_hostile_run(folder: Path) -> Path:
    """A run in which everything that has a name is called HOSTILE."""
    write_run(folder)
    search = folder / "search-seed0"
    edit(search / "settings.json", network=HOSTILE, network_options={HOSTILE: HOSTILE}, dataset={"name": HOSTILE})
    edit(search / "birth.json", **dict.fromkeys(BIRTH, HOSTILE))
    records = [{"epoch": epoch, HOSTILE: epoch, f"share/{HOSTILE}": 0.5, "loss": HOSTILE} for epoch in (1, 2)]
    write_metrics(search / "metrics.jsonl", records)
    Policy(FOUND.sub_policies, HOSTILE).save(search / "policy.json")
    (folder / "found").rename(folder / HOSTILE)
    return folder


EMPTY = ("meta", "link", "img")
# With these elements and attributes nothing can run, and nothing but `src` and `href` can load.
ELEMENTS = (
    "html|head|meta|link|title|style|body|main|header|section|h[123]|p|span|b|div|dl|dt|dd|details|summary|pre|"
    "table|thead|tbody|tr|th|td|figure|figcaption|img|svg|line|polyline|circle|text"
)
ATTRIBUTES = (
    "lang|charset|http-equiv|content|name|rel|href|src|alt|width|height|class|role|aria-label|tabindex|open|"
    "viewbox|[xy][12]?|c[xy]|r|points|text-anchor"
)
INSIDE = ("data:image/png;base64,", "data:image/jpeg;base64,", "data:,")


class Page(HTMLParser):
    """A page taken apart; what is not well-formed, or could run or load something, fails here."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.html = path.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.rows: list[list[str]] = []
        self.feed(self.html)
        self.close()
        assert not self.open

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attributes}
        assert re.fullmatch(ELEMENTS, name)
        assert all(re.fullmatch(ATTRIBUTES, key) for key in given)
        assert len(given) == len(attributes), "an attribute twice"
        assert all(given[key].startswith(INSIDE) for key in ("src", "href") if key in given)
        self.elements.append((name, given))
        if name == "tr":
            self.rows.append([])
        if name in ("th", "td"):
            self.rows[-1].append("")
        if name not in EMPTY:
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))
        if self.open and self.open[-1] in ("th", "td"):
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        return "\n".join(data for place, data in self.texts if place != "style")

    def images(self) -> list[np.ndarray]:
        sources = [given["src"] for name, given in self.elements if name == "img"]
        return [np.array(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))) for source in sources]


def write_predictions(folder: Path, counts: list[int]) -> None:
    """What a training leaves that mistakes no test image, of so many images of each class."""
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    names = [f"class {label}" for label in range(len(counts))]
    told = {"classes": names, "labels": labels, "predicted": labels, "confidence": [1.0] * len(labels)}
    write(folder / "predictions.json", told)
