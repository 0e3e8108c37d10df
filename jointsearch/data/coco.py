"""Reads data sets in the form of COCO: one JSON file for each split, with images, annotations and categories."""

import json
import math
import posixpath
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jointsearch.data.files import Entry, Finding, Listing, shown
from jointsearch.data.folder import list_files
from jointsearch.data.marked import (
    FoundObjects,
    Marked,
    MarkedFiles,
    Strictness,
    annotation,
    check_outline,
    problems_of,
)
from jointsearch.data.objects import Annotation
from search_spaces.errors import InputError

PARTS = ("images", "annotations", "categories")


@dataclass(frozen=True)
class Place:
    """Where a split lies below the root: its JSON file, and the folder that file names are relative to."""

    file: str
    images: str


@dataclass(frozen=True)
class _Document:
    """One JSON file, its records by their ids."""

    place: str
    images: dict[int, dict[str, Any]]
    of_image: dict[int, list[dict[str, Any]]]
    classes: dict[int, str]


def find_coco(path: Path, places: Mapping[str, Place], masks: bool, drop: bool) -> FoundObjects:
    """The splits of a folder or an archive; the categories of the training file are the classes."""
    listing = list_files(path)
    files = {entry.name: entry for entry in listing.entries}
    used = [f"{place.images}/" for place in places.values()] + [place.file for place in places.values()]
    problems = problems_of(listing, used)
    documents = {split: _document(listing, files, place.file, problems) for split, place in places.items()}
    train = documents["train"]
    number = {identity: label for label, identity in enumerate(sorted(train.classes))}
    reader, splits = _Reader(files, number, masks, drop, problems), {}
    for split, document in documents.items():
        if document.classes != train.classes:
            problems.append(Finding("error", document.place, f"has other categories than {train.place}; make them one"))
            continue
        found = list(reader.images(document, places[split].images))
        if not found:
            problems.append(Finding("error", document.place, "has no image that can be used; give some"))
        splits[split] = MarkedFiles(tuple(entry for entry, _ in found), tuple(marked for _, marked in found))
    return FoundObjects(splits, tuple(train.classes[identity] for identity in number), tuple(problems))


@dataclass(frozen=True)
class _Reader:
    """What all splits of a data set are read with."""

    files: dict[str, Entry]
    number: dict[int, int]  # of each category's id
    masks: bool
    drop: bool
    problems: list[Finding]

    def images(self, document: _Document, folder: str) -> Iterator[tuple[Entry, Annotation]]:
        """Every image that is there, with what is marked in it."""
        seen: set[str] = set()
        for identity, image in document.images.items():
            name = image.get("file_name")
            size: tuple[Any, Any] = image.get("height"), image.get("width")
            place = f"{document.place}, image {shown(str(name))}"
            entry = self.files.get(posixpath.normpath(f"{folder}/{name}"))
            if not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in size):
                self._problem(place, f"has the size {size[1]}x{size[0]}; give its width and height")
            elif entry is None:
                self._problem(place, f"is not in {shown(folder)}; put the file there, or set the folder of images")
            elif entry.name in seen:
                self._problem(place, "is the file of an earlier image too; keep one record of it")
            else:
                seen.add(entry.name)
                objects = list(self._objects(document, identity, size))
                strict = Strictness(self.drop, self.problems)
                yield entry, annotation((place, str(name)), size, objects, self.masks, strict)

    def _objects(self, document: _Document, image: int, size: tuple[int, int]) -> Iterator[Marked]:
        for record in document.of_image.get(image, []):
            where = f"{document.place}, annotation {shown(str(record.get('id')))}"
            try:
                yield self._marked(record, where, size)
            except InputError as error:
                self._problem(where, str(error).removeprefix(where).lstrip())

    def _marked(self, record: dict[str, Any], where: str, size: tuple[int, int]) -> Marked:
        """One annotation; errors leave out where it stands."""
        category, box, crowd = record.get("category_id"), record.get("bbox"), record.get("iscrowd", 0)
        if not _is_count(category) or category not in self.number:
            raise InputError(f"is of the category {shown(str(category))}, which no category has as its id; correct it")
        if not (isinstance(box, list) and len(box) == 4 and all(_is_number(value) for value in box)):
            raise InputError(f"has the bbox {shown(str(box))}; wanted four numbers, x y width height")
        if crowd not in (0, 1):
            raise InputError(f"has iscrowd={shown(str(crowd))}; wanted 0 or 1")
        area, outline = record.get("area"), record.get("segmentation")
        if area is not None and not (_is_number(area) and area >= 0):
            raise InputError(f"has the area {shown(str(area))}; wanted a number of pixels, or none")
        if self.masks:
            _check_outline(outline, size, where)
        x, y, w, h = box
        place, label = f"{where},", self.number[category]
        return Marked(place, label, (x, y, x + w, y + h), crowd == 1, area, outline if self.masks else None)

    def _problem(self, place: str, text: str) -> None:
        self.problems.append(Finding("error", f"{place},", text))


