"""Reads data sets in the form of Pascal VOC: Annotations/*.xml, JPEGImages/, and lists in ImageSets/Main/."""

import math
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from jointsearch.data.files import IMAGE_SUFFIXES, Entry, Finding, Listing, name_bytes, shown
from jointsearch.data.folder import list_files
from jointsearch.data.marked import FoundObjects, Marked, MarkedFiles, Strictness, annotation, problems_of
from search_spaces.errors import InputError

MAX_XML_BYTES = 2**22
FOLDERS = ("Annotations", "JPEGImages", "ImageSets")
CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class _Image:
    """One image of a list, with its objects by the names of their classes."""

    entry: Entry
    place: str
    size: tuple[int, int]
    objects: tuple[tuple[str, Marked], ...]


@dataclass(frozen=True)
class _Tree:
    """The files of a data set by their names below the folder that holds all of it."""

    root: str
    base: str  # of the names in the listing
    files: dict[str, Entry]

    def shown(self, name: str) -> str:
        """A file as messages show it."""
        return shown(f"{self.root}/{name}")


def find_voc(path: Path, lists: dict[str, str | None], first_pixel: int, drop: bool) -> FoundObjects:
    """The splits of a folder or an archive, each by the list that names its images; None names all.

    `first_pixel` is the coordinate of the first pixel: 1 in VOC, 0 in sets of other tools.
    """
    listing = list_files(path)
    tree = _tree(listing)
    problems = problems_of(listing, [f"{tree.base}{folder}/" for folder in FOLDERS])
    images = {split: _images(tree, name, first_pixel, problems) for split, name in lists.items()}
    class_names = {name for image in images["train"] for name, _ in image.objects}
    classes = tuple(sorted(class_names, key=name_bytes))
    splits = {}
    for split, found in images.items():
        annotations = []
        for image in found:
            known = []
            for name, marked in image.objects:
                if name in class_names:
                    known.append(Marked(marked.place, classes.index(name), marked.box, marked.crowd))
                else:
                    text = f"is of the class {shown(name)}, which no training image has; rename it or add images of it"
                    problems.append(Finding("error", marked.place, text))
            names = (image.place, os.path.basename(image.entry.name))
            annotations.append(annotation(names, image.size, known, False, Strictness(drop, problems)))
        splits[split] = MarkedFiles(tuple(image.entry for image in found), tuple(annotations))
    if not classes:
        problems.append(Finding("error", shown(str(path)), "has no object in its training images; give some"))
    return FoundObjects(splits, classes, tuple(problems))


def _tree(listing: Listing) -> _Tree:
    """The folder with Annotations, JPEGImages and ImageSets, wherever in the listing it lies."""
    names = (f"/{entry.name}" for entry in listing.entries)
    bases = {name.partition("/Annotations/")[0] for name in names if "/Annotations/" in name}
    if len(bases) != 1:
        raise InputError(
            f"{shown(listing.root)} has {len(bases)} folders Annotations; give the place of one data set with "
            "Annotations/*.xml, JPEGImages/ and ImageSets/Main/*.txt"
        )
    base = f"{bases.pop()}/".removeprefix("/")
    files = {entry.name.removeprefix(base): entry for entry in listing.entries if entry.name.startswith(base)}
    return _Tree(f"{listing.root}/{base}".rstrip("/"), base, files)


def _images(tree: _Tree, name: str | None, first_pixel: int, problems: list[Finding]) -> list[_Image]:
    """The images that a list names."""
    stems, source = _named(tree, name, problems), "Annotations" if name is None else f"{name}.txt"
    pictures: dict[str, Entry] = {}
    for path, entry in tree.files.items():
        if path.startswith("JPEGImages/") and path.lower().endswith(IMAGE_SUFFIXES):
            stem = os.path.splitext(path.removeprefix("JPEGImages/"))[0]
            if stem in pictures and stem in set(stems):
                problems.append(Finding("error", tree.shown(path), "has a twin with another suffix; keep one"))
            pictures[stem] = entry
    found = []
    for stem in stems:
        xml = f"Annotations/{stem}.xml"
        if stem not in pictures:
            problems.append(Finding("error", tree.shown(f"JPEGImages/{stem}"), f"is named in {source} and not there"))
        elif xml not in tree.files:
            problems.append(Finding("error", tree.shown(xml), f"is not there, and {source} names its image"))
        else:
            try:
                found.append(_image(pictures[stem], tree.shown(xml), tree.files[xml].read(), first_pixel))
            except InputError as error:
                problems.append(Finding("error", tree.shown(xml), str(error)))
    return found


