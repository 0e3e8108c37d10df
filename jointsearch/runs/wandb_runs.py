"""Reads the trainings of finished commands back from Weights & Biases."""

import importlib
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search_spaces.errors import InputError
from search_spaces.plain_json import parse_json, shown, shown_path

WANDB = "wandb:"  # begins the name of runs on a server, as in wandb:entity/project/group
TRAININGS, SEARCHES = "trainings", "searches"  # in the summary of a run: lists of {row, seed, settings, result}
SETTINGS, BIRTH = "settings", "birth"  # of the command, in its config; a sweep keeps the names of its own for itself
KEYS = ("row", "seed", "settings", "result")
SECONDS = 60  # that reading one offline run may take


@dataclass(frozen=True)
class BoardRun:
    """What a W&B run holds of our trainings."""

    place: str
    trainings: tuple[dict[str, Any], ...]
    searches: tuple[dict[str, Any], ...] = ()
    birth: dict[str, Any] = field(default_factory=dict)


def read_wandb_runs(name: str) -> list[BoardRun]:
    """The runs of `wandb:entity/project`, or those of one group or sweep there: `wandb:entity/project/night`."""
    entity, _, rest = name.removeprefix(WANDB).partition("/")
    project, _, part = rest.partition("/")
    if not entity or not project:
        raise InputError(f"{name} names no project; write wandb:entity/project, or also /group or /sweep")
    try:
        wandb = importlib.import_module("wandb")
    except ImportError as error:
        raise InputError(f"{name} needs the package wandb ({error}); install it, or give run folders") from None
    try:
        filters = {"$or": [{"group": part}, {"sweep": part}]} if part else {}
        runs = wandb.Api().runs(f"{entity}/{project}", filters=filters)
        return [
            _board_run(f"{WANDB}{entity}/{project}/{run.id}", _plain(run.summary_metrics), _plain(run.config))
            for run in runs
        ]
    except (wandb.Error, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{name} cannot be read ({reason}); run `wandb login`, or give run folders") from None


def read_offline_run(folder: Path) -> BoardRun:
    """The run of an offline-run-* folder, read by wandb's own `leet inspect`."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise InputError(f"{shown_path(folder)} was not read within {SECONDS} s; give its run folder") from None
    where = f"offline run {shown_path(folder)}"
    if done.returncode:
        reason = " ".join(done.stderr.split())[-200:]
        raise InputError(f"{where} cannot be read ({reason}); give its run folder")
    told = parse_json(done.stdout, where, max_depth=20)
    return _board_run(str(folder), *(told.get(key) or {} for key in ("summary", "config")))


def _board_run(place: str, summary: Mapping[str, Any], config: Mapping[str, Any]) -> BoardRun:
    settings = config.get(SETTINGS)
    birth = settings.get(BIRTH) if isinstance(settings, dict) else None
    trainings, searches = (_parts(place, name, summary.get(name) or []) for name in (TRAININGS, SEARCHES))
    return BoardRun(place, trainings, searches, birth if isinstance(birth, dict) else {})


def _parts(place: str, name: str, told: Any) -> tuple[dict[str, Any], ...]:
    if not isinstance(told, list) or not all(isinstance(one, dict) and set(KEYS) <= one.keys() for one in told):
        raise InputError(f"{place} has the {name} {shown(told)}; wanted objects with {', '.join(KEYS)}")
    return tuple(told)


def _plain(value: Any) -> dict[str, Any]:
    """What the API hands out, as plain data."""
    found = json.loads(json.dumps(dict(value)))
    return found if isinstance(found, dict) else {}
