"""Derives classes and splits from file names: <class>/<image>, also in a wrapping folder or in train/ and test/."""

from collections import Counter
from dataclasses import dataclass

from jointsearch.data.files import IMAGE_SUFFIXES, Entry, Finding, Listing, name_bytes, shown

SPLIT_OF = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Layout:
    """The files of each split with their labels. A data set without splits of its own has only "train"."""

    classes: tuple[str, ...]
    roots: dict[str, str]
    entries: dict[str, tuple[Entry, ...]]
    labels: dict[str, tuple[int, ...]]
    problems: tuple[Finding, ...]


@dataclass(frozen=True)
class _Plan:
    """The structure of a listing: depth of the wrapping folders, split folders, and depth of the class folders."""

    base: int
    splits: dict[str, str]
    depth: int


def read_layout(listing: Listing, test_listing: Listing | None = None) -> Layout:
    """The classes, splits and problems of a listing; a second listing may hold the test split."""
    plan = _plan(listing)
    members = _members(listing, plan)
    roots = dict.fromkeys(members, listing.root)
    problems = [*listing.problems, *_misplaced(listing, plan), *_folder_problems(listing, plan)]
    if test_listing is not None:
        test_plan = _plan(test_listing)
        problems += [*test_listing.problems, *_misplaced(test_listing, test_plan)]
        problems += _folder_problems(test_listing, test_plan)
        if "test" in members or test_plan.splits:
            own = listing if "test" in members else test_listing
            problems.append(_problem(own, "", "has its own test split; leave dataset.test_path empty"))
        members["test"] = _members(test_listing, test_plan)["train"]
        roots["test"] = test_listing.root
    names = {name for name, _ in members["train"]}
    classes = tuple(sorted(names, key=name_bytes))
    if len(classes) < 2:
        problems.append(_problem(listing, "", f"has {len(classes)} class folders with images; give at least 2"))
    label_of = {name: label for label, name in enumerate(classes)}
    for split, files in members.items():
        for name in sorted({name for name, _ in files} - names, key=name_bytes):
            text = f"has the class {shown(name)} in its {split} split only; give it training images or remove it"
            problems.append(Finding("error", shown(roots[split]), text))
    return Layout(
        classes,
        roots,
        {split: tuple(entry for _, entry in files) for split, files in members.items()},
        {split: tuple(label_of.get(name, -1) for name, _ in files) for split, files in members.items()},
        tuple(problems),
    )


def _plan(listing: Listing) -> _Plan:
    """Find the wrapping folders (each alone on its level, with class folders below) and the split folders."""
    deepest = max((entry.name.count("/") for entry in listing.entries), default=0)
    base = 0
    while len(_folders_at(listing, base)) == 1 and deepest >= base + 2:
        base += 1
    names = _folders_at(listing, base)
    splits = {name: SPLIT_OF[name.lower()] for name in names if name.lower() in SPLIT_OF}
    if "train" not in splits.values() or deepest < base + 2:
        return _Plan(base, {}, base)
    return _Plan(base, splits, base + 1)


def _folders_at(listing: Listing, depth: int) -> list[str]:
    names = {name.split("/")[depth] for name in listing.folders if name.count("/") >= depth}
    return sorted(names, key=name_bytes)


def _members(listing: Listing, plan: _Plan) -> dict[str, list[tuple[str, Entry]]]:
    """(class name, file) pairs of each split."""
    found = plan.splits.values() or ("train",)
    members: dict[str, list[tuple[str, Entry]]] = {
        split: [] for split in dict.fromkeys(SPLIT_OF.values()) if split in found
    }
    for entry in listing.entries:
        parts = entry.name.split("/")
        split = plan.splits.get(parts[plan.base]) if plan.splits else "train"
        if len(parts) == plan.depth + 2 and split:
            members[split].append((parts[plan.depth], entry))
    return members


def _misplaced(listing: Listing, plan: _Plan) -> list[Finding]:
    """The images outside of class folders, and the folders inside of them."""
    outside = "is an image outside of a class folder; move it into one"
    inside = "is a folder inside a class folder, which holds image files only; move or remove it"
    return [
        *(
            _problem(listing, entry.name, outside)
            for entry in listing.entries
            if entry.name.count("/") <= plan.depth and entry.name.lower().endswith(IMAGE_SUFFIXES)
        ),
        *(
            _problem(listing, name, inside)
            for name in sorted(listing.folders, key=name_bytes)
            if name.count("/") > plan.depth
        ),
    ]


def _folder_problems(listing: Listing, plan: _Plan) -> list[Finding]:
    """Empty class folders, folders beside the splits, and two folders for one split."""
    problems = []
    filled = {entry.name.rsplit("/", 1)[0] for entry in listing.entries if "/" in entry.name}
    for name in sorted(listing.folders, key=name_bytes):
        if name.count("/") == plan.depth and name not in filled:
            problems.append(_problem(listing, name, "is a class folder without images; fill or remove it"))
        if plan.splits and name.count("/") == plan.base and name.split("/")[plan.base] not in plan.splits:
            problems.append(
                _problem(listing, name, "lies beside the train and test folders but is no split; move it away")
            )
    for split, count in Counter(plan.splits.values()).items():
        if count > 1:
            both = " and ".join(name for name, own in plan.splits.items() if own == split)
            problems.append(_problem(listing, both, f"are all {split} folders; keep one"))
    return problems


def _problem(listing: Listing, name: str, text: str) -> Finding:
    return Finding("error", shown(f"{listing.root}/{name}" if name else listing.root), text)
