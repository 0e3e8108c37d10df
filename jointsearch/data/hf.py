"""Reads data sets in the Hugging Face format: a folder of parquet files, or a name on the hub. Needs the extra `hf`."""

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jointsearch.data.files import name_bytes, shown
from jointsearch.data.layout import SPLIT_OF
from jointsearch.data.sources import FoundFiles
from search_spaces.errors import InputError


@dataclass(frozen=True)
class Columns:
    """The names of the columns that hold the images and their labels."""

    image: str = "image"
    label: str = "label"


@dataclass(frozen=True)
class TableRows:
    """The encoded images of one split."""

    table: Any
    title: str
    column: str
    split: str = "train"

    def data(self, row: int) -> bytes:
        """The bytes of this image file."""
        cell = self.table[row][self.column]
        if isinstance(cell, dict) and cell.get("bytes"):
            return cell["bytes"]
        raise InputError(f"{self.name(row)} holds no image bytes in column {self.column}; remove it or fill it")

    def name(self, row: int) -> str:
        """This row, as messages show it."""
        return f"{self.title} row {row}"

    def key(self, row: int) -> str:
        """This row, as dataset.skip names it."""
        return f"{self.split}/{row}"


def find_hf(path: str | None, download: bool, columns: Columns) -> dict[str, FoundFiles]:
    """The splits of a folder of parquet files, or of a name on the hub if downloading is allowed."""
    if path is None:
        raise InputError("dataset=hf needs a path; set dataset.path to a folder of parquet files or a name on the hub")
    if importlib.util.find_spec("datasets") is None:
        raise InputError('dataset=hf needs the package datasets; pip install "jointsearch[hf]"')
    tables = _tables(path, download)
    if "train" not in tables:
        raise InputError(f"{shown(path)} has no split called train (but {', '.join(tables)}); rename its files")
    titles = {split: f"{shown(path)} ({split})" for split in tables}
    for split, table in tables.items():
        _check_columns(titles[split], table.column_names, columns)
    labels, classes = _classes(tables["train"], columns.label)
    return {
        split: FoundFiles(
            TableRows(_undecoded(table, columns.image, titles[split]), titles[split], columns.image, split),
            _numbers(titles[split], table[columns.label][:], labels),
            classes,
        )
        for split, table in tables.items()
    }


def _tables(path: str, download: bool) -> dict[str, Any]:
    """The tables of train, validation and test, by split."""
    import datasets

    place = Path(path).expanduser()
    # For missing or unreadable data the library raises its own exceptions, those of pyarrow and those of the network.
    try:
        if place.is_dir():
            return dict(datasets.load_dataset("parquet", data_files=_parquet_files(place)))
        if not download:
            raise InputError(
                f"{shown(path)} is no folder here; set dataset.path to a folder of parquet files, "
                "or dataset.download=true if it is a name on the hub"
            )
        found = datasets.load_dataset(path)
    except InputError:
        raise
    except Exception as error:
        reason = shown(f"{type(error).__name__}: {error}".splitlines()[0])
        raise InputError(f"{shown(path)} cannot be read as a data set ({reason}); repair it or get it again") from error
    return {SPLIT_OF[name]: table for name, table in found.items() if name in SPLIT_OF}


def _parquet_files(place: Path) -> dict[str, list[str]]:
    """The files of each split, recognized by a word in their names or folders; all others are training files."""
    files: dict[str, list[str]] = {}
    for file in sorted(place.rglob("*.parquet"), key=lambda file: name_bytes(str(file))):
        words = re.split(r"[^a-z]+", str(file.relative_to(place)).lower())
        split = next((SPLIT_OF[word] for word in words if word in SPLIT_OF), "train")
        files.setdefault(split, []).append(str(file))
    if not files:
        raise InputError(f"{shown(str(place))} holds no .parquet files; set dataset.path to a folder that does")
    return files


def _check_columns(title: str, names: list[str], columns: Columns) -> None:
    for field, name in (("image_column", columns.image), ("label_column", columns.label)):
        if name not in names:
            raise InputError(f"{title} has no column {name}; set dataset.{field} to one of {', '.join(names)}")


def _undecoded(table: Any, column: str, title: str) -> Any:
    """The image column as bytes, which are decoded later by the same rules as every other data set."""
    import datasets

    try:
        return table.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise InputError(f"{title} has no images in column {column}; set dataset.image_column") from error


def _classes(table: Any, column: str) -> tuple[list[Any], tuple[str, ...]]:
    """The sorted labels of the training split, and the names of their classes."""
    names = getattr(table.features[column], "names", None)
    if names:
        return list(range(len(names))), tuple(names)
    kinds = table.features[column].dtype
    if not (kinds == "string" or kinds.startswith(("int", "uint"))):
        raise InputError(
            f"column {column} holds {kinds}, but labels are texts or whole numbers; set dataset.label_column"
        )
    labels = sorted(set(table[column][:]) - {None})
    return labels, tuple(map(str, labels))


def _numbers(title: str, values: list[Any], labels: list[Any]) -> tuple[int, ...]:
    """The class number of every row."""
    number_of = {label: number for number, label in enumerate(labels)}
    strange = [row for row, value in enumerate(values) if value not in number_of]
    if strange:
        raise InputError(
            f"{title} row {strange[0]} has the label {shown(str(values[strange[0]]))}, which is no class of the "
            "training split; remove the row, or the split if it is published without labels"
        )
    return tuple(number_of[value] for value in values)
