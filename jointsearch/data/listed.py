"""Images that a table lists, with a class, an attribute and perhaps a split in columns: Waterbirds, CelebA, one's own.

A table is a .csv file with a head, or a .txt file as CelebA has them: words between spaces, of which the first names
the image, and above them perhaps a count and a head.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from jointsearch.data.files import Entry, read_file, shown
from jointsearch.data.folder import EncodedFiles
from jointsearch.data.layout import SPLIT_OF
from jointsearch.data.sources import FoundFiles
from search_spaces.errors import InputError, nearest

NUMBERED = {"0": "train", "1": "validation", "2": "test"}  # splits of Waterbirds and CelebA
IMAGE, PARTITION = "image_id", "partition"  # columns of CelebA's files, where no head names them
MAX_BYTES = 2**28


@dataclass(frozen=True)
class Columns:
    """Where in a table stands what; without a split, all images are of one."""

    image: str
    label: str
    attribute: str
    split: str | None


@dataclass(frozen=True)
class Table:
    """The rows of a file, each by the names of its columns, with the numbers of their lines."""

    place: str
    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]
    first_line: int

    def column(self, name: str, setting: str) -> list[str]:
        """All values of a column."""
        if name not in self.columns:
            told = f"{self.place} has no column {shown(name)}, which dataset.{setting} names"
            raise InputError(f"{told}; {nearest(name, self.columns)}")
        return [row[name] for row in self.rows]

    def line(self, row: int) -> str:
        """A row of it, for an error."""
        return f"{self.place}, line {row + self.first_line},"


def read_table(path: Path) -> Table:
    """A table out of its file."""
    place = shown(str(path))
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{place} has more than {MAX_BYTES:,} bytes; give the table of the images")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InputError(f"{place} cannot be read ({reason}); give dataset.path and dataset.table of a table") from None
    lines = text.splitlines()
    words = list(csv.reader(lines)) if path.suffix.lower() == ".csv" else [line.split() for line in lines]
    columns, body = _head(words, path.suffix.lower() == ".csv")
    rows = []
    for number, row in enumerate(body):
        if row and len(row) != len(columns):
            line = number + len(words) - len(body) + 1
            raise InputError(f"{place}, line {line}, has {len(row)} values for {len(columns)} columns; repair it")
        rows.append(dict(zip(columns, row, strict=False)))
    while rows and not rows[-1]:
        rows.pop()
    if not rows or not all(rows):
        raise InputError(f"{place} has no rows, or empty ones among them; give a line for every image")
    return Table(place, tuple(columns), tuple(rows), len(words) - len(body) + 1)


def find_listed(
    table: Table, columns: Columns, folder: Path, names: tuple[Sequence[str], Sequence[str]], splits: Table | None
) -> dict[str, FoundFiles]:
    """The splits of the images in a folder; `names` are those of classes and of attributes, in the order of values."""
    files = table.column(columns.image, "image_column")
    labels, classes = _numbered(table.column(columns.label, "label_column"), names[0], "label_column", "classes")
    values, attributes = _numbered(
        table.column(columns.attribute, "attribute_column"), names[1], "attribute_column", "attributes"
    )
    of_rows = _splits(table, columns, files, splits)
    found: dict[str, FoundFiles] = {}
    for split in ("train", "validation", "test"):
        rows = [row for row, its in enumerate(of_rows) if its == split]
        if rows:
            entries = tuple(_entry(folder, files[row], table.line(row)) for row in rows)
            encoded = EncodedFiles(str(folder), entries)
            of_classes, of_attributes = (tuple(each[row] for row in rows) for each in (labels, values))
            found[split] = FoundFiles(encoded, of_classes, classes, of_attributes, attributes)
    if "train" not in found:
        raise InputError(
            f"{table.place} lists no training image; name the column of its splits in dataset.split_column"
        )
    return found


def _head(words: list[list[str]], is_csv: bool) -> tuple[list[str], list[list[str]]]:
    """The columns, and the rows below."""
    if is_csv:
        return ([name.strip() for name in words[0]], words[1:]) if words else ([], [])
    if len(words) > 1 and len(words[0]) == 1 and words[0][0].isdecimal():
        return [IMAGE, *words[1]], words[2:]
    return [IMAGE, PARTITION], words


def _numbered(
    values: Sequence[str], names: Sequence[str], column: str, setting: str
) -> tuple[list[int], tuple[str, ...]]:
    """The place of each value among all of them, and what they are called."""
    every = sorted(set(values), key=lambda value: (not value.lstrip("-").isdecimal(), _number(value), value))
    if len(every) < 2:
        raise InputError(f"dataset.{column} has the one value {shown(every[0])} everywhere; name another column")
    if len(every) > 1000:
        raise InputError(f"dataset.{column} has {len(every):,} values; name the column of its {setting}")
    if names and len(names) != len(every):
        raise InputError(
            f"dataset.{setting} names {len(names)}, and dataset.{column} has {len(every)} values "
            f"({shown(', '.join(every[:5]))}); name as many, or leave it out"
        )
    place = {value: number for number, value in enumerate(every)}
    return [place[value] for value in values], tuple(names) or tuple(every)


def _number(value: str) -> int:
    return int(value) if value.lstrip("-").isdecimal() else 0


def _splits(table: Table, columns: Columns, files: Sequence[str], splits: Table | None) -> list[str]:
    """The split of each row."""
    if columns.split is None:
        return ["train"] * len(files)
    told, of = (table, None) if splits is None else (splits, splits.column(columns.image, "image_column"))
    words = told.column(columns.split, "split_column")
    named = []
    for row, word in enumerate(words):
        split = NUMBERED.get(word) or SPLIT_OF.get(word.lower())
        if split is None:
            known = ", ".join((*NUMBERED, *SPLIT_OF))
            raise InputError(f"{told.line(row)} has the split {shown(word)}; wanted one of {known}")
        named.append(split)
    if of is None:
        return named
    by_file = dict(zip(of, named, strict=True))
    for row, file in enumerate(files):
        if file not in by_file:
            raise InputError(f"{table.line(row)} has {shown(file)}, of which {told.place} has no split; add it there")
    return [by_file[file] for file in files]


def _entry(folder: Path, file: str, line: str) -> Entry:
    parts = PurePosixPath(file)
    if parts.is_absolute() or ".." in parts.parts:
        raise InputError(f"{line} has {shown(file)}, which lies outside of {shown(str(folder))}; name images within it")
    path = folder / parts
    if not path.is_file():
        raise InputError(
            f"{line} has {shown(file)}, which is not in {shown(str(folder))}; give dataset.images, or add it"
        )
    return Entry(file, partial(read_file, path, file))
