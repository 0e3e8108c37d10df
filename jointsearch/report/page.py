"""report.html: a run on one page, in one file that loads nothing from the internet."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jointsearch.data.datasets import DataSettings
from jointsearch.data.load import Loaded
from jointsearch.report.comparison import NONE_FINISHED, Comparison, Row, compare
from jointsearch.report.metric_facts import MetricFacts
from jointsearch.report.page_charts import dot_strip
from jointsearch.report.page_gallery import gallery
from jointsearch.report.page_history import policy_colors, search_history, training_history
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
from jointsearch.report.page_run import Part, Run, number, read_run
from jointsearch.report.searches import agreement_between_seeds
from jointsearch.runs.run_folder import replace_file
from search_spaces.errors import InputError
from search_spaces.plain_json import shown_path

NAME = "report.html"
SELECTED = {
    "last": "of the last epoch",
    "best": "of the epoch in which the searched network had its best validation {metric}; of equal ones the later",
}
CERTIFICATE = ("command", "commit", "hardware", "threads", "python", "torch", "torchvision")


def write_report(folder: Path | str, dataset: DataSettings | Loaded | None = None) -> Path:
    """Write report.html into a run folder; `dataset` says where its images lie, which a run does not record."""
    run = read_run(folder)
    path = run.folder / NAME
    page = document(_title(run), _head(run), *_sections(run, dataset))
    try:
        replace_file(path, page.encode())
    except OSError as error:
        reason = f"{shown_path(path)} cannot be written ({error.strerror})"
        raise InputError(f"{reason}; copy the run folder to a place where you may write") from None
    return path


def _sections(run: Run, dataset: DataSettings | Loaded | None) -> list[Html]:
    sections = {
        "What was searched": _searches(run),
        "Beside its controls": _comparison(run),
        "What it looks like": gallery(run, dataset),
        "How the search went": [part for step in run.steps for part in _history(step, run.metric)],
        "How the trainings went": training_history(run),
        "Where it comes from": _origin(run),
    }
    return [tag("section", tag("h2", name), *parts) for name, parts in sections.items() if parts]


def _title(run: Run) -> str:
    if not run.searches:
        return f"Trainings on {_data(run.first)}"
    first, *others = (step[0].outcome for step in run.steps)
    return f"{', then '.join([first, *map(str.lower, others)])}, searched on {_data(run.first)}"


def _data(part: Part) -> str:
    return str(part.setting("dataset", "name"))


def _seconds(parts: Sequence[Part]) -> str:
    return duration(sum(part.figure("seconds") or 0 for part in parts))


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
    said = (
        "A forward-equivalent is one forward pass of a batch. A backward pass counts as two, or as one where weights "
        "need no gradient."
    )
    return [*parts, tag("p", said, class_="faint")] if parts else []


def _facts(step: Sequence[Part], metric: MetricFacts) -> list[tuple[str, object]]:
    part = step[0]
    ways = [part.setting("search", "searcher", "is"), part.setting("search", "searcher", "through_step")]
    ways.append(str(part.setting("search", "searcher", "estimator", "is") or "").removesuffix("Settings"))
    if trial_steps := part.setting("search", "searcher", "trial_steps"):
        ways.append(f"{trial_steps} steps with each op")
    if part.setting("search", "searcher", "shuffled"):
        ways.append("rewards shuffled (the control)")
    if part.finds_cells:
        ways.append(f"cells by the {part.setting('search', 'architecture', 'order')} order")
    options = part.setting("network_options")
    measures = [f"{name} {value}" for name, value in options.items() if value] if isinstance(options, dict) else []
    train, validation = part.setting("data", "train"), part.setting("data", "validation")
    rule = str(part.setting("search", "select_epoch"))
    selected = SELECTED.get(rule, "").format(metric=metric.words)
    done = sum(one.result is not None for one in step)
    passes = sum(one.figure("forward_equivalents") or 0 for one in step)
    return [
        ("searched", part.outcome),
        ("by", ", ".join(str(way) for way in ways if way)),
        (
            "data",
            f"{_data(part)}: {train} images train the weights, {validation} others validate; no test image is seen",
        ),
        ("network", ", ".join([str(part.setting("network")), *measures])),
        ("selected", f"{part.outcome} {selected} (select_epoch={rule})" if selected else ""),
        (f"cost of {done} finished of {len(step)} seeds", f"{_seconds(step)}, {passes:,.0f} forward-equivalents"),
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
        "skips in the normal cell": lambda part: amount(number(part.selected.get("normal_skips"))),
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


def _comparison(run: Run) -> list[Html]:
    if not run.trainings:
        return [tag("p", "Nothing in this folder was trained with what was found, so nothing says what it is worth.")]
    try:
        comparison = compare([run.folder])
    except InputError as problem:
        return [tag("p", f"Not compared: {problem}.", class_="note")]
    parts = [_comparison_table(run, comparison)] if comparison.rows else [tag("p", NONE_FINISHED)]
    if comparison.unfinished:
        parts.append(tag("p", f"Not finished, left out: {', '.join(comparison.unfinished)}.", class_="note"))
    said = [_equal_budget(run), _verdicts(comparison)]
    if run.searches:
        said.append(f"These trainings took {_seconds(run.trainings)}; searching took {_seconds(run.searches)}, on top.")
    if run.searches and run.searches[-1].finds_cells:
        said.append(
            "Rows without @ share the cells that were found, so they compare policies. Rows with @ have other cells."
        )
    return [*parts, tag("p", " ".join(said), class_="faint")]


def _equal_budget(run: Run) -> str:
    first = next((part for part in run.trainings if part.result is not None), run.trainings[0])
    epochs, images = first.setting("recipe", "epochs"), first.setting("data", "train")
    tested = first.figure("test_images")
    told = "" if tested is None else f" and then measured on {tested:,.0f} test images"
    alike = "all settings but policy, genotype and seed are the same"
    return f"Every row was trained for {epochs} epochs on {images} images{told}; {alike}."


def _verdicts(comparison: Comparison) -> str:
    if comparison.baseline not in (row.policy for row in comparison.rows):
        return comparison.without_baseline
    return (
        "Differences are paired by seed. “Better” and “worse” are said where three seeds or more leave zero outside of "
        "the 95% interval; every interval is for its row alone, not for all rows together."
    )


def _comparison_table(run: Run, comparison: Comparison) -> Html:
    colors = policy_colors(run)
    values = [value for row in comparison.rows for value in row.values.values()]
    bounds = (min(values), max(values))
    low, high = (f"{bound:.{max(1, comparison.decimals - 1)}f}" for bound in bounds)
    each = f"every seed, {low} to {high}"
    head = ("policy", comparison.title, "seeds", f"minus {comparison.baseline}, paired (95% interval)", "", each)

    def line(row: Row) -> Sequence[object]:
        described = f"{row.policy}, {comparison.metric.words} of each seed"
        strip = dot_strip(tuple(row.values.values()), bounds, colors[row.policy], described)
        difference = comparison.difference(row)
        paired, verdict = ("", "") if difference is None else (comparison.paired(difference), difference.verdict)
        return row.policy, comparison.score(row), len(row.values), paired, verdict, strip

    return table(head, map(line, comparison.rows), words=(0, 4, 5))


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
