"""Which trainings stand in one table: those that differ in policy, genotype, objective and seed alone.

Trainings of one method from several runs become one row. A row that owes itself to a search carries the name of that
search where several are there: `found (search=joint)`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from jointsearch.loops.plan import COMPARED, DRAWN, differences
from jointsearch.report.results_file import Record
from jointsearch.report.trainings_found import Source
from jointsearch.settings import leaves
from search_spaces.errors import InputError

Leaves = frozenset[tuple[str, str]]

# In these the searches of one method may differ; what a search starts from may have been drawn or found for its seed.
OF_NO_METHOD = ("seed", "policy", "device", "precision")
OF_DATA = ("data.", "dataset.")
OBJECTIVE = "objective"  # of trainings; where one table has several, rows are named by it
# The kind of a search by the outcomes of its stages, as the setting `search` names it.
KINDS = {
    ("Policy and cells",): "joint",
    ("Policy",): "policy",
    ("Cells",): "architecture",
    ("Cells", "Policy"): "separate",
    ("Cells", "Policy", "Policy and cells"): "separate",
}
NAMED_BY_PATH = ("folder", "hf", "listed")  # data sets that their path tells apart
RANDOM_CELLS = "@random"  # ends the name of a row
OR = " / "  # between the searches that share a control
MOST_NAMED = 3  # settings in the name of a search or of a table


@dataclass(frozen=True)
class Alike:
    """All trainings of one table, each once, under the names of their rows."""

    title: str
    trainings: tuple[Record, ...]
    searches: dict[tuple[str, int], tuple[Record, ...]]  # of those rows and seeds that owe themselves to a search
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Entry:
    training: Record
    source: Source
    search: Leaves | None  # what tells its search from others, where its row owes itself to one

    @property
    def frame(self) -> Leaves:
        """All that must agree within a table."""
        free = {*COMPARED, *DRAWN}
        every = frozenset(leaf for leaf in leaves(self.training.settings) if leaf[0] not in free)
        return every - self.objective

    @property
    def objective(self) -> Leaves:
        """What it descends, where that is no cross entropy."""
        return frozenset(leaf for leaf in leaves(self.training.settings) if _is_objective(leaf[0]))


def tables_of(sources: Sequence[Source]) -> list[Alike]:
    """The trainings of some runs, a table for each setting that they were trained in, in the order given."""
    entries = [
        _Entry(training, source, _search(source) if source.is_found(training.row, training.settings) else None)
        for source in sources
        for training in source.trainings
    ]
    frames: dict[Leaves, list[_Entry]] = {}
    for entry in entries:
        frames.setdefault(entry.frame, []).append(entry)
    groups = [_with_searches(group) for group in frames.values()]
    named = zip(_titles(list(frames)), groups, _names(groups), strict=True)
    return [_alike(title, group, names) for title, group, names in named]


def check_alike(first: Record, other: Record) -> None:
    """Refuse two trainings that cannot stand in one table."""
    differing = [
        one for one in differences(first.settings, other.settings, (*COMPARED, *DRAWN)) if not _is_objective(one)
    ]
    was, is_now = (dict(leaves(one.settings)) for one in (first, other))
    if first.seed == other.seed:
        differing += [
            f"{name} was {was.get(name)}, is {is_now.get(name)}" for name in DRAWN if was.get(name) != is_now.get(name)
        ]
    if differing:
        raise InputError(
            f"{first.place} and {other.place} were not trained alike ({', '.join(differing)}); "
            "compare only trainings that differ in policy, genotype and seed"
        )


def _alike(title: str, entries: Sequence[_Entry], names: dict[tuple[str, Leaves | None], str]) -> Alike:
    once: dict[tuple[str, int], list[_Entry]] = {}
    by_seed: dict[int, Record] = {}
    objectives = _by_objective({entry.objective for entry in entries})
    for entry in entries:
        check_alike(by_seed.setdefault(entry.training.seed, entry.training), entry.training)
        name = names.get((entry.training.row, entry.search), entry.training.row) + objectives[entry.objective]
        once.setdefault((name, entry.training.seed), []).append(entry)
    trainings, searches, repeated, notes = [], {}, 0, []
    for (name, seed), several in once.items():
        chosen, note = _one_of(name, several)
        trainings.append(replace(chosen.training, row=name))
        repeated += len(several) > 1
        notes += [note] if note else []
        if found := chosen.source.searches_of(chosen.training):
            searches[name, seed] = found
    if repeated:
        counted = f"{repeated} training{'s lie' if repeated > 1 else ' lies'} in several of these runs"
        notes.insert(0, f"{counted}: with equal settings, policy and seed each counts once.")
    return Alike(title, tuple(trainings), searches, tuple(notes))


def _one_of(name: str, several: Sequence[_Entry]) -> tuple[_Entry, str]:
    """One of several trainings of a row and seed, finished if any is, and what to say if they are not the same."""
    first = next((one for one in several if one.training.result is not None), several[0])
    if other := next((one for one in several if not _agree(first, one)), None):
        raise InputError(
            f"{other.training.place} repeats seed {first.training.seed} of {name} with another policy or genotype than "
            f"{first.training.place}; leave one of the two run folders out, or rename its folder {first.training.row}"
        )
    for other in several:
        if not _scores_agree(first.training.result, other.training.result):
            return first, (
                f"{name} with seed {first.training.seed} was trained more than once and came to other scores in "
                f"{other.training.place}; those of {first.training.place} count."
            )
    return first, ""


def _scores_agree(one: dict[str, Any] | None, other: dict[str, Any] | None) -> bool:
    if one is None or other is None:
        return True
    return all(one[key] == other[key] for key in one.keys() & other.keys() if key.startswith("test_"))


def _with_searches(entries: Sequence[_Entry]) -> list[_Entry]:
    """Adds the search to each row of random cells, where a table has random cells of several search spaces."""
    spaces: dict[str, set[str | None]] = {}
    for entry in entries:
        if entry.search is None and entry.source.searches and not entry.source.by_row:
            spaces.setdefault(entry.training.row, set()).add(_space(entry))
    several = {row for row, drawn_from in spaces.items() if len(drawn_from) > 1}
    return [
        replace(one, search=_search(one.source)) if one.search is None and one.training.row in several else one
        for one in entries
    ]


def _space(entry: _Entry) -> str | None:
    """The search space that a row's random cells were drawn from: that of the searches of its run."""
    if not entry.training.row.endswith(RANDOM_CELLS):
        return None
    return next((dict(leaves(one.settings)).get("network_options.space") for one in entry.source.searches), None)


