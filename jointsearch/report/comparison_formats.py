"""A comparison as text for a terminal, Markdown, LaTeX, and CSV with every figure."""

import csv
import io
from collections.abc import Callable, Iterator, Sequence

from jointsearch.report.comparison import Comparison, Row
from jointsearch.report.comparisons import COST_NAMES, Compared, Comparisons, Table
from jointsearch.report.ledger import Cost

GAP = "  "
LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}  # fmt: skip


def to_text(comparisons: Comparisons) -> str:
    """Columns that are aligned in a terminal."""
    return "\n".join(f"{_text(part) if isinstance(part, Table) else part}\n" for part in _parts(comparisons))


def to_markdown(comparisons: Comparisons) -> str:
    """Tables and sentences as Markdown; a single table begins as summary.md of a run has it."""
    alone = comparisons.tables[0].comparison if len(comparisons.tables) == 1 else None
    parts = [*comparisons.beside()] if alone else _parts(comparisons)
    written = [f"{_markdown(part) if isinstance(part, Table) else part}\n" for part in parts]
    return "\n".join([alone.to_markdown(), *written] if alone else written)


def to_latex(comparisons: Comparisons) -> str:
    """Tables with the rules of booktabs; sentences as they are."""
    parts = [_latex(part) if isinstance(part, Table) else _escaped(part) for part in _parts(comparisons)]
    return "% needs \\usepackage{booktabs}\n" + "\n\n".join(parts) + "\n"


def to_csv(comparisons: Comparisons) -> str:
    """A line for each row, data set and score, with all figures and the value of every seed."""
    rows = [row for one in comparisons.tables for row in _records(one)]
    seeds = sorted({seed for _, values in rows for seed in values})
    first = [name for name in (rows[0][0] if rows else {})]
    told = io.StringIO()
    writer = csv.writer(told, lineterminator="\n")
    writer.writerow([*first, *(f"seed_{seed}" for seed in seeds)])
    for figures, values in rows:
        writer.writerow([*figures.values(), *(values.get(seed, "") for seed in seeds)])
    return told.getvalue()


FORMATS: dict[str, Callable[[Comparisons], str]] = {
    "text": to_text,
    "markdown": to_markdown,
    "csv": to_csv,
    "latex": to_latex,
}


def _parts(comparisons: Comparisons) -> list[Table | str]:
    return [*comparisons.scores(), *comparisons.beside()]


def _text(table: Table) -> str:
    rows = [*([_over(table)] if table.spans else []), table.head, *table.rows]
    widths = [max(len(row[place]) for row in rows) for place in range(len(table.head))]
    lines = [GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(len(rows) - len(table.rows), GAP.join("-" * width for width in widths))
    return "\n".join(lines)


def _markdown(table: Table) -> str:
    # Markdown has no head over several columns: it goes into the head of each.
    over = [name for name, count in table.spans for _ in range(count)] or [""] * len(table.head)
    head = [", ".join(filter(None, pair)) for pair in zip(over, table.head, strict=True)]
    rows = [head, ["---"] * len(head), *table.rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)


def _latex(table: Table) -> str:
    lines = [rf"\begin{{tabular}}{{{'l' * len(table.head)}}}", r"\toprule"]
    if table.spans:
        lines.append(" & ".join(rf"\multicolumn{{{count}}}{{l}}{{{_escaped(name)}}}" for name, count in table.spans))
        lines[-1] += r" \\"
        lines.append(" ".join(_rules(table.spans)))
    lines += [_latex_row(table.head), r"\midrule", *map(_latex_row, table.rows), r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines)


def _rules(spans: Sequence[tuple[str, int]]) -> Iterator[str]:
    place = 1
    for name, count in spans:
        if name:
            yield rf"\cmidrule(lr){{{place}-{place + count - 1}}}"
        place += count


def _latex_row(row: Sequence[str]) -> str:
    return " & ".join(map(_escaped, row)) + r" \\"


def _escaped(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)


def _over(table: Table) -> tuple[str, ...]:
    """The heads over several columns as cells, each above the first of its columns."""
    return tuple(cell for name, count in table.spans for cell in (name, *[""] * (count - 1)))


def _records(one: Compared) -> Iterator[tuple[dict[str, object], dict[int, float]]]:
    costs = {cost.row: cost for cost in one.costs}
    for comparison in one.every_score():
        for row in comparison.rows:
            cost = costs[row.policy]
            spent = {f"search_{key}": value for key, value in _spent(cost.search or Cost())}
            spent |= {f"training_{key}": value for key, value in _spent(cost.training)}
            yield {"data": one.alike.title, **_figures(comparison, row), **spent}, row.values


def _figures(comparison: Comparison, row: Row) -> dict[str, object]:
    metric, difference = comparison.metric, comparison.difference(row)
    figures: dict[str, object] = {
        "policy": row.policy,
        "metric": metric.test(comparison.epoch),
        "unit": metric.unit,
        "higher_is_better": metric.higher_is_better,
        "mean": row.mean,
        "spread": "" if row.spread is None else row.spread,
        "seeds": len(row.values),
        "baseline": comparison.baseline,
        "correction": comparison.correction,
    }
    names = ("difference", "half_width", "shared_seeds", "p_value", "verdict")
    if difference is None:
        return figures | dict.fromkeys(names, "")
    told = (difference.mean, difference.half_width, difference.seeds, difference.p_value, difference.verdict)
    return figures | dict(zip(names, ("" if value is None else value for value in told), strict=True))


def _spent(cost: Cost) -> Iterator[tuple[str, object]]:
    for name in COST_NAMES:
        value = getattr(cost, name)
        yield name, "" if value is None else value
