"""Trainings side by side, from run folders and results files: mean, spread, and differences paired by seed."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jointsearch.loops.plan import COMPARED, DRAWN, differences
from jointsearch.loops.repeat import SAME_AS
from jointsearch.report.difference import SIGNIFICANT, Difference, corrected_by_holm, paired_difference
from jointsearch.report.metric_facts import ACCURACY, EPOCHS, MetricFacts, metric_facts
from jointsearch.report.results_file import Record, read_results
from jointsearch.runs.run_folder import RESULT_FILE, SETTINGS_FILE, replace_file, write_json
from jointsearch.settings import leaves
from search_spaces.errors import InputError, nearest
from search_spaces.plain_json import read_json

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
    repeated: tuple[str, ...] = ()  # sentences on rows that were trained once, since they are the same

    @cached_property
    def differences(self) -> dict[str, Difference]:
        """How each policy differs from the baseline, where they share a seed."""
        base = next((row for row in self.rows if row.policy == self.baseline), None)
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
        if self.baseline not in (row.policy for row in self.rows):
            lines += ["", self.without_baseline]
        lines += ["", *self.repeated] if self.repeated else []
        if self.by_chance:
            lines += ["", self.by_chance]
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

    `metric` is the epoch whose network is scored, last or selected, or the whole key, as in test_accuracy_last. Without
    a baseline it is the row without any method, where there is one. `correction` "holm" corrects the verdicts for the
    number of rows.
    """
    trainings = [training for source in sources for training in _trainings(Path(source))]
    if not trainings:
        raise InputError(
            f"no training found below {', '.join(map(str, sources))}; give a run folder of retrain.py, or a file of "
            "results that holds trainings"
        )
    _check_alike(trainings)
    measured = _metric_of(trainings)
    epochs = {**{epoch: epoch for epoch in EPOCHS}, **{measured.test(epoch): epoch for epoch in EPOCHS}}
    if metric not in epochs:
        raise InputError(f"metric is {metric!r}; {nearest(metric, epochs)}")
    key = measured.test(epochs[metric])
    values = _by_policy_and_seed(trainings, key)
    unfinished = tuple(f"{one.row}/seed{one.seed}" for one in trainings if one.result is None)
    if baseline is None:
        baseline = next((one for one in METHOD_FREE if one in values), METHOD_FREE[0])
    elif baseline not in values:
        raise InputError(f"baseline is {baseline!r}, no finished policy of these; {nearest(baseline, values)}")
    sign = -1 if measured.higher_is_better else 1
    rows = sorted((Row(policy, by_seed) for policy, by_seed in values.items()), key=lambda row: sign * row.mean)
    return Comparison(measured, epochs[metric], baseline, tuple(rows), unfinished, correction, _repeated(trainings))


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


def _by_policy_and_seed(trainings: Sequence[Record], key: str) -> dict[str, dict[int, float]]:
    """A number of the result of every finished training."""
    values: dict[str, dict[int, float]] = {}
    for training in trainings:
        if training.result is None:
            continue
        of_policy = values.setdefault(training.row, {})
        if training.seed in of_policy:
            raise InputError(
                f"{training.place} repeats seed {training.seed} of {training.row}; leave one of the two run folders "
                f"out, or rename its folder {training.row}, where both are to stand in one table"
            )
        of_policy[training.seed] = _number(training.result, key, training.place)
    return values


def _trainings(source: Path) -> list[Record]:
    if source.is_file():
        return [record for record in read_results(source) if not record.is_search]
    trainings = []
    for path in sorted(source.glob(f"*/seed*/{SETTINGS_FILE}")):
        settings, result = read_json(path, "settings"), path.with_name(RESULT_FILE)
        trainings.append(
            Record(
                row=path.parents[1].name,
                seed=int(_number(settings, "seed", str(path))),
                settings=settings,
                result=read_json(result, "result") if result.is_file() else None,
                place=str(path.parent),
            )
        )
    return trainings


def _number(data: Any, key: str, place: str) -> Any:
    value = data.get(key) if isinstance(data, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(
            f"{place} has no number {key}; choose another metric, restore the file or leave the folder out"
        )
    return value


def _check_alike(trainings: Sequence[Record]) -> None:
    # Seeds draw other images: their sizes must agree everywhere, their digest where the seed is the same.
    first = trainings[0]
    digests: dict[Any, Any] = {}
    for training in trainings:
        differing = differences(first.settings, training.settings, (*COMPARED, *DRAWN))
        seed, digest = (dict(leaves(training.settings)).get(name) for name in DRAWN)
        if (was := digests.setdefault(seed, digest)) != digest:
            differing.append(f"data.digest was {was}, is {digest}")
        if differing:
            raise InputError(
                f"{first.place} and {training.place} were not trained alike ({', '.join(differing)}); "
                "compare only trainings that differ in policy, genotype and seed"
            )
