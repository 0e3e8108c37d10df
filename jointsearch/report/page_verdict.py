"""The outcome of a run in one sentence, with at most two more; never more than the comparison's own verdicts carry."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from jointsearch.report.alike import RANDOM_CELLS
from jointsearch.report.chance import Chance
from jointsearch.report.comparison import Comparison, Row
from jointsearch.report.difference import FEWEST_SEEDS, NO_DIFFERENCE, Difference
from jointsearch.report.movement import still
from jointsearch.report.page_html import capitalized
from jointsearch.report.page_run import Run
from jointsearch.report.trainings_found import FINDINGS, FOUND
from jointsearch.runs.run_folder import OWN_NETWORK

NONE, MARK = "none", "@"
NAMES = {
    NONE: "training without a policy",
    "trivialaugment": "TrivialAugment",
    "autoaugment": "AutoAugment",
    "randaugment": "RandAugment",
    "random": "a random policy",
    OWN_NETWORK: "the network of the search",
}
SHOWN = 4  # names in a sentence


def verdict(run: Run, comparison: Comparison | None, chance: Chance | None) -> list[str]:
    """One to three sentences. Without a comparison the trainings were not alike, or there are none."""
    said: list[str] = []
    if comparison is not None and comparison.rows:
        said += _claims(run, comparison)
        if chance is not None and chance.holds(comparison):
            said.insert(0, chance.sentence(comparison))
    elif run.trainings:
        said.append("No verdict yet: no training is finished, or they were not trained alike.")
    else:
        outcomes = " and ".join(dict.fromkeys(part.outcome.lower() for part in run.searches))
        seeds = len({part.seed for part in run.searches})
        said.append(
            f"A search of {outcomes} with {seeds} seed{'s' * (seeds > 1)}; nothing was trained with what it found, so "
            "nothing says what that is worth."
        )
    judged = any(part.proposal for part in run.searches)  # then it does not matter how far a proposal moved
    moves = _handed_over(run) + [one for step in run.steps if not judged for one in still(step)]
    return [*said, *([f"{'. '.join(moves)}."] if moves else [])]


def _handed_over(run: Run) -> list[str]:
    """What races handed over, and with how many seeds."""
    chosen = Counter(str(part.result["chosen"]) for part in run.searches if part.result and "chosen" in part.result)
    told = [f"{_name(name)} with {count} seed{'s' * (count > 1)}" for name, count in chosen.most_common(SHOWN)]
    more = " and others" if len(chosen) > SHOWN else ""
    return [f"The race handed over {', '.join(told)}{more}"] if told else []


def _claims(run: Run, comparison: Comparison) -> list[str]:
    """What the comparison says of the policy found, then of the cells found; without a search, of all rows."""
    rows = {row.policy for row in comparison.rows}
    said = []
    for row, subject in ((OWN_NETWORK, "the network of the search"), (FOUND, "the policy found")):
        if row in rows and any(part.finds_policy for part in run.searches):
            others = [name for name in (NONE, "trivialaugment") if name in rows] or sorted(rows - {*FINDINGS})[:1]
            as_many = _with_as_many_copies(run, rows) if row == OWN_NETWORK else []
            said.append(_of_pairs(subject, row, list(dict.fromkeys([*others, *as_many])), comparison))
    if any(part.finds_cells for part in run.searches):
        randoms = [row.removesuffix(RANDOM_CELLS) for row in rows if row.endswith(RANDOM_CELLS)]
        for policy in sorted(set(randoms) & rows)[:1]:
            subject = f"the cells found, trained under {_name(policy)},"
            said.append(_of_pairs(subject, policy, [policy + RANDOM_CELLS], comparison, plural=True))
    said = [one for one in said if one]
    return said or _of_all(comparison)


def _with_as_many_copies(run: Run, rows: set[str]) -> list[str]:
    """The rows that trained on as many copies of every image as the network of the search."""
    of_search = {str(part.setting("copies")) for part in run.trainings if part.group == OWN_NETWORK}
    return sorted(row for row in rows for copies in of_search if row.endswith(copies))[:2]


def _of_pairs(subject: str, row: str, others: Sequence[str], comparison: Comparison, plural: bool = False) -> str:
    """How a row differs from others, in one sentence."""
    parts: list[str] = []
    few: list[str] = []
    refused: list[Difference] = []
    for other in others:
        against = replace(comparison, baseline=other)
        mine = next(one for one in against.rows if one.policy == row)
        difference = against.difference(mine)
        name = "random cells" if other == row + RANDOM_CELLS else _name(other)
        if difference is None:
            continue
        if against.base is not None and mine.same_as(against.base):
            begin = f"{subject} {'are' if plural else 'is'} " if not parts else ""
            parts.append(f"{begin}the same as {name}: equal scores with every seed")
        elif not difference.is_claim:
            few.append(f"{_amount(difference.mean, comparison, signed=True)} to {name}")
            refused.append(difference)
        elif difference.verdict == NO_DIFFERENCE:
            parts.append(
                f"no difference to {name} was found ({_amount(difference.mean, comparison, signed=True)}, 95% interval "
                f"{_interval(difference, comparison)}, {difference.seeds} seeds)"
            )
        else:
            begin = f"{subject} {'are' if plural else 'is'} " if not parts else ""
            parts.append(
                f"{begin}{difference.verdict} than {name} by {_amount(abs(difference.mean), comparison)} (95% interval "
                f"{_interval(difference, comparison)}, {difference.seeds} seeds)"
            )
    if not parts and few:
        about = subject.removesuffix(",")
        return f"No claim about {about}: {_needed(refused)}. Mean differences: {' and '.join(few)}."
    if parts and parts[0].startswith("no difference"):
        parts[0] = f"For {subject.removesuffix(',')}, {parts[0]}"
    return f"{capitalized('; '.join(parts))}." if parts else ""


def _of_all(comparison: Comparison) -> list[str]:
    """The rows by their verdict against the baseline."""
    if len(comparison.rows) == 1:
        (row,) = comparison.rows
        return [f"One row was trained: {row.policy}, {comparison.title} {comparison.score(row)}{_seeds(row)}."]
    if not comparison.differences:
        return [comparison.without_baseline]
    groups: dict[str, list[str]] = {"better": [], "worse": [], NO_DIFFERENCE: [], "no claim": []}
    for row in comparison.rows:
        if (difference := comparison.difference(row)) is not None:
            kind = difference.verdict if difference.is_claim else "no claim"
            groups[kind].append(f"{_name(row.policy)} ({comparison.paired(difference)})")
    refused = [one for one in comparison.differences.values() if not one.is_claim]
    base = _name(comparison.baseline)
    said = []
    if groups["better"] or groups["worse"]:
        claims = [f"{kind} than {base}: {_few(groups[kind])}" for kind in ("better", "worse") if groups[kind]]
        said.append(f"{capitalized('; '.join(claims))}.")
    if groups[NO_DIFFERENCE]:
        said.append(f"No difference to {base} was found for {_few(groups[NO_DIFFERENCE])}.")
    if groups["no claim"]:
        said.append(f"No claim about {_few(groups['no claim'])}: {_needed(refused)}.")
    told = f"Differences are in {_unit(comparison)}, with their 95% intervals. " if _unit(comparison) else ""
    return [*said[:2], f"{told}{comparison.by_chance.replace('`', '')}".strip()][:3] if said else []


def _needed(refused: Sequence[Difference]) -> str:
    """What differences lack of which nothing is claimed."""
    some = any(one.seeds < FEWEST_SEEDS for one in refused)
    return f"{FEWEST_SEEDS} seeds are needed" if some else "the differences are equal for all seeds"


def _few(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _name(row: str) -> str:
    """A row in a sentence."""
    policy, mark, cells = row.partition(MARK)
    return NAMES.get(policy, policy) + (f" with {cells} cells" if mark else "")


def _unit(comparison: Comparison) -> str:
    return "points" if comparison.metric.unit == "%" else comparison.metric.unit


def _amount(value: float, comparison: Comparison, signed: bool = False) -> str:
    decimals = 1 if comparison.metric.unit == "%" else comparison.decimals
    # Adding 0.0 turns the -0.0 of a tiny negative mean into 0.0.
    number = f"{round(value, decimals) + 0.0:{'+' if signed else ''}.{decimals}f}"
    return f"{number} {_unit(comparison)}".strip()


def _interval(difference: Difference, comparison: Comparison) -> str:
    """Of a claim by how much it is better or worse, which is positive; of none from below to above zero."""
    half = difference.half_width or 0.0
    mean = difference.mean if difference.verdict == NO_DIFFERENCE else abs(difference.mean)
    decimals = 1 if comparison.metric.unit == "%" else comparison.decimals
    return " to ".join(f"{round(end, decimals) + 0.0:.{decimals}f}" for end in (mean - half, mean + half))


def _seeds(row: Row) -> str:
    return f" ({len(row.values)} seed{'s' * (len(row.values) > 1)})"
