"""What lies in a run folder, as values: its searches and its trainings, finished or not."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jointsearch.data.load import FILES, DataSettings, load_search_splits, load_splits
from jointsearch.report.contact_sheet import IMAGES, evenly_spread
from jointsearch.run_folder import SETTINGS_FILE
from jointsearch.settings import build
from jointsearch.track import read_metrics
from search_spaces.errors import InputError
from search_spaces.plain_json import read_json, shown_path

OUTCOMES = {"joint": "Policy and cells", "architecture": "Cells", "policy": "Policy"}


@dataclass(frozen=True)
class Part:
    """One search or one training, and what it has written so far."""

    folder: Path
    group: str  # the policy that is trained; of a search the step of search=separate it is, else ""
    seed: int
    settings: dict[str, Any]
    birth: dict[str, Any]
    result: dict[str, Any] | None  # None: not finished
    epochs: tuple[dict[str, Any], ...]  # a record of metrics for each

    @property
    def name(self) -> str:
        """Its folder below that of the run."""
        return f"{self.group}/{self.folder.name}" if self.group else self.folder.name

    @property
    def searched(self) -> str:
        """Of a search, what it looked for: joint, architecture or policy."""
        return str(self.setting("search", "search") or "policy")

    @property
    def outcome(self) -> str:
        """Of a search, what it finds, in words."""
        return OUTCOMES.get(self.searched, self.searched)

    @property
    def kept(self) -> dict[str, Any]:
        """The record of the epoch whose policy and cells are the outcome; where none is named, the last."""
        named = (self.result or {}).get("kept_epoch")
        last = self.epochs[-1] if self.epochs else {}
        return next((record for record in self.epochs if record["epoch"] == named), last)

    def setting(self, *names: str) -> Any:
        """A setting by its path; None where it is not there."""
        value: Any = self.settings
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        return value

    def figure(self, name: str) -> float | None:
        """A number of the result."""
        return number((self.result or {}).get(name))


@dataclass(frozen=True)
class Run:
    """All of a run folder; searches in the order in which they were done."""

    folder: Path
    searches: tuple[Part, ...]
    trainings: tuple[Part, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        """Searches and trainings."""
        return self.searches + self.trainings

    @property
    def steps(self) -> tuple[tuple[Part, ...], ...]:
        """The searches of every seed, step by step: search=separate has two steps, the others one."""
        groups = dict.fromkeys(part.group for part in self.searches)
        return tuple(tuple(part for part in self.searches if part.group == group) for group in groups)

    @property
    def first(self) -> Part:
        """The part that is asked for what all have in common."""
        return self.parts[0]


def read_run(folder: Path | str) -> Run:
    """Read a run folder of joint_search.py or retrain.py; InputError for any other."""
    root = Path(folder)
    searches = [read_part(path, "") for path in root.glob(f"search-seed*/{SETTINGS_FILE}")]
    searches += [read_part(path, path.parents[1].name) for path in root.glob(f"*/search-seed*/{SETTINGS_FILE}")]
    trainings = [read_part(path, path.parents[1].name) for path in root.glob(f"*/seed*/{SETTINGS_FILE}")]
    if not searches and not trainings:
        raise InputError(
            f"no search and no training found below {shown_path(root)}; give a run folder of joint_search.py or "
            "retrain.py, as in run=runs/search/2026-01-01/12-00-00"
        )
    return Run(root, _by_seed(searches), _by_seed(trainings))


def number(value: Any) -> float | None:
    """A value of a file, if it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def training_images(part: Part, dataset: DataSettings | None = None) -> Tensor:
    """Some of the images (M, C, H, W) that trained the weights of a part; InputError if they are not found again.

    A run keeps the name of a file or folder and not its place, so it is not looked for: `dataset` may tell.
    """
    settings = dataset or build(DataSettings, part.setting("dataset") or {}, "dataset")
    if dataset is None and settings.path is not None:
        raise InputError(f"the run does not tell where its {settings.name} lies; give dataset= and dataset.path")
    settings = replace(settings, download=False)
    if settings.name in FILES:
        # A few images are looked at, not all of them decoded.
        settings = replace(settings, in_memory="never", workers=0)
    load = load_search_splits if "search" in part.settings else load_splits
    train = load(settings, part.seed).train
    if len(train) != part.setting("data", "train"):
        raise InputError(
            f"dataset {settings.name} has {len(train)} training images and the run had {part.setting('data', 'train')}"
            "; give the data set of the run"
        )
    order = torch.tensor(evenly_spread(len(train), IMAGES))
    return next(iter(train.batches(order, IMAGES))).images


def read_part(path: Path, group: str) -> Part:
    """Read the search or training whose settings file this is."""
    settings = _record(path, "trial")
    seed = settings.get("seed")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise InputError(f"{shown_path(path)} has no seed as runs have; restore the file or move its folder away")
    birth, result, metrics = (path.with_name(name) for name in ("birth.json", "result.json", "metrics.jsonl"))
    records = read_metrics(metrics) if metrics.is_file() else []
    return Part(
        folder=path.parent,
        group=group,
        seed=seed,
        settings=settings,
        birth=_record(birth, "birth certificate") if birth.is_file() else {},
        result=_record(result, "result") if result.is_file() else None,
        epochs=tuple(record for record in records if number(record.get("epoch")) is not None),
    )


def _record(path: Path, what: str) -> dict[str, Any]:
    data = read_json(path, what)
    if not isinstance(data, dict):
        raise InputError(f"{what} file {shown_path(path)} holds no object; restore it or move its folder away")
    return data


def _by_seed(parts: Iterable[Part]) -> tuple[Part, ...]:
    # Of search=separate, the step with a folder of its own came first.
    return tuple(sorted(parts, key=lambda part: (not part.group, part.group, part.seed)))
