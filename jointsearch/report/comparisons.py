"""Methods x data sets: the trainings of any number of runs, as many tables as they were trained in settings."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jointsearch.loops.retrain import FURTHER, OF_CLASS
from jointsearch.report.alike import Alike, tables_of
from jointsearch.report.comparison import CORRECTIONS, NONE_FINISHED, Comparison, Row, comparison_of, scores_beside
from jointsearch.report.ledger import Cost, Costs, ledger, machines
from jointsearch.report.metric_facts import EPOCHS
from jointsearch.report.page_html import DASH
from jointsearch.report.trainings_found import sources_of
from jointsearch.report.verdict import verdict_sentence
from search_spaces.errors import InputError, nearest

COST_NAMES = ("seconds", "images", "forward_equivalents")


@dataclass(frozen=True)
class Table:
    """Rows of words under a head; `spans` are heads over several columns: the words, and how many columns."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    spans: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Compared:
    """The trainings of one setting, and what is to be said of them."""

    alike: Alike
    comparison: Comparison

    @property
    def costs(self) -> tuple[Costs, ...]:
        """What each row cost, the best row first."""
        order = [row.policy for row in self.comparison.rows]
        return tuple(sorted(ledger(self.alike), key=lambda one: order.index(one.row)))

    def every_score(self) -> Iterator[Comparison]:
        """The comparison by every score that the trainings have, the chosen one first; a row may lack one of them."""
        chosen = self.comparison
        yield chosen
        main = comparison_of(self.alike).metric
        keys = {main.test(epoch): (main.name, epoch) for epoch in EPOCHS}
        keys |= {name: (name, EPOCHS[0]) for name in scores_beside(self.alike.trainings)}
        for key, told in keys.items():
            if told == (chosen.metric.name, chosen.epoch):
                continue
            having = tuple(one for one in self.alike.trainings if _has((one.result or {}), key))
            if having:
                some = comparison_of(replace(self.alike, trainings=having), key, None, chosen.correction)
                yield replace(some, baseline=chosen.baseline)


@dataclass(frozen=True)
class Comparisons:
    """One or several tables."""

    tables: tuple[Compared, ...]

    @property
    def finished(self) -> list[Compared]:
        """The tables that have a row."""
        return [one for one in self.tables if one.comparison.rows]

    def scores(self) -> Iterator[Table | str]:
        """The table of scores, and what has to be said of it."""
        if finished := self.finished:
            yield _scores(finished[0].comparison) if len(self.tables) == 1 else _methods_by_data(finished)
        for one in self.tables:
            comparison = one.comparison
            remarks = comparison.remarks if comparison.rows else [NONE_FINISHED]
            yield from (self._of(one, said) for said in remarks)
            if comparison.unfinished:
                yield self._of(one, f"Not finished, left out: {', '.join(comparison.unfinished)}.")

    def beside(self) -> Iterator[Table | str]:
        """The verdict in a sentence, further scores, and what it all cost."""
        finished = self.finished
        for one in finished:
            if (said := verdict_sentence(one.comparison)) not in one.comparison.remarks:
                yield self._of(one, said)
        yield from (table for one in finished if (table := _further(self._of(one, "policy"), one)) is not None)
        if finished:
            yield _costs([(self._of(one, cost.row), cost) for one in finished for cost in one.costs])
            yield _about_costs(finished)

    def _of(self, one: Compared, said: str) -> str:
        return f"{one.alike.title}: {said}" if len(self.tables) > 1 else said


def compare_all(
    sources: Sequence[Path | str],
    metric: str = EPOCHS[0],
    baseline: str | None = None,
    correction: str = CORRECTIONS[0],
) -> Comparisons:
    """Compare all trainings at some places; those that were not trained alike stand in tables of their own."""
    found = tables_of(sources_of(sources))
    rows = {one.row for alike in found for one in alike.trainings if one.result is not None}
    if baseline is not None and baseline not in rows:
        raise InputError(f"baseline is {baseline!r}, no finished policy of these; {nearest(baseline, rows)}")
    tables = []
    for alike in found:
        comparison = comparison_of(alike, metric, None, correction)
        tables.append(Compared(alike, replace(comparison, baseline=baseline or comparison.baseline)))
    return Comparisons(tuple(tables))


