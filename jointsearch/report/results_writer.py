"""Makes a results file out of run folders, or adds run folders to one."""

import itertools
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from jointsearch.report.page_run import Part, read_part
from jointsearch.report.results_file import FORMAT, VERSION, Record, check_once, read_results
from jointsearch.report.results_policy import pack_policy
from jointsearch.runs.run_folder import GENOTYPE_FILE, POLICY_FILE, SETTINGS_FILE, replace_file
from search_spaces.errors import InputError
from search_spaces.genotype import Genotype
from search_spaces.plain_json import shown_path
from search_spaces.schedule import load_policy_or_schedule

FEWEST_EQUAL = 3  # neighbors that are worth a {"times", "value"}


def write_results(
    sources: Sequence[Path | str], path: Path | str, curves: Collection[tuple[str, int]] = ()
) -> tuple[Record, ...]:
    """Write all trainings and searches of some run folders and results files into one results file, and return them.

    Metrics by epoch are left out, but for the (row, seed) in `curves` and what a results file already has.
    """
    records = [record for source in sources for record in records_of(source, curves)]
    if not records:
        raise InputError(f"no training found below {', '.join(shown_path(one) for one in sources)}; give a run folder")
    check_once(records)
    if missing := set(curves) - {(record.row, record.seed) for record in records if record.curve}:
        raise InputError(
            f"curves names {min(missing)}, which has no metrics there; give rows and seeds of these folders"
        )
    records.sort(key=lambda record: (record.row, record.seed))
    settings, births = ([_without_seed(record) for record in records], [record.birth for record in records])
    common = {"settings": _common(settings), "birth": _common(births)}
    lines: list[dict[str, Any]] = [{"format": FORMAT, "version": VERSION, **common}]
    for record, own_settings, birth in zip(records, settings, births, strict=True):
        own = {"settings": _beyond(common["settings"], own_settings), "birth": _beyond(common["birth"], birth)}
        lines.append(_line(record, own))
    text = "".join(json.dumps(line, separators=(",", ":"), allow_nan=False) + "\n" for line in lines)
    replace_file(Path(path), text.encode())
    return tuple(records)


def records_of(source: Path | str, curves: Collection[tuple[str, int]] = ()) -> list[Record]:
    """All of a results file, or the trainings (ROW/seedN) and searches (search-seedN, at any depth) of a run folder.

    The row of a search is the folder it lies in. What is not finished is there without a result.
    """
    root = Path(source)
    if root.is_file():
        return list(read_results(root))
    records = [
        _record(read_part(path, path.parents[1].name), curves) for path in sorted(root.glob(f"*/seed*/{SETTINGS_FILE}"))
    ]
    for path in sorted(root.glob(f"**/search-seed*/{SETTINGS_FILE}")):
        inner = path.parents[1].relative_to(root).as_posix()
        records.append(_record(read_part(path, root.resolve().name if inner == "." else inner), curves))
    return records


def _record(part: Part, curves: Collection[tuple[str, int]]) -> Record:
    policy, genotype = part.folder / POLICY_FILE, part.folder / GENOTYPE_FILE
    return Record(
        row=part.group,
        seed=part.seed,
        settings=part.settings,
        birth=part.birth,
        result=part.result,
        packed_policy=pack_policy(load_policy_or_schedule(policy)) if policy.is_file() else None,
        darts=Genotype.load(genotype).to_darts() if genotype.is_file() else None,
        curve=part.epochs if (part.group, part.seed) in curves else (),
        place=shown_path(part.folder),
    )


def _line(record: Record, own: dict[str, Any]) -> dict[str, Any]:
    line: dict[str, Any] = {"row": record.row, "seed": record.seed}
    line |= {key: value for key, value in own.items() if value}
    if record.result is not None:
        line["result"] = _folded(record.result)
    others = {"policy": record.packed_policy, "genotype": record.darts, "curve": list(record.curve)}
    return line | {key: value for key, value in others.items() if value}


def _without_seed(record: Record) -> dict[str, Any]:
    return {key: value for key, value in record.settings.items() if key != "seed"}


def _common(objects: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What all objects agree in, object by object."""
    common: dict[str, Any] = {}
    for key in objects[0]:
        values = [one.get(key) for one in objects]
        if not all(key in one for one in objects):
            continue
        if all(isinstance(value, dict) for value in values):
            common[key] = _common([value for value in values if isinstance(value, dict)])
        elif all(json.dumps(value) == json.dumps(values[0]) for value in values):
            common[key] = values[0]
    return common


def _beyond(common: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    """What `common` lacks of the whole."""
    beyond: dict[str, Any] = {}
    for key, value in whole.items():
        if key not in common:
            beyond[key] = value
        elif isinstance(value, dict) and (inner := _beyond(common[key], value)):
            beyond[key] = inner
    return beyond


def _folded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _folded(inner) for key, inner in value.items()}
    if not isinstance(value, list):
        return value
    if not all(isinstance(entry, int | float) for entry in value):
        return [_folded(entry) for entry in value]
    folded: list[Any] = []
    for text, equal in itertools.groupby(value, key=json.dumps):
        times = len(list(equal))
        short = times >= FEWEST_EQUAL
        folded += [{"times": times, "value": json.loads(text)}] if short else [json.loads(text)] * times
    return folded
