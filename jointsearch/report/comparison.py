"""Trainings side by side: mean, spread, and differences paired by seed."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jointsearch.loops.repeat import SAME_AS
from jointsearch.loops.retrain import FURTHER
from jointsearch.report.alike import Alike, check_alike, tables_of
from jointsearch.report.difference import SIGNIFICANT, Difference, corrected_by_holm, paired_difference
from jointsearch.report.metric_facts import ACCURACY, EPOCHS, MetricFacts, beside_facts, metric_facts
from jointsearch.report.results_file import Record
from jointsearch.report.trainings_found import number, sources_of
from jointsearch.runs.run_folder import replace_file, write_json
from search_spaces.errors import InputError, nearest

NONE_FINISHED = "No training is finished yet."
CORRECTIONS = ("none", "holm")  # of the verdicts, for the number of rows
METHOD_FREE = ("none", "none@random", "scratch")  # rows that owe nothing to a method: the baseline where none is named


@dataclass(frozen=True)
class Row:
    """One policy in a comparison: its scores by seed."""

    policy: str
    values: dict[int, float]

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return statistics.fmean(self.values.values())

    def same_as(self, other: "Row") -> bool:
        """Whether all scores with the same seeds are equal, as where a search handed over a control."""
        shared = self.values.keys() & other.values.keys()
        return bool(shared) and all(self.values[seed] == other.values[seed] for seed in shared)

    @property
    def spread(self) -> float | None:
        """Sample standard deviation over seeds; None for a single one."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Comparison:
    """Rows with the best mean first, scored by one metric."""

    metric: MetricFacts
    epoch: str  # one of EPOCHS
    baseline: str
    rows: tuple[Row, ...]
    unfinished: tuple[str, ...]
    correction: str = CORRECTIONS[0]
    notes: tuple[str, ...] = ()  # what else a reader has to know of the trainings

    @property
    def base(self) -> Row | None:
        """The row that the others are compared with; None where it is not finished."""
        return next((row for row in self.rows if row.policy == self.baseline), None)

    @cached_property
    def differences(self) -> dict[str, Difference]:
        """How each policy differs from the baseline, where they share a seed."""
        base = self.base
        paired = {
            row.policy: paired_difference(row.values, base.values, self.metric.higher_is_better)
            for row in self.rows
            if base is not None and row is not base
        }
        found = {policy: one for policy, one in paired.items() if one is not None}
        return corrected_by_holm(found) if self.correction == "holm" else found

    def difference(self, row: Row) -> Difference | None:
        """How a row differs from the baseline; None for the baseline itself and where no seed is shared."""
        return self.differences.get(row.policy)

    @property
    def by_chance(self) -> str:
        """How often such a table calls a row better or worse although none is; empty where one row is compared."""
        claims = sum(difference.is_claim for difference in self.differences.values())
        if claims < 2:
            return ""
        if self.correction == "holm":
            return (
                f"Verdicts are corrected for {claims} rows by Holm's method: if none truly differed from "
                f"{self.baseline}, at most 5% of such tables would call one better or worse. An interval is for its "
                "row alone."
            )
        # Sidak (1967): rows that go together, as by a shared baseline, give no more such tables than independent ones.
        return (
            f"An interval is for its row alone. If none of these {claims} rows truly differed from {self.baseline}, up "
            f"to {1 - (1 - SIGNIFICANT) ** claims:.0%} of such tables would call one better or worse; `correct=holm` "
            "of compare keeps this at 5%."
        )

    @property
    def lacking(self) -> Iterator[str]:
        """Which rows lack seeds that the baseline has, or the other way round, and what their difference is over."""
        base = set() if self.base is None else self.base.values.keys()
        alike: dict[tuple[tuple[int, ...], ...], list[str]] = {}
        for row in self.rows if base else ():
            own = row.values.keys()
            sets = (base - own, own - base, own & base)
            alike.setdefault(tuple(tuple(sorted(one)) for one in sets), []).append(row.policy)
        for (missing, more, shared), rows in alike.items():
            names, several = _and(rows), len(rows) > 1
            lacks, have = ("lack", "have") if several else ("lacks", "has")
            said = [f"{names} {lacks} {_seeds(missing)}, which {self.baseline} has"] if missing else []
            said += [f"{self.baseline} lacks {_seeds(more)}, which {names} {have}"] if more else []
            over = (
                f"the difference is over {_seeds(shared)}" if shared else "no seed is shared, so no difference is told"
            )
            if said:
                yield f"{'; '.join(said)}: {over}."

    @property
    def title(self) -> str:
        """What the numbers of the rows are; which of them are good is said where less is."""
        direction = "" if self.metric.higher_is_better else f" ({self.metric.direction})"
        return self.metric.title(self.metric.test(self.epoch)) + direction

    @property
    def decimals(self) -> int:
        """How many decimals a score is shown with."""
        return self.metric.decimals([value for row in self.rows for value in row.values.values()])

    def score(self, row: Row) -> str:
        """Mean and spread of a row, for people."""
        return f"{row.mean:.{self.decimals}f}{self._plus_minus(row.spread)}"

    def paired(self, difference: Difference) -> str:
        """A difference with its interval, for people."""
        decimals = self.decimals
        # Adding 0.0 turns the -0.0 of a tiny negative mean into 0.0.
        mean = round(difference.mean, decimals) + 0.0
        return f"{mean:+.{decimals}f}{self._plus_minus(difference.half_width)}"

    def _plus_minus(self, width: float | None) -> str:
        return "" if width is None else f" ± {width:.{self.decimals}f}"

    @property
    def without_baseline(self) -> str:
        """What is said instead of differences, where there is nothing to take them from."""
        return f"There is no finished training of {self.baseline}, so no differences are told."

    @property
    def remarks(self) -> list[str]:
        """What stands below a table of rows."""
        said = [] if self.base is not None else [self.without_baseline]
        return [*said, *self.lacking, *([self.by_chance] if self.by_chance else []), *self.notes]

    def to_markdown(self) -> str:
        """The table for people."""
        left_out = f"Not finished, left out: {', '.join(self.unfinished)}.\n" if self.unfinished else ""
        if not self.rows:
            return f"{NONE_FINISHED}\n\n{left_out}"
        lines = [
            f"| policy | {self.title} | seeds | minus {self.baseline}, paired (95% interval) | |",
            "|---|---|---|---|---|",
        ]
        for row in self.rows:
            difference = self.difference(row)
            paired, verdict = ("", "") if difference is None else (self.paired(difference), difference.verdict)
            lines.append(f"| {row.policy} | {self.score(row)} | {len(row.values)} | {paired} | {verdict} |")
        for said in self.remarks:
            lines += ["", said]
        return "\n".join(lines) + "\n" + (f"\n{left_out}" if left_out else "")

    def to_data(self) -> dict[str, Any]:
        """The same as plain data."""
        rows = [
            {"policy": row.policy, "mean": row.mean, "spread": row.spread, "by_seed": row.values} for row in self.rows
        ]
        metric = {"metric": self.metric.test(self.epoch), "unit": self.metric.unit}
        direction = {"higher_is_better": self.metric.higher_is_better}
        others = {"baseline": self.baseline, "rows": rows, "unfinished": list(self.unfinished)}
        return {**metric, **direction, **others}


