"""Where trainings lie: run folders, folders of run folders as a sweep leaves them, results files, and runs of W&B."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jointsearch.report.results_file import Record, read_results
from jointsearch.runs.run_folder import OWN_NETWORK, RESULT_FILE, SETTINGS_FILE
from jointsearch.runs.wandb_runs import WANDB, BoardRun, read_offline_run, read_wandb_runs
from jointsearch.sweeps.work import DONE_FILE
from search_spaces.errors import InputError
from search_spaces.plain_json import read_json, shown_path

CELLS = "Cells"  # the outcome of a search that finds no policy
FOUND = "found"  # the row that is trained with what a search found
FINDINGS = (FOUND, OWN_NETWORK)  # rows that owe themselves to a search
DETECTION = "detection"  # within a run folder, the trainings of detectors on its networks
WORDS = re.compile(r"(?:^|[\s,])((?:preset|search|searcher)=[\w.-]+)")  # of a command, those that choose a method


@dataclass(frozen=True)
class Source:
    """The trainings of one run, and the searches that found what they were trained with."""

    place: str
    trainings: tuple[Record, ...]
    searches: tuple[Record, ...] = ()
    words: tuple[str, ...] = ()  # of its command, those that choose a method
    by_row: bool = False  # whether a search belongs to the row of its own name, as in results files

    def searches_of(self, training: Record) -> tuple[Record, ...]:
        """The searches that found what a training was trained with."""
        same = tuple(one for one in self.searches if one.seed == training.seed)
        if self.by_row:
            return tuple(one for one in same if one.row == training.row)
        if training.row == OWN_NETWORK or not self.is_found(training.row, training.settings):
            return ()  # the network of a search cost what the search did, as its training says
        # A row with cells of its own owes itself to the search of a policy alone.
        return tuple(one for one in same if "@" not in training.row or _outcome(one) != CELLS)

    def is_found(self, row: str, settings: dict[str, Any]) -> bool:
        """Whether a row was trained with what a search found: its policy, or cells, where the row names no others."""
        if self.by_row:
            return False
        options = settings.get("network_options")
        cells = isinstance(options, dict) and "genotype" in options and "@" not in row
        return re.split("[@+]", row)[0] in FINDINGS or (cells and bool(self.searches))


def _outcome(search: Record) -> object:
    told = search.settings.get("search")
    return told.get("outcome") if isinstance(told, dict) else None


def sources_of(places: Sequence[Path | str]) -> list[Source]:
    """The runs at the places that a person names, each once; InputError for a place where there is no training."""
    found = {Path(source.place).resolve(): source for place in places for source in _at(place)}
    return list(found.values())


def _at(given: Path | str) -> list[Source]:
    if str(given).startswith(WANDB):
        sources = [_of_board(run) for run in read_wandb_runs(str(given))]
    else:
        sources = _of_path(Path(given))
    if not any(source.trainings for source in sources):
        raise InputError(
            f"no training found below {shown_path(given)}; give a run folder of retrain.py or joint_search.py, a "
            "folder of several, a file of results that holds trainings, or wandb:entity/project"
        )
    return sources


def _of_path(path: Path) -> list[Source]:
    if path.is_file():
        return [_of_results(path)]
    if path.name.startswith("offline-run-"):
        # Our own lie in their run folder, which tells more.
        around = path.resolve().parents[1]
        return [_of_folder(around)] if _is_run(around) else [_of_board(read_offline_run(path))]
    return [_of_folder(folder) for folder in run_folders(path)]


def run_folders(path: Path) -> list[Path]:
    """The run folder itself, or all run folders below."""
    if not path.is_dir():
        return []
    if _is_run(path):
        return [path]
    inner = sorted(one for one in path.iterdir() if one.is_dir() and not one.is_symlink())
    return [found for one in inner for found in run_folders(one)]


def _is_run(path: Path) -> bool:
    patterns = (f"*/seed*/{SETTINGS_FILE}", f"search-seed*/{SETTINGS_FILE}")
    return any(next(path.glob(pattern), None) is not None for pattern in patterns)


def _of_folder(folder: Path) -> Source:
    searched = folder.parents[1] if folder.resolve().parent.name == DETECTION else folder
    paths = [*searched.glob(f"search-seed*/{SETTINGS_FILE}"), *searched.glob(f"*/search-seed*/{SETTINGS_FILE}")]
    searches = [_record(path) for path in sorted(paths)]
    trainings = [_record(path) for path in sorted(folder.glob(f"*/seed*/{SETTINGS_FILE}"))]
    return Source(str(folder), tuple(trainings), tuple(searches), _words(searched, searches))


def _words(folder: Path, searches: Sequence[Record]) -> tuple[str, ...]:
    """How the run was started, where that was written down: of a sweep in its member, else in birth certificates."""
    member = folder / DONE_FILE
    told = read_json(member, "member of a sweep") if member.is_file() else {}
    words = told.get("words") if isinstance(told, dict) else None
    typed = " ".join(map(str, words)) if isinstance(words, list) else ""
    commands = [typed, *(str(one.birth.get("command", "")) for one in searches), folder.resolve().name]
    return next((words for command in commands if (words := tuple(WORDS.findall(command)))), ())


def _record(path: Path) -> Record:
    """A training or search by its settings file."""
    settings, birth, result = read_json(path, "settings"), path.with_name("birth.json"), path.with_name(RESULT_FILE)
    told = read_json(birth, "birth certificate") if birth.is_file() else {}
    return Record(
        row=path.parents[1].name,
        seed=int(number(settings, "seed", shown_path(path))),
        settings=settings,
        birth=told if isinstance(told, dict) else {},
        result=read_json(result, "result") if result.is_file() else None,
        place=str(path.parent),
    )


def _of_results(path: Path) -> Source:
    records = read_results(path)
    trainings = tuple(record for record in records if not record.is_search)
    return Source(str(path), trainings, tuple(record for record in records if record.is_search), by_row=True)


def _of_board(run: BoardRun) -> Source:
    trainings, searches = (tuple(_told(run, one) for one in told) for told in (run.trainings, run.searches))
    return Source(run.place, trainings, searches, tuple(WORDS.findall(str(run.birth.get("command", "")))))


def _told(run: BoardRun, one: dict[str, Any]) -> Record:
    row, seed = str(one["row"]), int(number(one, "seed", run.place))
    place = f"{run.place}, {row}/seed{seed}"
    return Record(row, seed, one["settings"], run.birth, one["result"], place=place)


def number(data: Any, key: str, place: str) -> Any:
    """A number of a file; InputError where there is none."""
    value = data.get(key) if isinstance(data, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(
            f"{place} has no number {key}; choose another metric, restore the file or leave the folder out"
        )
    return value
