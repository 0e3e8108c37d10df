"""Trainings side by side, from run folders and results files: mean, spread, and differences paired by seed."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.stats import t as student

from jointsearch.loops.plan import COMPARED, DRAWN, differences
from jointsearch.report.results_file import Record, read_results
from jointsearch.runs.run_folder import RESULT_FILE, SETTINGS_FILE, replace_file, write_json
from jointsearch.settings import leaves
from search_spaces.errors import InputError, nearest
from search_spaces.plain_json import read_json

METRICS = ("test_accuracy_last", "test_accuracy_selected")
METHOD_FREE = ("none", "none@random")  # rows that owe nothing to a method: the baseline where none is named


@dataclass(frozen=True)
class Row:
    """One policy in a comparison: accuracies in percent by seed."""

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
class Difference:
    """A policy minus the baseline over the seeds they share, with the 95% interval of the mean."""

    mean: float
    half_width: float | None  # None: one seed says nothing about the spread
    seeds: int

    @property
    def verdict(self) -> str:
        """In words; nothing is claimed that the interval does not carry."""
        if self.half_width is None or self.seeds < 3:
            return f"{self.seeds} seed{'s' * (self.seeds > 1)}: no claim"
        if abs(self.mean) <= self.half_width:
            return "no difference found"
        return "better" if self.mean > 0 else "worse"


@dataclass(frozen=True)
class Comparison:
    """Rows in falling order of their means, measured in the same way."""

    metric: str
    baseline: str
    rows: tuple[Row, ...]
    unfinished: tuple[str, ...]

    def difference(self, row: Row) -> Difference | None:
        """How a row differs from the baseline; None for the baseline itself and where no seed is shared."""
        base = next((candidate for candidate in self.rows if candidate.policy == self.baseline), None)
        if base is None or row is base:
            return None
        return paired_difference(row.values, base.values)

    @property
    def without_baseline(self) -> str:
        """What is said instead of differences, where there is nothing to take them from."""
        return f"There is no finished training of {self.baseline}, so no differences are told."

    def to_markdown(self) -> str:
        """The table for people."""
        lines = [
            f"| policy | {self.metric.replace('_', ' ')}, % | seeds | minus {self.baseline}, paired (95% interval) | |",
            "|---|---|---|---|---|",
        ]
        for row in self.rows:
            spread = "" if row.spread is None else f" ± {row.spread:.2f}"
            difference = self.difference(row)
            if difference is None:
                paired, verdict = "", ""
            else:
                width = "" if difference.half_width is None else f" ± {difference.half_width:.2f}"
                # Adding 0.0 turns the -0.0 of a tiny negative mean into 0.0.
                paired, verdict = f"{round(difference.mean, 2) + 0.0:+.2f}{width}", difference.verdict
            lines.append(f"| {row.policy} | {row.mean:.2f}{spread} | {len(row.values)} | {paired} | {verdict} |")
        if self.baseline not in (row.policy for row in self.rows):
            lines += ["", self.without_baseline]
        if self.unfinished:
            lines += ["", f"Not finished, left out: {', '.join(self.unfinished)}."]
        return "\n".join(lines) + "\n"

    def to_data(self) -> dict[str, Any]:
        """The same as plain data."""
        rows = [
            {"policy": row.policy, "mean": row.mean, "spread": row.spread, "by_seed": row.values} for row in self.rows
        ]
        return {"metric": self.metric, "baseline": self.baseline, "rows": rows, "unfinished": list(self.unfinished)}


def write_summary(folder: Path) -> str:
    """Compare all trainings of a run folder, and leave the table in it as summary.md and summary.json."""
    comparison = compare([folder])
    replace_file(folder / "summary.md", comparison.to_markdown().encode())
    write_json(folder / "summary.json", comparison.to_data())
    return comparison.to_markdown()


def paired_difference(values: dict[int, float], base: dict[int, float]) -> Difference | None:
    """Mean difference over shared seeds and the half width of its 95% interval (Student's t)."""
    differences = [values[seed] - base[seed] for seed in sorted(values.keys() & base.keys())]
    if not differences:
        return None
    count = len(differences)
    half_width = None
    if count > 1:
        half_width = float(student.ppf(0.975, count - 1)) * statistics.stdev(differences) / math.sqrt(count)
    return Difference(statistics.fmean(differences), half_width, count)


def compare(sources: Sequence[Path], metric: str = METRICS[0], baseline: str | None = None) -> Comparison:
    """Compare the trainings of run folders and results files; all must agree in everything but policy and seed.

    Without a baseline it is the row without any method, where there is one.
    """
    if metric not in METRICS:
        raise InputError(f"metric is {metric!r}; {nearest(metric, METRICS)}")
    trainings = [training for source in sources for training in _trainings(Path(source))]
    if not trainings:
        raise InputError(
            f"no training found below {', '.join(map(str, sources))}; give a run folder of retrain.py, or a file of "
            "results that holds trainings"
        )
    _check_alike(trainings)
    values: dict[str, dict[int, float]] = {}
    unfinished = []
    for training in trainings:
        if training.result is None:
            unfinished.append(f"{training.row}/seed{training.seed}")
            continue
        if training.seed in values.setdefault(training.row, {}):
            raise InputError(
                f"{training.place} repeats seed {training.seed} of {training.row}; leave one of the two run folders "
                f"out, or rename its folder {training.row}, where both are to stand in one table"
            )
        values[training.row][training.seed] = _number(training.result, metric, training.place)
    finished = {policy: by_seed for policy, by_seed in values.items() if by_seed}
    if baseline is None:
        baseline = next((one for one in METHOD_FREE if one in finished), METHOD_FREE[0])
    elif baseline not in finished:
        raise InputError(f"baseline is {baseline!r}, no finished policy of these; {nearest(baseline, finished)}")
    rows = sorted((Row(policy, by_seed) for policy, by_seed in finished.items()), key=lambda row: -row.mean)
    return Comparison(metric, baseline, tuple(rows), tuple(unfinished))


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
