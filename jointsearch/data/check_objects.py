"""Checks every image and every mark of a data set with objects before training; writes nothing."""

import hashlib
from collections.abc import Iterator

import torch

from jointsearch.data.check_text import counted
from jointsearch.data.files import Finding, shown
from jointsearch.data.marked import FileSource, FoundObjects, MarkedFiles
from jointsearch.data.object_datasets import Coco, Voc
from jointsearch.data.oddities import oddities
from search_spaces.errors import InputError


def check_objects(settings: Voc | Coco) -> tuple[list[str], list[Finding]]:
    """What is there, in lines, and all findings; each names the file and the remedy."""
    found = settings.marked_files(masks=False)
    findings = [*found.problems, *_of_masks(settings, found)]
    first_of: dict[bytes, str] = {}
    for split, files in found.splits.items():
        findings += _unreadable(files, first_of)
        findings += _unusual(split, files, found.classes)
    return [_facts(found)], findings


def _facts(found: FoundObjects) -> str:
    """How many images and objects there are, of which classes."""
    every = [marked for files in found.splits.values() for marked in files.annotations]
    counts = torch.cat([torch.empty(0, dtype=torch.int64), *(marked.labels for marked in every)])
    listed = ", ".join(
        f"{shown(name)} ({count:,})"
        for name, count in zip(found.classes, counts.bincount(minlength=len(found.classes)).tolist(), strict=True)
    )
    parts = ", ".join(f"{split} {len(files.annotations):,}" for split, files in found.splits.items())
    return f"{counted(len(every), 'image')} ({parts}) with {counted(len(counts), 'object')}: {listed}"


def _of_masks(settings: Voc | Coco, found: FoundObjects) -> list[Finding]:
    """What only a detector with masks would refuse."""
    if isinstance(settings, Voc):
        return []
    known = {(problem.file, problem.text) for problem in found.problems}
    others = (one for one in settings.marked_files(masks=True).problems if (one.file, one.text) not in known)
    return [Finding("warning", one.file, f"{one.text} (this matters for masks only)") for one in others]


def _unreadable(files: MarkedFiles, first_of: dict[bytes, str]) -> Iterator[Finding]:
    """Images that cannot be used, and those with the same pixels as an earlier one."""
    source = FileSource(files.entries, files.annotations, None, None)
    for row, marked in enumerate(files.annotations):
        try:
            data = files.entries[row].read()
            pixels = source.read(row).pixels
        except InputError as error:
            yield Finding("error", marked.name, str(error).removeprefix(marked.name).lstrip())
            continue
        for text in oddities(data, 255):
            turned = ", so check that its boxes are those of the upright image" if "upright" in text else ""
            yield Finding("warning", marked.name, f"{text}{turned}")
        first = first_of.setdefault(hashlib.sha256(pixels.numpy().tobytes()).digest(), marked.name)
        if first != marked.name:
            text = f"has the same pixels as {first}; remove one, so that no training image is also a test image"
            yield Finding("warning", marked.name, text, first)


def _unusual(split: str, files: MarkedFiles, classes: tuple[str, ...]) -> Iterator[Finding]:
    """Crowds, images without objects, and classes that a split lacks."""
    present: set[int] = set()
    empty = []
    for marked in files.annotations:
        present |= set(marked.labels[~marked.crowd].tolist())
        if crowds := int(marked.crowd.sum()):
            text = f"has {counted(crowds, 'object')} marked as crowd or difficult; no detector is trained on them"
            yield Finding("warning", marked.name, text)
        if not len(marked.labels):
            empty.append(marked.name)
    if empty:
        text = f"has {counted(len(empty), 'image')} without an object, as {empty[0]}; used as background"
        yield Finding("warning", f"split {split}", text)
    for label, name in enumerate(classes):
        if label not in present:
            text = f"has no object of class {shown(name)}; add images of it"
            yield Finding("warning", f"split {split}", text, shown(name))