def _check_outline(outline: Any, size: tuple[int, int], where: str) -> None:
    if not outline:
        raise InputError("has no segmentation, and masks are wanted; add it, or choose a detector without masks")
    if isinstance(outline, list):
        if not all(
            isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0 and all(map(_is_number, polygon))
            for polygon in outline
        ):
            raise InputError("has a polygon that is not x y of three points or more; mend its segmentation")
    elif not isinstance(outline, dict) or not isinstance(outline.get("counts"), list | str):
        raise InputError("has a segmentation that is neither polygons nor run lengths; mend it")
    elif outline.get("size") != list(size):
        told = shown(str(outline.get("size")))
        raise InputError(f"has run lengths of the size {told}; wanted {list(size)}, as its image")
    elif isinstance(outline["counts"], list) and not all(map(_is_count, outline["counts"])):
        raise InputError("has run lengths that are not whole numbers from 0 on; mend its segmentation")
    elif isinstance(outline["counts"], list) and sum(outline["counts"]) != size[0] * size[1]:
        told = f"has run lengths of {sum(outline['counts'])} pixels"
        raise InputError(f"{told}; wanted {size[0] * size[1]}, as its image")
    check_outline(outline, size, where)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _document(listing: Listing, files: dict[str, Entry], name: str, problems: list[Finding]) -> _Document:
    """A JSON file as records by their ids. What cannot be told apart is an error at once, the rest goes to problems."""
    place = shown(f"{listing.root}/{name}")
    if name not in files:
        there = ", ".join(sorted(file for file in files if file.endswith(".json"))[:5]) or "none"
        raise InputError(
            f"{place} is not there; the JSON files are: {shown(there)}. Set dataset.train and dataset.test to yours"
        )
    parts = _parts(files[name].read(), place)
    classes: dict[int, str] = {}
    for record in parts["categories"]:
        identity: Any = record.get("id")
        said: Any = record.get("name")
        usable = _is_count(identity) and isinstance(said, str)
        if not usable or identity in classes or said in classes.values():
            text = f"has the category {shown(str(record))}; each needs an id and a name of its own"
            problems.append(Finding("error", place, text))
        else:
            classes[identity] = said
    if not classes:
        raise InputError(f"{place} has no categories; name at least one")
    images: dict[int, dict[str, Any]] = {}
    for record in parts["images"]:
        if not _is_count(record.get("id")) or record["id"] in images:
            text = f"has the image id {shown(str(record.get('id')))} twice or in no number; give each image its own"
            problems.append(Finding("error", place, text))
        else:
            images[record["id"]] = record
    of_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for record in parts["annotations"]:
        if not _is_count(record.get("image_id")) or record["image_id"] not in images:
            text = f"is of the image {shown(str(record.get('image_id')))}, which is not among images; add or remove it"
            problems.append(Finding("error", f"{place}, annotation {shown(str(record.get('id')))},", text))
        else:
            of_image[record["image_id"]].append(record)
    return _Document(place, images, of_image, classes)


def _parts(data: bytes, place: str) -> dict[str, Sequence[dict[str, Any]]]:
    """The three lists of records of a file."""
    try:
        # plain_json counts brackets one by one; COCO's own file has 450 MB.
        found = json.loads(data, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place} is no JSON ({shown(str(error))[:200]}); mend it") from None
    for part in PARTS:
        records = found.get(part) if isinstance(found, dict) else None
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise InputError(f"{place} has no list of {part}; wanted {', '.join(PARTS)}, as COCO has them")
    return {part: found[part] for part in PARTS}


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not a number")
