"""What every demonstration hands over: tables of what it measured, and the panels of its figure."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from jointsearch.benchmarks.theory.drawn import Panel, Rows
from jointsearch.report.difference import paired_difference


@dataclass(frozen=True)
class Demo:
    """One demonstration."""

    name: str  # its figure is theory_NAME.svg
    title: str
    tables: tuple[str, ...]  # Markdown
    panels: tuple[Panel | Rows, ...]


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def mean_interval(values: Tensor) -> tuple[float, float]:
    """The mean of one value for each seed, and the half width of its 95 % interval (Student's t)."""
    by_seed = dict(enumerate(values.tolist()))
    found = paired_difference(by_seed, dict.fromkeys(by_seed, 0.0))
    if found is None:
        return math.nan, math.nan
    return found.mean, found.half_width or 0.0


def plus_minus(values: Tensor, form: str = "+.2f") -> str:
    """The same in words."""
    mean, half_width = mean_interval(values)
    return f"{mean:{form}} ± {half_width:{form.lstrip('+')}}"


def order_of(magnitudes: Sequence[float], errors: Sequence[float]) -> float:
    """The power of the magnitude by which errors fall: the slope of their logarithms, by least squares."""
    across, up = ([math.log(value) for value in values] for values in (magnitudes, errors))
    x, y = (sum(values) / len(values) for values in (across, up))
    return sum((a - x) * (b - y) for a, b in zip(across, up, strict=True)) / sum((a - x) ** 2 for a in across)