def write_summary(folder: Path) -> str:
    """Compare all trainings of a run folder, and leave the table in it as summary.md and summary.json."""
    comparison = compare([folder])
    replace_file(folder / "summary.md", comparison.to_markdown().encode())
    write_json(folder / "summary.json", comparison.to_data())
    return comparison.to_markdown()


def compare(
    sources: Sequence[Path],
    metric: str = EPOCHS[0],
    baseline: str | None = None,
    correction: str = CORRECTIONS[0],
) -> Comparison:
    """Compare the trainings of run folders and results files; all must agree in everything but policy and seed.

    `metric` is the epoch whose network is scored, last or selected, the whole key, as in test_accuracy_last, or another
    score, as macro_f1. Without a baseline it is the row without any method, where there is one. `correction` "holm"
    corrects the verdicts for the number of rows.
    """
    first, *others = tables_of(sources_of(sources))
    for other in others:
        check_alike(first.trainings[0], other.trainings[0])
    return comparison_of(first, metric, baseline, correction)


def comparison_of(
    alike: Alike, metric: str = EPOCHS[0], baseline: str | None = None, correction: str = CORRECTIONS[0]
) -> Comparison:
    """Compare the trainings of one table."""
    facts, epoch = chosen_metric(alike.trainings, metric)
    values: dict[str, dict[int, float]] = {}
    for training in alike.trainings:
        if training.result is not None:
            values.setdefault(training.row, {})[training.seed] = score_of(training, facts, epoch)
    unfinished = tuple(f"{one.row}/seed{one.seed}" for one in alike.trainings if one.result is None)
    if baseline is None:
        baseline = _free_of_method(sorted(values))
    elif baseline not in values:
        raise InputError(f"baseline is {baseline!r}, no finished policy of these; {nearest(baseline, values)}")
    sign = -1 if facts.higher_is_better else 1
    rows = sorted((Row(policy, by_seed) for policy, by_seed in values.items()), key=lambda row: sign * row.mean)
    return Comparison(
        facts, epoch, baseline, tuple(rows), unfinished, correction, alike.notes + _repeated(alike.trainings)
    )


