"""The finding beside its controls: a table of all trainings, and how to read it."""

from collections.abc import Sequence

from jointsearch.protocols import PLAIN_STEP
from jointsearch.report.chance import Chance
from jointsearch.report.comparison import NONE_FINISHED, Comparison, Row
from jointsearch.report.page_charts import dot_strip
from jointsearch.report.page_history import policy_colors
from jointsearch.report.page_html import Html, duration, table, tag
from jointsearch.report.page_run import Part, Run, seconds
from jointsearch.runs.run_folder import OWN_NETWORK

# How the rows are trained that every study may have; the name of any other is that of its policy.
ROWS = {
    "found": "with what the searches found",
    OWN_NETWORK: "by the search itself",
    "none": "without a policy",
    "trivialaugment": "with TrivialAugment, which needs no search",
}


def comparison_section(run: Run, comparison: Comparison | None, problem: str, chance: Chance | None) -> list[Html]:
    """All trainings of a run side by side; without a comparison there is a `problem`, or no training."""
    if not run.trainings:
        return [tag("p", "Nothing in this folder was trained with what was found, so nothing says what it is worth.")]
    if comparison is None:
        return [tag("p", f"Not compared: {problem}.", class_="note")]
    near = chance if chance is not None and chance.is_near([row.mean for row in comparison.rows]) else None
    parts = [_table(run, comparison, near)] if comparison.rows else [tag("p", NONE_FINISHED)]
    if comparison.unfinished:
        parts.append(tag("p", f"Not finished, left out: {', '.join(comparison.unfinished)}.", class_="note"))
    noted = " ".join((*comparison.lacking, *comparison.notes))
    by_chance = "" if near is None else f"Row chance is what {near.words} gives."
    said = [_rows(run, comparison), by_chance, _equal_budget(run), _how_to_read(comparison), noted, _cost(run)]
    return [*parts, *(tag("p", one, class_="faint") for one in said if one)]


def _table(run: Run, comparison: Comparison, chance: Chance | None) -> Html:
    colors = policy_colors(run)
    values = [value for row in comparison.rows for value in row.values.values()]
    bounds = (min(values), max(values))
    low, high = (f"{bound:.{max(1, comparison.decimals - 1)}f}" for bound in bounds)
    each = f"each seed, {low} to {high}"
    head = ("policy", comparison.title, "seeds", f"minus {comparison.baseline}, paired (95% interval)", "", each)

    def line(row: Row) -> Sequence[object]:
        described = f"{row.policy}, {comparison.metric.words} of each seed"
        strip = dot_strip(tuple(row.values.values()), bounds, colors[row.policy], described)
        difference = comparison.difference(row)
        paired, verdict = ("", "") if difference is None else (comparison.paired(difference), difference.verdict)
        return row.policy, comparison.score(row), len(row.values), paired, verdict, strip

    lines = [line(row) for row in comparison.rows]
    if chance is not None:
        lines.append(("chance", f"{chance.accuracy:.{comparison.decimals}f}", "", "", "", ""))
    return table(head, lines, words=(0, 4, 5))


def _rows(run: Run, comparison: Comparison) -> str:
    names = [row.policy for row in comparison.rows]
    known = [name for name in ROWS if name in names and (name != "found" or run.searches)]
    said = [f"Row {', row '.join(f'{name} was trained {ROWS[name]}' for name in known)}."] if known else []
    if any("@" in name for name in names):
        said.append(
            "Rows without @ share their cells, so they compare policies. After @ stands the name of other cells."
        )
    return " ".join(said)


def _equal_budget(run: Run) -> str:
    first = next((part for part in run.trainings if part.result is not None), run.trainings[0])
    epochs, images = first.setting("recipe", "epochs"), first.setting("data", "train")
    tested = first.figure("test_images")
    told = "" if tested is None else f" The network of the last epoch was measured on {tested:,.0f} test images."
    alike = "All settings but policy, genotype and seed are the same."
    shorter = sorted({part.group for part in run.trained if (done := part.figure("epochs")) and done < epochs})
    but = f", but for those of several copies of every image, {', '.join(shorter)}, in fewer" if shorter else ""
    return f"Every network was trained for {epochs} epoch{'s' * (epochs != 1)} on {images} images{but}.{told} {alike}"


def _how_to_read(comparison: Comparison) -> str:
    if comparison.baseline not in (row.policy for row in comparison.rows):
        return comparison.without_baseline
    return (
        "The best row comes first. After a score, ± is the standard deviation over seeds. A difference is the mean "
        f"over the seeds that a row shares with {comparison.baseline}. Its ± is the 95% interval of that mean. The "
        "table says “better” or “worse” where three seeds or more leave zero outside of the interval. "
        f"{comparison.by_chance.replace('`', '')} At the right, a dot is one seed, and the stroke is their mean."
    )


def _cost(run: Run) -> str:
    if not run.searches:
        return ""
    rows = [part for part in run.trained if part.group != OWN_NETWORK]  # that one is the search itself
    trained, searched = (duration(seconds(parts)) for parts in (rows, run.searches))
    of_trained, of_searched = (_passes(parts) for parts in (rows, run.searches))
    return f"The trainings took {trained}{of_trained}. The searches before them took {searched} more{of_searched}."


def _passes(parts: Sequence[Part]) -> str:
    """Their cost without the machine: in forward passes, and how many whole trainings searches made."""
    passes = sum(part.figure("forward_equivalents") or _plain_passes(part) for part in parts)
    trainings = sum(part.figure("whole_trainings") or 0 for part in parts)
    among = f", with {trainings:,.4g} whole trainings" if trainings else ""
    return f" ({passes:,.0f} forward-equivalents{among})" if passes else ""


def _plain_passes(part: Part) -> float:
    """The forward-equivalents of a finished training, all steps of which are plain."""
    images, batch, epochs = part.setting("data", "train"), part.setting("recipe", "batch_size"), part.figure("epochs")
    if part.setting("search") is not None or not (images and batch and epochs):
        return 0.0
    return PLAIN_STEP * (images // batch + (images % batch > 1)) * epochs
