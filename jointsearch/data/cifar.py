"""Reads CIFAR-10 and CIFAR-100 from the published archive or folder, in the Python or the binary version."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jointsearch.data.download import check_place, fetch
from jointsearch.data.files import Entry, shown
from jointsearch.data.folder import list_files
from jointsearch.data.safe_pickle import read_pickle
from jointsearch.data.sets import FoundSplits, ImageSet
from search_spaces.errors import InputError

PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Cifar:
    """The layout of one of the two sets: its files, the place of the labels, and the place of the class names."""

    name: str
    megabytes: int
    url: str
    md5: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    label_key: str
    names_file: str
    names_key: str
    label_bytes: int  # in the binary version, before the pixels; the last one counts
    binary_names_file: str


CIFARS = {
    "cifar10": Cifar(
        "cifar10",
        170,
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "c58f30108f718f92721af3b95e74349a",
        tuple(f"data_batch_{number}" for number in range(1, 6)),
        ("test_batch",),
        "labels",
        "batches.meta",
        "label_names",
        1,
        "batches.meta.txt",
    ),
    "cifar100": Cifar(
        "cifar100",
        169,
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        "eb9058c3a382ffc7106e4002c42a8d85",
        ("train",),
        ("test",),
        "fine_labels",
        "meta",
        "fine_label_names",
        2,
        "fine_label_names.txt",
    ),
}


def read_cifar(name: str, path: Path | None, download: bool) -> FoundSplits:
    """The published training and test images."""
    cifar = CIFARS[name]
    place = path or Path("data") / name
    if download and not _files(cifar, place):
        check_place(place, (), name)
        archive = place / cifar.url.rsplit("/", 1)[1]
        fetch(cifar.url, cifar.md5, archive, cifar.megabytes)
    files = _files(cifar, place)
    if not files:
        raise InputError(
            f"{shown(str(place))} holds no {name}; leave dataset.download=false out to fetch it from {cifar.url}, "
            "or set dataset.path to its archive or to the folder with its batches"
        )
    classes = _classes(cifar, files)
    return FoundSplits(
        _read_split(cifar, files, cifar.train, classes), None, _read_split(cifar, files, cifar.test, classes)
    )


def _files(cifar: Cifar, place: Path) -> dict[str, Entry]:
    """The files of the set by their base names, from a folder or an archive; empty if one is missing."""
    if not place.exists():
        return {}
    archives = [place / cifar.url.rsplit("/", 1)[1], place / cifar.url.rsplit("/", 1)[1].replace("python", "binary")]
    for source in (place, *(archive for archive in archives if archive.is_file())):
        files = {entry.name.rsplit("/", 1)[-1]: entry for entry in list_files(source).entries}
        needed = (*cifar.train, *cifar.test)
        if all(f"{name}.bin" in files for name in needed) or all(name in files for name in needed):
            return files
    return {}


def _classes(cifar: Cifar, files: dict[str, Entry]) -> tuple[str, ...]:
    if cifar.binary_names_file in files:
        names = files[cifar.binary_names_file].read().decode("latin-1").split()
    elif cifar.names_file in files:
        names = _values(
            read_pickle(files[cifar.names_file].read(), cifar.names_file), cifar.names_key, cifar.names_file
        )
    else:
        raise InputError(
            f"{cifar.name} comes without {cifar.names_file}, the names of its classes; put it beside the batches"
        )
    return tuple(str(name) for name in names)


def _read_split(cifar: Cifar, files: dict[str, Entry], names: tuple[str, ...], classes: tuple[str, ...]) -> ImageSet:
    images, labels = [], []
    for name in names:
        binary = files.get(f"{name}.bin")
        pixels, numbers = _binary_batch(cifar, binary) if binary else _python_batch(cifar, files[name])
        if len(pixels) != len(numbers) or not all(0 <= number < len(classes) for number in numbers):
            raise InputError(
                f"{name} of {cifar.name} has labels that do not fit its images or its classes; get it again"
            )
        images.append(torch.from_numpy(pixels.reshape(-1, 3, 32, 32).copy()))
        labels.append(torch.tensor(numbers, dtype=torch.int64))
    return ImageSet(torch.cat(images), torch.cat(labels), classes)


def _binary_batch(cifar: Cifar, entry: Entry) -> tuple[np.ndarray, list[int]]:
    data = np.frombuffer(entry.read(), np.uint8)
    record = cifar.label_bytes + PIXELS
    if not len(data) or len(data) % record:
        raise InputError(f"{entry.name} has {len(data)} bytes, but each image takes {record}; download it again")
    rows = data.reshape(-1, record)
    return rows[:, cifar.label_bytes :], rows[:, cifar.label_bytes - 1].tolist()


def _python_batch(cifar: Cifar, entry: Entry) -> tuple[np.ndarray, list[int]]:
    batch = read_pickle(entry.read(), entry.name)
    labels = _values(batch, cifar.label_key, entry.name)
    pixels = batch.get("data")
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != PIXELS:
        raise InputError(f"{entry.name} has no array of {PIXELS} bytes per image; download it again")
    if not all(isinstance(label, int) for label in labels):
        raise InputError(f"{entry.name} has labels that are no whole numbers; download it again")
    return pixels, labels


def _values(batch: Any, key: str, name: str) -> list[Any]:
    """A list from a batch."""
    values = batch.get(key) if isinstance(batch, dict) else None
    if not isinstance(values, list):
        raise InputError(f"{name} has no list of {key}; download it again")
    return values