def _agree(one: _Entry, other: _Entry) -> bool:
    return not differences(one.training.settings, other.training.settings)


# The names of rows


def _search(source: Source) -> Leaves | None:
    """What tells the search of a run from others: its settings, but those of data and seed."""
    return frozenset(leaf for one in source.searches for leaf in leaves(one.settings) if _tells(leaf[0])) or None


def _tells(name: str) -> bool:
    return name not in OF_NO_METHOD and not name.startswith(OF_DATA)


def _names(frames: Sequence[Sequence[_Entry]]) -> list[dict[tuple[str, Leaves | None], str]]:
    """How rows of one name are called that are there of several searches, by row and search, for each table."""
    groups = [{(one.training.row, one.search): one for one in entries if one.search} for entries in frames]
    rows = {row for group in groups for row, _ in group if sum(row == other for other, _ in group) > 1}
    sources = {search: one.source for group in groups for (row, search), one in group.items() if row in rows}
    together = [{search for row, search in group if row in rows} for group in groups]
    for call in (_by_words, _by_kind, _by_settings, _by_place):
        called = call(sources)
        if all(len({called[one] for one in some}) == len(some) for some in together):
            break
    named = []
    for group in groups:
        names: dict[tuple[str, Leaves | None], str] = {}
        for (row, search), entry in group.items():
            if row in rows:
                others = [other for (its, other), one in group.items() if its == row and _is_shared(entry, one)]
                sharing = sorted({called[other] for other in (search, *others)})
                names[row, search] = f"{row} ({OR.join(sharing)})"
        named.append(names)
    return named


def _is_shared(one: _Entry, other: _Entry) -> bool:
    """Whether a row that owes nothing to a search is that of another search as well."""
    owed = any(entry.source.is_found(entry.training.row, entry.training.settings) for entry in (one, other))
    return not owed and _space(one) == _space(other)


def _kind(source: Source) -> str:
    outcomes = {one.settings["search"]["outcome"] for one in source.searches if "outcome" in one.settings["search"]}
    kind = KINDS.get(tuple(sorted(map(str, outcomes))))
    return f"search={kind}" if kind else ""


def _by_words(sources: dict[Any, Source]) -> dict[Any, str]:
    return {search: ", ".join(sorted(source.words)) or _kind(source) for search, source in sources.items()}


def _by_kind(sources: dict[Any, Source]) -> dict[Any, str]:
    searchers = {search: dict(search).get("search.searcher.is", "").strip("'") for search in sources}
    return {
        search: ", ".join(filter(None, (_kind(source), searchers[search] and f"searcher={searchers[search]}")))
        for search, source in sources.items()
    }


def _by_settings(sources: dict[Any, Source]) -> dict[Any, str]:
    plain = _by_words(sources)
    shared = frozenset.intersection(*sources) if sources else frozenset()
    return {search: ", ".join(filter(None, (plain[search], _named(search - shared)))) for search in sources}


def _by_place(sources: dict[Any, Source]) -> dict[Any, str]:
    return {search: source.place for search, source in sources.items()}


def _named(found: Leaves, most: int = MOST_NAMED) -> str:
    names = [f"{name}={value.strip(chr(39))}" for name, value in sorted(found)]
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _is_objective(setting: str) -> bool:
    return re.match(rf"{OBJECTIVE}\b", setting) is not None


def _by_objective(found: set[Leaves]) -> dict[Leaves, str]:
    """What follows the name of a row where one table has several objectives; nothing after cross entropy."""
    if len(found) == 1:
        return dict.fromkeys(found, "")
    named: dict[str, list[Leaves]] = {}
    for one in found:
        told = dict(one)
        named.setdefault(told.get(f"{OBJECTIVE}.name", told.get(OBJECTIVE, "")).strip("'"), []).append(one)
    words = {}
    for name, several in named.items():
        shared = frozenset.intersection(*several)
        for one in several:
            own = "" if len(several) == 1 else f", {_named(one - shared, len(one))}"
            words[one] = f" ({OBJECTIVE}={name}{own})" if name else ""
    return words


# The names of tables


def _data(frame: dict[str, str]) -> str:
    name, path = (frame.get(f"dataset.{key}", "").strip("'") for key in ("name", "path"))
    return path if name in NAMED_BY_PATH and path else name


def _titles(frames: Sequence[Leaves]) -> list[str]:
    """The data set of each table, and where that is shared, what else tells it from the others."""
    named = [_data(dict(frame)) for frame in frames]
    for most in (MOST_NAMED, len(max(frames, key=len, default=()))):
        titles = []
        for frame, name in zip(frames, named, strict=True):
            twins = [other for other, of_other in zip(frames, named, strict=True) if of_other == name]
            own = frame - frozenset.intersection(*twins)
            titles.append(", ".join(filter(None, (name, _named(own, most)))))
        if len(set(titles)) == len(titles):
            break
    return titles