def _named(tree: _Tree, name: str | None, problems: list[Finding]) -> list[str]:
    """The stems of the images that a list names; without a list, of all annotations."""
    if name is None:
        stems = (path.removeprefix("Annotations/") for path in tree.files if path.startswith("Annotations/"))
        return sorted((stem.removesuffix(".xml") for stem in stems if stem.endswith(".xml")), key=name_bytes)
    file = f"ImageSets/Main/{name}.txt"
    if file not in tree.files:
        known = sorted(path for path in tree.files if path.startswith("ImageSets/Main/"))
        there = ", ".join(os.path.basename(path).removesuffix(".txt") for path in known) or "none"
        raise InputError(f"{tree.shown(file)} is not there; the lists in ImageSets/Main are: {shown(there)}")
    lines = tree.files[file].read().decode(errors="replace").split("\n")
    counts = Counter(line.strip() for line in lines if line.strip())
    if not counts:
        problems.append(Finding("error", tree.shown(file), "names no image; give some"))
    for stem, count in counts.items():
        if count > 1:
            problems.append(Finding("error", tree.shown(file), f"names {shown(stem)} twice; name it once"))
    return list(counts)


def _image(entry: Entry, place: str, data: bytes, first_pixel: int) -> _Image:
    """An image by its annotation file; errors leave out the file's name."""
    root = _parsed(data)
    size = root.find("size")
    if size is None:
        raise InputError("has no <size>; write the image's width and height into it")
    height, width = (_number(size, side) for side in ("height", "width"))
    if not (height >= 1 and width >= 1):
        raise InputError(f"says that its image has {width:g}x{height:g} pixels; correct <size>")
    objects = []
    for count, marked in enumerate(root.findall("object"), start=1):
        name, box = marked.findtext("name"), marked.find("bndbox")
        if not name or not name.strip():
            raise InputError(f"has an object without a <name>, number {count}; give its class")
        if box is None:
            raise InputError(f"has an object without a <bndbox>, number {count}; give its box")
        x0, y0, x1, y1 = (_number(box, corner) for corner in CORNERS)
        # Both ends are pixels that belong to the object, and the first pixel of an image covers [0, 1].
        corners = (x0 - first_pixel, y0 - first_pixel, x1 - first_pixel + 1, y1 - first_pixel + 1)
        if x1 <= x0 or y1 <= y0:  # one pixel by the rule, and in the files of every tool a mistake
            corners = (x0, y0, x1, y1)
        hard = (marked.findtext("difficult") or "0").strip() == "1"
        objects.append((name.strip(), Marked(f"{place}, object {count},", 0, corners, hard)))
    return _Image(entry, place, (int(height), int(width)), tuple(objects))


def _parsed(data: bytes) -> ElementTree.Element:
    if len(data) > MAX_XML_BYTES:
        raise InputError(f"has {len(data):,} bytes, and an annotation may have {MAX_XML_BYTES:,}; mend it")
    if re.search(rb"<!(DOCTYPE|ENTITY)", data, re.IGNORECASE):
        raise InputError("declares a document type or entities, which annotations do not need; remove that")
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"is no XML ({error}); mend it") from None


def _number(parent: ElementTree.Element, name: str) -> float:
    text = parent.findtext(name)
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"has no number in <{parent.tag}><{name}> but {shown(str(text))}; mend it")
    return value
