"""What lies in a run folder, as values: its searches and its trainings, finished or not."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jointsearch.data.datasets import DATASETS, FILES
from jointsearch.data.load import Loaded
from jointsearch.data.object_datasets import OBJECT_FILES
from jointsearch.data.object_load import LoadedObjects
from jointsearch.data.objects import Padded
from jointsearch.loops.repeat import SAME_AS
from jointsearch.report.contact_sheet import IMAGES, evenly_spread
from jointsearch.report.metric_facts import ACCURACY, MetricFacts, metric_facts
from jointsearch.runs.run_folder import OWN_NETWORK, PROPOSAL, RESULT_FILE, SETTINGS_FILE
from jointsearch.runs.track import METRICS_FILE, read_metrics
from jointsearch.settings import build
from search_spaces.errors import InputError
from search_spaces.plain_json import read_json, shown_path

VALIDATION = "validation_"  # begins what was measured on validation images, in the record of an epoch


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
    def proposal(self) -> str | None:
        """Of a search whose finding another one judges, its name."""
        return self.group.removeprefix(PROPOSAL) if self.group.startswith(PROPOSAL) else None

    @property
    def outcome(self) -> str:
        """Of a search, what it finds, in words."""
        if self.proposal is not None:
            return f"Proposal {self.proposal}"
        return str(self.setting("search", "outcome") or "Policy")

    @property
    def finds_cells(self) -> bool:
        """Of a search, whether cells are among what it finds."""
        return self.setting("search", "architecture") is not None

    @property
    def finds_policy(self) -> bool:
        """Of a search, whether a policy is among what it finds."""
        return self.setting("search", "searcher") is not None

    @property
    def folds(self) -> int:
        """Of a search by whole trainings, the folds of the training images; 0 for any other."""
        return int(self.setting("search", "searcher", "folds") or 0)

    @property
    def selected(self) -> dict[str, Any]:
        """The record of the epoch whose policy and cells are the outcome; where none is named, the last."""
        named = (self.result or {}).get("selected_epoch") if "search" in self.settings else None
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
    def trained(self) -> tuple[Part, ...]:
        """The trainings that were carried out; the others have the result of one that is the same."""
        return tuple(part for part in self.trainings if SAME_AS not in (part.result or {}))

    @property
    def steps(self) -> tuple[tuple[Part, ...], ...]:
        """The searches of every seed, step by step: search=separate has two steps, the others one."""
        groups = dict.fromkeys(part.group for part in self.searches)
        return tuple(tuple(part for part in self.searches if part.group == group) for group in groups)

    @property
    def metric(self) -> MetricFacts:
        """The metric of its results; where none names one, what the epochs were scored by."""
        named = (part for part in self.parts if "metric" in (part.result or {}))
        if (part := next(named, None)) is not None:
            return metric_facts(part.result or {}, shown_path(part.folder))
        scored = {key for part in self.parts for record in part.epochs for key in record if key.startswith(VALIDATION)}
        others = sorted(scored - {ACCURACY.validation, f"{VALIDATION}loss"})
        alone = others and ACCURACY.validation not in scored
        return MetricFacts(others[0].removeprefix(VALIDATION)) if alone else ACCURACY

    @property
    def data_name(self) -> str:
        """What it was made on, in a title: the name of a folder of photos or of an archive, else of the data set."""
        place = self.first.setting("dataset", "path")
        name = str(self.first.setting("dataset", "name"))
        return re.sub(r"\.(tar|zip|tgz|tar\.gz)$", "", place) or name if isinstance(place, str) and place else name

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


def seconds(parts: Iterable[Part]) -> float:
    """How long some parts took together."""
    return sum(part.figure("seconds") or 0 for part in parts)


def number(value: Any) -> float | None:
    """A value of a file, if it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def training_images(part: Part, dataset: Any = None) -> Tensor:
    """Some of the images (M, C, H, W) that trained the weights of a part; InputError if they are not found again."""
    loaded = load_data(part, dataset)
    if part.folds:
        train = loaded.fold_splits(part.seed, 0, part.folds).train
    elif "search" in part.settings and not part.setting("search", OWN_NETWORK):
        train = loaded.search_splits(part.seed, *(part.setting("search", name) for name in ("images", "classes"))).train
    else:
        train = loaded.splits(part.seed).train
    if len(train) != part.setting("data", "train"):
        raise InputError(
            f"dataset {loaded.settings.name} has {len(train)} training images and the run had "
            f"{part.setting('data', 'train')}; give the data set of the run"
        )
    order = torch.tensor(evenly_spread(len(train), IMAGES))
    images = next(iter(train.batches(order, IMAGES))).images
    if not isinstance(images, Padded):
        return images
    (height, width), places = max(images.groups(), key=lambda group: len(group[1]))
    return images.pixels[places, :, :height, :width]


def load_data(part: Part, dataset: Any) -> Any:
    """The data set of a part: read already, or from settings that say where it lies, or from what it recorded.

    A run keeps the name of a file or folder and not its place, so it is not looked for.
    """
    if isinstance(dataset, Loaded | LoadedObjects):
        return dataset
    settings = dataset or _recorded_dataset(part.setting("dataset"))
    if dataset is None and getattr(settings, "path", None) is not None:
        raise InputError(f"the run does not say where its {settings.name} lies; give dataset= and dataset.path")
    changes: dict[str, Any] = {"download": False} if hasattr(settings, "download") else {}
    if isinstance(settings, FILES):
        # A few images are looked at, not all of them decoded.
        changes |= {"in_memory": "never", "workers": 0}
    elif isinstance(settings, OBJECT_FILES):
        changes |= {"in_memory": "never", "workers": 0}
    found = replace(settings, **changes)
    return Loaded(found) if part.setting("detector") is None else LoadedObjects(found, masks=False)


def _recorded_dataset(recorded: Any) -> Any:
    """The data set that a run recorded; only its settings are data, the class is one of ours."""
    name = recorded.get("name") if isinstance(recorded, dict) else None
    if name not in DATASETS:
        raise InputError(f"the run was on a data set that is not ours ({name}); give dataset=")
    plain = {key: value for key, value in recorded.items() if key != "name"}
    plain["standard"] = {key: value for key, value in plain.get("standard", {}).items() if key != "is"}
    return build(DATASETS[name], plain, "dataset")


def read_part(path: Path, group: str) -> Part:
    """Read the search or training whose settings file this is."""
    settings = _record(path, "settings")
    seed = settings.get("seed")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise InputError(f"{shown_path(path)} has no seed as runs have; restore the file or move its folder away")
    birth, result, metrics = (path.with_name(name) for name in ("birth.json", RESULT_FILE, METRICS_FILE))
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