def _has(result: dict[str, object], key: str) -> bool:
    beside = result.get(FURTHER)
    value = result.get(key, beside.get(key) if isinstance(beside, dict) else None)
    return isinstance(value, int | float)


def _scores(comparison: Comparison) -> Table:
    head = ("policy", comparison.title, "seeds", f"minus {comparison.baseline}, paired (95% interval)", "verdict")
    return Table(head, tuple((row.policy, *_cells(comparison, row)) for row in comparison.rows))


def _cells(comparison: Comparison, row: Row) -> tuple[str, str, str, str]:
    difference = comparison.difference(row)
    paired, verdict = ("", "") if difference is None else (comparison.paired(difference), difference.verdict)
    return comparison.score(row), str(len(row.values)), paired, verdict


def _methods_by_data(tables: Sequence[Compared]) -> Table:
    """A row for each method, and for each data set its score with the number of seeds, and its difference."""
    comparisons = [one.comparison for one in tables]
    names = dict.fromkeys(row.policy for comparison in comparisons for row in comparison.rows)
    head, spans = ["policy"], [("", 1)]
    for one in tables:
        spans.append((one.alike.title, 2))
        head += [f"{one.comparison.title} (seeds)", f"minus {one.comparison.baseline}, paired (95% interval)"]
    rows = []
    for name in names:
        cells = [name]
        for comparison in comparisons:
            row = next((row for row in comparison.rows if row.policy == name), None)
            score, seeds, paired, verdict = (DASH, "", "", "") if row is None else _cells(comparison, row)
            cells += [f"{score} ({seeds})" if seeds else score, ", ".join(filter(None, (paired, verdict)))]
        rows.append(tuple(cells))
    return Table(tuple(head), tuple(rows), tuple(spans))


def _further(first: str, one: Compared) -> Table | None:
    """Means of the scores beside the main one, but those of single classes."""
    names = [name for name in scores_beside(one.alike.trainings) if OF_CLASS not in name]
    if not names:
        return None
    rows = []
    for row in one.comparison.rows:
        results = [training.result or {} for training in one.alike.trainings if training.row == row.policy]
        told = [scores for result in results if isinstance(scores := result.get(FURTHER), dict)]
        values = [[scores[name] for scores in told if isinstance(scores.get(name), int | float)] for name in names]
        rows.append((row.policy, *(f"{statistics.fmean(some):.2f}" if some else DASH for some in values)))
    return Table((first, *(name.replace("_", " ") for name in names)), tuple(rows))


def _costs(costs: Sequence[tuple[str, Costs]]) -> Table:
    words = tuple(name.replace("_", "-") for name in COST_NAMES)
    if all(one.search is None for _, one in costs):
        return Table(("cost of a seed", *words), tuple((name, *_figures(one.training)) for name, one in costs))
    rows = tuple((name, *_figures(one.search or Cost()), *_figures(one.training)) for name, one in costs)
    spans = (("", 1), ("search", len(words)), ("training", len(words)))
    return Table(("cost of a seed", *words, *words), rows, spans)


def _figures(cost: Cost) -> list[str]:
    values = [getattr(cost, name) for name in COST_NAMES]
    return [DASH if value is None else f"{value:,.0f}" for value in values]


def _about_costs(tables: Sequence[Compared]) -> str:
    names = sorted({name for one in tables for name in machines(one.alike)})
    on = f" Seconds are those of {', '.join(names)}." if names else ""
    return (
        "Costs are means over seeds. Images count each time that they train weights. Forward-equivalents are passes of "
        f"a batch, of which a training step takes three.{on}"
    )