def _free_of_method(rows: Sequence[str]) -> str:
    """The row that owes nothing to a method; of several searches, with the cells that the first of them found."""
    alone = [free for free in METHOD_FREE if free in rows]
    found = [row for free in METHOD_FREE for row in rows if row.startswith(f"{free} (")]
    return next(iter(alone + found), METHOD_FREE[0])


def chosen_metric(trainings: Sequence[Record], metric: str) -> tuple[MetricFacts, str]:
    """The score that is asked for, and the epoch whose network it is of."""
    measured = _metric_of(trainings)
    keys = {**{epoch: (measured, epoch) for epoch in EPOCHS}, **{measured.test(one): (measured, one) for one in EPOCHS}}
    keys |= {name: (beside_facts(name, measured), EPOCHS[0]) for name in scores_beside(trainings)}
    if metric not in keys:
        raise InputError(f"metric is {metric!r}; {nearest(metric, keys)}")
    return keys[metric]


def scores_beside(trainings: Sequence[Record]) -> list[str]:
    """The scores that any training has beside its main one."""
    told = [(training.result or {}).get(FURTHER) for training in trainings]
    return list(dict.fromkeys(str(name) for scores in told if isinstance(scores, dict) for name in scores))


def score_of(training: Record, facts: MetricFacts, epoch: str) -> float:
    """A score of a finished training."""
    result = training.result or {}
    key, beside = facts.test(epoch), result.get(FURTHER)
    if key not in result and isinstance(beside, dict) and facts.name in beside:
        return float(number(beside, facts.name, training.place))
    return float(number(result, key, training.place))


def _repeated(trainings: Sequence[Record]) -> tuple[str, ...]:
    """A sentence for every two rows that are the same training with some seeds."""
    seeds: dict[tuple[str, str], list[str]] = {}
    for one in trainings:
        if isinstance(one.result, dict) and SAME_AS in one.result:
            seeds.setdefault((one.row, str(one.result[SAME_AS])), []).append(str(one.seed))
    return tuple(
        f"{row} has the very policy of {other} with {'seed' if len(which) == 1 else 'seeds'} {', '.join(which)}: "
        "trained once."
        for (row, other), which in seeds.items()
    )


def _metric_of(trainings: Sequence[Record]) -> MetricFacts:
    """The metric that all finished trainings share."""
    told = {one.place: metric_facts(one.result, one.place) for one in trainings if isinstance(one.result, dict)}
    first = next(iter(told), "")
    for place, facts in told.items():
        if facts != told[first]:
            raise InputError(
                f"{first} was scored by {told[first]} and {place} by {facts}; compare only trainings that were scored "
                "by the same metric"
            )
    return told.get(first, ACCURACY)


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
