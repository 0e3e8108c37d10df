"""What was searched, and what each search kept, dropped, gained and cost."""

from collections.abc import Callable, Sequence

from jointsearch.report.metric_facts import MetricFacts
from jointsearch.report.movement import RULE, agreement, kept_and_dropped
from jointsearch.report.page_html import DASH, Html, amount, duration, facts, percent, table, tag
from jointsearch.report.page_race import race_tables
from jointsearch.report.page_run import Part, Run, number, seconds

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
GAINED = (
    "Gains and losses of ops are points of the share of images on which they act, from the first epoch to the selected "
    "one, mean over seeds."
)


def searches_section(run: Run) -> list[Html]:
    """Every step of the search: facts, a line for each seed, and what they found."""
    metric = run.metric
    parts = [
        part
        for step in run.steps
        for part in (facts(_facts(step, run)), _by_seed(step, metric), *race_tables(step, run), *_outcome(step))
    ]
    selected = [part.selected for part in run.searches]
    said = [text for name, text in EXPLAINED.items() if name in COSTS or any(name in record for record in selected)]
    gained = any(term.startswith("ops that") for step in run.steps for term, _ in kept_and_dropped(step))
    tables = all("table" in (part.result or {}) for part in run.searches)  # these drop ops, or do not
    explained = [*[RULE] * (not tables), *[GAINED] * gained, *said]
    return [*parts, tag("p", " ".join(explained), class_="faint")] if parts else []


def progress(part: Part) -> str:
    """How far something is that is not finished."""
    if part.folds:
        begun = [int(path.name) for path in part.folder.glob("jobs/*/[0-9]*")]  # older ones may have been removed
        return f"{max(begun, default=-1) + 1} jobs begun"
    done = part.epochs[-1]["epoch"] if part.epochs else 0
    return f"{done:g} of {part.setting('recipe', 'epochs')} epochs"


def _outcome(step: Sequence[Part]) -> list[Html]:
    """What was kept, dropped and gained, and whether seeds agree."""
    found = kept_and_dropped(step)
    said = agreement(step)
    return [*([facts(found)] if found else []), *([tag("p", said)] if said else [])]


def _facts(step: Sequence[Part], run: Run) -> list[tuple[str, object]]:
    part = step[0]
    ways_of = {name: part.setting("search", "searcher", *names) for name, names in WAYS.items()}
    ways = [f"{name} {value}".removesuffix("Settings") for name, value in ways_of.items() if value is not None]
    if trial_steps := part.setting("search", "searcher", "trial_steps"):
        ways.append(f"{trial_steps} steps with each op")
    if part.setting("search", "searcher", "shuffled"):
        ways.append("rewards shuffled (the control)")
    if part.finds_cells:
        ways.append(f"cells by gradients of {part.setting('search', 'architecture', 'order')} order")
    options = part.setting("network_options")
    measures = [f"{name} {value}" for name, value in options.items() if value] if isinstance(options, dict) else []
    train, validation = part.setting("data", "train"), part.setting("data", "validation")
    found = str(part.setting("search", "outcome") or "Policy")
    rule = str(part.setting("search", "select_epoch"))
    selected = SELECTED.get(rule, "").format(metric=run.metric.words)
    done = sum(one.result is not None for one in step)
    whole = f"cost of all {done} seeds" if done > 1 else "cost of the search"
    cost = whole if done == len(step) else f"cost of the {done} finished of {len(step)} seeds"
    passes = sum(one.figure("forward_equivalents") or 0 for one in step)
    trainings = sum(one.figure("whole_trainings") or 0 for one in step)
    whole_trainings = [f"{trainings:,.4g} whole trainings"] if trainings else []
    tested = any(one.figure("own_test_score") is not None for one in step)
    reads = "test images are read once, for the score of its own network" if tested else "no test image is read"
    images = (
        f"{train} images train the weights, {validation} others validate; {reads}"
        if not part.folds
        else f"each training is judged on one of {part.folds} folds of the training images, and trained on the others "
        f"({train} and {validation} images); {reads}"
    )
    return [
        ("searched", part.outcome),
        ("method", ", ".join(ways)),
        ("data", f"{run.data_name}: {images}"),
        ("network", ", ".join([str(part.setting("network")), *measures])),
        ("selected", f"{found} {selected} (select_epoch={rule})" if selected else ""),
        (cost, ", ".join([*whole_trainings, duration(seconds(step)), f"{passes:,.0f} forward-equivalents"])),
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
        f"{metric.words} on test images of its own network": lambda part: amount(part.figure("own_test_score"), form),
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
        return f"not finished, {progress(part)}"
    if part.folds:
        return DASH
    return f"{amount(part.figure('selected_epoch'))} of {amount(part.figure('epochs'))}"
