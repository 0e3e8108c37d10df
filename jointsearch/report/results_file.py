"""A results file: the trainings or searches of one table as JSON lines, small enough to lie beside the code.

Line 1 names the format and holds what all lines have in common. Every other line is one training or search:

    {"format": "jointsearch-results", "version": 1, "settings": {...}, "birth": {...}}
    {"row": "trivialaugment", "seed": 0, "settings": {...}, "birth": {...}, "result": {...}, "policy": "trivialaugment"}

The whole settings and birth certificate of a line are those of line 1 with its own on top. In a list of numbers
{"times": 31, "value": 0.5} stands for 31 equal neighbors.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jointsearch.report.results_policy import unpack_policy
from search_spaces.errors import InputError
from search_spaces.genotype import Genotype
from search_spaces.plain_json import check_header, check_keys, parse_json, read_text, shown, shown_path
from search_spaces.policy import Policy
from search_spaces.schedule import PolicySchedule

FORMAT, VERSION = "jointsearch-results", 1
RESULTS_BYTES = 4_000_000
SHARED = ("settings", "birth")  # what line 1 may hold for all lines
KEYS = {"row", "seed", *SHARED, "result", "policy", "genotype", "curve"}
MOST_TIMES = 100_000
REMEDY = "Give a file that write_results made, or a run folder"


@dataclass(frozen=True)
class Record:
    """One training or search: settings, birth certificate, final figures, and what it trained with or found."""

    row: str  # its name in tables: of a training the policy, of a search the folder it lay in
    seed: int
    settings: dict[str, Any]
    birth: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] | None = None  # None: not finished
    packed_policy: Any = None  # as pack_policy writes it
    darts: str | None = None  # the genotype in DARTS's form
    curve: tuple[dict[str, Any], ...] = ()  # metrics by epoch, of the few whose curves are shown
    place: str = field(default="", compare=False)  # where it was read, for errors

    @property
    def is_search(self) -> bool:
        """Whether it is a search, and not a training."""
        return "search" in self.settings

    @property
    def policy(self) -> Policy | PolicySchedule | None:
        """The policy of a training, or what a search found."""
        return None if self.packed_policy is None else unpack_policy(self.packed_policy, f"{self.place}: policy")

    @property
    def genotype(self) -> Genotype | None:
        """The cells of a training, or what a search found."""
        return None if self.darts is None else Genotype.from_darts(self.darts, where=f"{self.place}: genotype")


def read_results(path: Path | str) -> tuple[Record, ...]:
    """All lines of a results file; InputError names the line that is damaged."""
    where = f"results file {shown_path(path)}"
    first, *lines = read_text(path, "results", RESULTS_BYTES).removesuffix("\n").split("\n")
    header = parse_json(first, f"{where}, line 1,")
    check_header(header, FORMAT, (VERSION,), {*SHARED}, f"{where}, line 1", REMEDY)
    common = {key: _object(header, key, f"{where}, line 1") for key in SHARED}
    records = [_record(line, common, f"{where}, line {number}") for number, line in enumerate(lines, start=2)]
    check_once(records)
    return tuple(records)


def check_once(records: list[Record]) -> None:
    """Refuse two records of one row and seed: a table would count the training twice."""
    seen: dict[Any, Record] = {}
    for record in records:
        was = seen.setdefault((record.is_search, record.row, record.seed), record)
        if was is not record:
            raise InputError(
                f"{record.place} repeats seed {record.seed} of {record.row}, which {was.place} has; drop one"
            )


def _record(line: str, common: dict[str, dict[str, Any]], where: str) -> Record:
    data = parse_json(line, f"{where},")
    check_keys(data, KEYS, where)
    row, seed = data.get("row"), data.get("seed")
    if not isinstance(row, str) or not row.isprintable() or not row:
        raise InputError(f"{where} has the row {shown(row)}; give the name of its row in the table")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError(f"{where} has the seed {shown(seed)}; give a whole number, 0 or more")
    settings, birth = (laid_over(common[key], _object(data, key, where)) for key in SHARED)
    curve, darts = data.get("curve", []), data.get("genotype")
    if not isinstance(curve, list) or not all(isinstance(epoch, dict) for epoch in curve):
        raise InputError(f"{where} has the curve {shown(curve)}; give a list of objects, one for each epoch")
    if darts is not None and not isinstance(darts, str):
        raise InputError(
            f"{where} has the genotype {shown(darts)}; write it as DARTS does, Genotype(normal=[...], ...)"
        )
    result = _unfolded(_object(data, "result", where), where) if "result" in data else None
    return Record(row, seed, {**settings, "seed": seed}, birth, result, data.get("policy"), darts, tuple(curve), where)


def laid_over(common: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Common plain data with that of one line on top, object by object."""
    both = {**common, **own}
    for key in common.keys() & own.keys():
        if isinstance(common[key], dict) and isinstance(own[key], dict):
            both[key] = laid_over(common[key], own[key])
    return both


def _object(data: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    value = data.get(key, {})
    if not isinstance(value, dict):
        raise InputError(f"{where} has {key} {shown(value)}; wanted an object")
    return value


def _unfolded(value: Any, where: str) -> Any:
    if isinstance(value, dict):
        return {key: _unfolded(inner, where) for key, inner in value.items()}
    if not isinstance(value, list):
        return value
    unfolded: list[Any] = []
    for entry in value:
        if isinstance(entry, dict) and entry.keys() == {"times", "value"}:
            times = entry["times"]
            if isinstance(times, bool) or not isinstance(times, int) or not 0 < times <= MOST_TIMES:
                raise InputError(
                    f"{where} has the times {shown(times)}; wanted a whole number from 1 to {MOST_TIMES:,}"
                )
            unfolded += [entry["value"]] * times
        else:
            unfolded.append(_unfolded(entry, where))
    return unfolded
