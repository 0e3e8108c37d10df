"""report.html: a run on one page, in one file that loads nothing from the internet."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jointsearch.report.metric_facts import MetricFacts
from jointsearch.report.page_comparison import comparison_section
from jointsearch.report.page_detection import detection_section
from jointsearch.report.page_gallery import gallery
from jointsearch.report.page_history import search_history, training_history
from jointsearch.report.page_html import (
    DASH,
    Html,
    amount,
    document,
    duration,
    facts,
    percent,
    table,
    tag,
)
from jointsearch.report.page_run import Part, Run, number, read_run, seconds
from jointsearch.report.searches import agreement_between_seeds
from jointsearch.runs.run_folder import replace_file
from search_spaces.errors import InputError
from search_spaces.plain_json import shown_path

NAME = "report.html"
SELECTED = {
    "last": "of the last epoch",
    "best": "of the epoch in which the searched network had its best validation {metric}; of equal ones the later",
}
WAYS = {
    "searcher": ("is",),
    "epsilon": ("rewards", "epsilon"),
    "statistics": ("rewards", "statistics"),
    "estimator": ("estimator", "is"),
}
COSTS = ("forward_equivalents", "skipped_steps")
EXPLAINED = {
    "forward_equivalents": "A forward-equivalent is one forward pass of a batch. A backward pass counts as two, or as "
    "one where weights need no gradient.",
    "effective_sub_policies": "Sub-policies in use are counted by exp(entropy) of their chances: as many equally "
    "likely ones would have the same entropy.",
    "effective_candidates": "Candidates in use are counted in the same way; they are the ops among which an edge of a "
    "cell chooses.",
    "normal_skips": "Skip connections are those of the normal cell.",
    "skipped_steps": "From a skipped step nothing is learned, because its reward was not a finite number.",
}
CERTIFICATE = ("command", "commit", "hardware", "threads", "python", "torch", "torchvision")


def write_report(folder: Path | str, dataset: Any = None) -> Path:
    """Write report.html into a run folder; `dataset` holds its images, or says where they lie: a run does not."""
    run = read_run(folder)
    path = run.folder / NAME
    page = document(_title(run), _head(run), *_sections(run, dataset))
    try:
        replace_file(path, page.encode())
    except OSError as error:
        reason = f"{shown_path(path)} cannot be written ({error.strerror})"
        raise InputError(f"{reason}; copy the run folder to a place where you may write") from None
    return path


def _sections(run: Run, dataset: Any) -> list[Html]:
    sections = {
        "What was searched": _searches(run),
        "Compared with controls": comparison_section(run),
        "What was detected": detection_section(run, dataset),
        "What was found, in pictures": gallery(run, dataset),
        "How the search went": [part for step in run.steps for part in _history(step, run.metric)],
        "How the trainings went": training_history(run),
        "Command, versions and settings": _origin(run),
    }
    return [tag("section", tag("h2", name), *parts) for name, parts in sections.items() if parts]


def _title(run: Run) -> str:
    if not run.searches:
        return f"Trainings on {_data(run.first)}"
    first, *others = (step[0].outcome for step in run.steps)
    return f"{', then '.join([first, *map(str.lower, others)])}, searched on {_data(run.first)}"


def _data(part: Part) -> str:
    return str(part.setting("dataset", "name"))


def _head(run: Run) -> Html:
    open_parts = [f"{part.name} ({_progress(part)})" for part in run.parts if part.result is None]
    seeds = sorted({part.seed for part in run.parts})
    told = f"Run {run.folder.resolve().name}, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    lines = [tag("h1", _title(run)), tag("p", told, class_="faint")]
    if open_parts:
        said = "To continue, repeat the command below with run= set to this folder."
        lines.append(tag("p", f"Not finished: {', '.join(open_parts)}. {said}", class_="note"))
    return tag("header", *lines)


def _progress(part: Part) -> str:
    done = part.epochs[-1]["epoch"] if part.epochs else 0
    return f"{done:g} of {part.setting('recipe', 'epochs')} epochs"


def _searches(run: Run) -> list[Html]:
    metric = run.metric
    parts = [
        part for step in run.steps for part in (facts(_facts(step, metric)), _by_seed(step, metric), *_agreement(step))
    ]
    selected = [part.selected for part in run.searches]
    said = [text for name, text in EXPLAINED.items() if name in COSTS or any(name in record for record in selected)]
    return [*parts, tag("p", " ".join(said), class_="faint")] if parts else []


def _facts(step: Sequence[Part], metric: MetricFacts) -> list[tuple[str, object]]:
    part = step[0]
    found = {name: part.setting("search", "searcher", *names) for name, names in WAYS.items()}
    ways = [f"{name} {value}".removesuffix("Settings") for name, value in found.items() if value is not None]
    if trial_steps := part.setting("search", "searcher", "trial_steps"):
        ways.append(f"{trial_steps} steps with each op")
    if part.setting("search", "searcher", "shuffled"):
        ways.append("rewards shuffled (the control)")
    if part.finds_cells:
        ways.append(f"cells by gradients of {part.setting('search', 'architecture', 'order')} order")
    options = part.setting("network_options")
    measures = [f"{name} {value}" for name, value in options.items() if value] if isinstance(options, dict) else []
    train, validation = part.setting("data", "train"), part.setting("data", "validation")
    rule = str(part.setting("search", "select_epoch"))
    selected = SELECTED.get(rule, "").format(metric=metric.words)
    done = sum(one.result is not None for one in step)
    cost = f"cost of all {done} seeds" if done == len(step) else f"cost of the {done} finished of {len(step)} seeds"
    passes = sum(one.figure("forward_equivalents") or 0 for one in step)
    return [
        ("searched", part.outcome),
        ("method", ", ".join(ways)),
        (
            "data",
            f"{_data(part)}: {train} images train the weights, {validation} others validate; no test image is read",
        ),
        ("network", ", ".join([str(part.setting("network")), *measures])),
        ("selected", f"{part.outcome} {selected} (select_epoch={rule})" if selected else ""),
        (cost, f"{duration(seconds(step))}, {passes:,.0f} forward-equivalents"),
    ]


def _by_seed(parts: Sequence[Part], metric: MetricFacts) -> Html:
    scores = [number(part.selected.get(metric.validation)) for part in parts]
    form = f".{metric.decimals([score for score in scores if score is not None])}f"
    columns: dict[str, Callable[[Part], str]] = {
        "seed": lambda part: str(part.seed),
        "selected epoch": _selected,
        metric.title(metric.validation): lambda part: amount(number(part.selected.get(metric.validation)), form),
        "time": lambda part: duration(part.figure("seconds")),
        "forward-equivalents": lambda part: amount(part.figure("forward_equivalents")),
        "sub-policies in use": lambda part: amount(number(part.selected.get("effective_sub_policies")), ".1f"),
        "images left as they are": lambda part: percent(number(part.selected.get("idle_share"))),
        "candidates in use": lambda part: amount(number(part.selected.get("effective_candidates")), ".2f"),
        "skip connections": lambda part: amount(number(part.selected.get("normal_skips"))),
        "steps skipped": lambda part: amount(part.figure("skipped_steps")),
    }
    cells = {name: [told(part) for part in parts] for name, told in columns.items()}
    used = {name: column for name, column in cells.items() if set(column) != {DASH}}
    return table(list(used), zip(*used.values(), strict=True))


def _selected(part: Part) -> str:
    if part.result is None:
        return f"not finished, {_progress(part)}"
    return f"{amount(part.figure('selected_epoch'))} of {amount(part.figure('epochs'))}"


def _agreement(parts: Sequence[Part]) -> list[Html]:
    preferences = [(part.result or {}).get("sub_policy_preferences") for part in parts]
    usable = [one for one in preferences if isinstance(one, list) and None not in map(number, one)]
    if len({len(one) for one in usable}) != 1:
        return []
    said = agreement_between_seeds("sub-policies' preferences", usable)
    return [tag("p", said)] if said else []


def _history(step: Sequence[Part], metric: MetricFacts) -> list[Html]:
    shown = search_history(step, metric)
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
