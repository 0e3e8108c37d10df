"""How well each row of a run does on each group of test images, and how far the groups of a class are apart."""

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence

from jointsearch.metrics.groups import GAP, LARGEST, OF_GROUP, WORST
from jointsearch.report.page_html import DASH, Html, table, tag
from jointsearch.report.page_run import Run, number

HOW_TO_READ = (
    "The percentage of the test images of a group that is right: a group has one class, before the stroke, and one "
    "attribute. The worst group is that of each seed, so it may be below every mean over seeds. The gap of a class is "
    "its best group less its worst. All figures are means over seeds, of the network of the last epoch."
)


def groups_section(run: Run) -> list[Html]:
    """Everything about groups; nothing where the data have none."""
    rows: dict[str, list[dict[str, float]]] = defaultdict(list)
    for part in run.trainings:
        told = (part.result or {}).get("test_scores_last")
        scores = {name: number(value) for name, value in told.items()} if isinstance(told, dict) else {}
        if WORST in scores:
            scores[run.metric.name] = part.figure(run.metric.test("last"))
            rows[part.group].append({name: value for name, value in scores.items() if value is not None})
    if not rows:
        return []
    names = list(dict.fromkeys(name for scores in rows.values() for one in scores for name in one))
    heads = {WORST: "worst group", run.metric.name: run.metric.words}
    of_groups = {name: name.partition("/")[2] for name in names if name.startswith(f"{OF_GROUP}/")}
    of_classes = {LARGEST: "largest gap"}
    of_classes |= {name: name.partition("/")[2] for name in names if name.startswith(f"{GAP}/")}
    parts = [_table(rows, heads | of_groups), tag("p", HOW_TO_READ, class_="faint")]
    if LARGEST in names:
        parts += [tag("h3", "Gaps of each class"), _table(rows, of_classes)]
    return parts


def _table(rows: dict[str, list[dict[str, float]]], heads: dict[str, str]) -> Html:
    return table(["row", *heads.values()], [[row, *_means(scores, list(heads))] for row, scores in rows.items()])


def _means(scores: Sequence[dict[str, float]], names: Sequence[str]) -> Iterator[str]:
    for name in names:
        values = [one[name] for one in scores if name in one]
        yield f"{statistics.fmean(values):.2f}" if values else DASH
