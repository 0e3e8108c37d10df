"""report.html: a run on one page, in one file that loads nothing from the internet."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jointsearch.report.chance import Chance, chance_of
from jointsearch.report.comparison import Comparison, compare
from jointsearch.report.page_comparison import comparison_section
from jointsearch.report.page_cost import cost_section
from jointsearch.report.page_detection import detection_section
from jointsearch.report.page_gallery import gallery
from jointsearch.report.page_groups import groups_section
from jointsearch.report.page_history import training_history
from jointsearch.report.page_html import Html, document, facts, tag
from jointsearch.report.page_mistakes import mistakes_section
from jointsearch.report.page_run import Part, Run, read_run
from jointsearch.report.page_searches import progress, searches_section
from jointsearch.report.page_trajectories import trajectories
from jointsearch.report.page_verdict import verdict
from jointsearch.report.pictures import Pictures
from jointsearch.runs.run_folder import replace_file
from search_spaces.errors import InputError
from search_spaces.plain_json import shown_path

NAME = "report.html"
CERTIFICATE = ("command", "commit", "hardware", "threads", "python", "torch", "torchvision")


def write_report(folder: Path | str, dataset: Any = None) -> Path:
    """Write report.html into a run folder; `dataset` holds its images, or says where they lie: a run does not.

    The few images that it shows are left beside it, so that it can be written again without the data.
    """
    run = read_run(folder)
    path, pictures = run.folder / NAME, Pictures(run, dataset)
    compared, problem = _compared(run)
    chance = chance_of(run)
    sections = _sections(run, compared, problem, chance, pictures)
    page = document(_title(run), _head(run, compared, chance), *sections)
    try:
        pictures.keep()
        replace_file(path, page.encode())
    except OSError as error:
        reason = f"{shown_path(path)} cannot be written ({error.strerror})"
        raise InputError(f"{reason}; copy the run folder to a place where you may write") from None
    return path


def _sections(
    run: Run, compared: Comparison | None, problem: str, chance: Chance | None, pictures: Pictures
) -> list[Html]:
    sections = {
        "Compared with controls": comparison_section(run, compared, problem, chance),
        "Accuracy and cost" if run.metric.name == "accuracy" else "Score and cost": cost_section(run, compared, chance),
        "Groups": groups_section(run),
        "What was searched": searches_section(run),
        "What was detected": detection_section(run, pictures),
        "What was found, in pictures" if run.searches else "The policies, in pictures": gallery(run, pictures),
        "What is mistaken for what": mistakes_section(run, compared, pictures),
        "How the search went": [part for step in run.steps for part in _history(step, run)],
        "How the trainings went": training_history(run),
        "Command, versions and settings": _origin(run),
    }
    return [tag("section", tag("h2", name), *parts) for name, parts in sections.items() if parts]


def _compared(run: Run) -> tuple[Comparison | None, str]:
    """All trainings side by side, or why they cannot stand so."""
    if not run.trainings:
        return None, ""
    try:
        return compare([run.folder]), ""
    except InputError as problem:
        return None, str(problem)


def _title(run: Run) -> str:
    if not run.searches:
        return f"Trainings on {run.data_name}"
    judged = [step[0].outcome for step in run.steps if step[0].proposal is None]  # what they judge is told below
    first, *others = judged or [run.steps[0][0].outcome]
    return f"{', then '.join([first, *map(str.lower, others)])}, searched on {run.data_name}"


def _head(run: Run, compared: Comparison | None, chance: Chance | None) -> Html:
    open_parts = [f"{part.name} ({progress(part)})" for part in run.parts if part.result is None]
    seeds = sorted({part.seed for part in run.parts})
    told = f"Run {run.folder.resolve().name}, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    lines = [tag("h1", _title(run)), tag("p", told, class_="faint")]
    lines += [tag("p", said, class_="verdict") for said in verdict(run, compared, chance)]
    if open_parts:
        said = "To continue, repeat the command below with run= set to this folder."
        lines.append(tag("p", f"Not finished: {', '.join(open_parts)}. {said}", class_="note"))
    return tag("header", *lines)


def _history(step: Sequence[Part], run: Run) -> list[Html]:
    shown = trajectories(step, run.metric)
    several = any(part.group for part in step)
    return [tag("h3", step[0].outcome), *shown] if shown and several else shown


def _origin(run: Run) -> list[Html]:
    told = [(name, _distinct([part.birth.get(name) for part in run.parts])) for name in CERTIFICATE]
    dates = sorted(str(part.birth["date"]).replace("T", " ") for part in run.parts if "date" in part.birth)
    told.append(("begun", " to ".join(dict.fromkeys([dates[0], dates[-1]])) if dates else ""))
    chosen: dict[str, Any] = {part.name: part.settings for step in run.steps for part in step[:1]}
    chosen |= {part.name: part.settings for part in run.trainings[:1]}
    settings = [
        tag("details", tag("summary", f"Settings of {name}"), tag("pre", json.dumps(data, indent=2), tabindex=0))
        for name, data in chosen.items()
    ]
    return [facts(told), *settings]


def _distinct(values: Sequence[Any]) -> str:
    known = sorted({str(value) for value in values if value is not None})
    return ", ".join(known[:3]) + (f" and {len(known) - 3} more" if len(known) > 3 else "")
