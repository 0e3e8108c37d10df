"""Lists class folders of images, in a folder or an archive. Links out of the folder are not followed."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jointsearch.data.archive import list_archive
from jointsearch.data.files import (
    Entry,
    Finding,
    Listing,
    is_ignored,
    most_bytes,
    name_bytes,
    read_file,
    shown,
)
from jointsearch.data.layout import read_layout
from jointsearch.data.sources import FoundFiles
from search_spaces.errors import InputError

MAX_DEPTH = 5  # wrapping folder, split, class, and two more levels, so that an error can name them


def list_files(path: Path) -> Listing:
    """The files of a folder or an archive."""
    if not path.exists():
        raise InputError(
            f"{shown(str(path))} does not exist; give dataset.path a folder of class folders or an archive"
        )
    return list_folder(path) if path.is_dir() else list_archive(path)


def list_folder(path: Path) -> Listing:
    """The files below a folder; irregular files and links out of the folder are listed as problems."""
    root = path.resolve()
    entries, folders, problems = [], [], []
    for name, file in _walk(root, ""):
        shown_name = shown(f"{path}/{name}")
        refusal = _refusal(root, file, name.count("/") + 1)
        if refusal:
            problems.append(Finding("error", shown_name, refusal))
        elif file.is_dir():
            folders.append(name)
        else:
            entries.append(Entry(name, partial(read_file, file, shown_name)))
    entries.sort(key=lambda entry: name_bytes(entry.name))
    problems.sort(key=lambda problem: problem.file)
    return Listing(str(path), tuple(entries), frozenset(folders), tuple(problems))


def _walk(root: Path, folder: str) -> Iterator[tuple[str, Path]]:
    """Everything below the root, by name and path; folders that _refusal refuses are not entered."""
    try:
        items = os.listdir(root / folder)
    except OSError as error:
        raise InputError(
            f"{shown(str(root / folder))} cannot be listed ({error.strerror}); make it readable"
        ) from error
    for item in items:
        name = f"{folder}/{item}" if folder else item
        if not is_ignored(item):
            yield name, root / name
            if (root / name).is_dir() and not _refusal(root, root / name, name.count("/") + 1):
                yield from _walk(root, name)


def _refusal(root: Path, file: Path, depth: int) -> str:
    """Why a file or folder is refused and what to do, or nothing."""
    if file.is_symlink():
        if not file.exists():
            return "is a broken link; remove it or put the file there"
        if not file.resolve().is_relative_to(root):
            return "is a link out of the data folder, which is not followed; copy the file there"
    found = file.stat()
    if stat.S_ISDIR(found.st_mode):
        return "lies too deep; give folders of the form <class>/<image>" if depth > MAX_DEPTH else ""
    if not stat.S_ISREG(found.st_mode):
        return "is a device, a pipe or a socket, but only regular files are read; remove it"
    if found.st_size > (most := most_bytes(file.name)):
        return f"has {found.st_size:,} bytes, but an image file may have {most:,}; make it smaller or remove it"
    return ""


@dataclass(frozen=True)
class EncodedFiles:
    """The image files of one split."""

    root: str
    entries: tuple[Entry, ...]

    def data(self, row: int) -> bytes:
        """The bytes of this image file."""
        return self.entries[row].read()

    def name(self, row: int) -> str:
        """This image file, as messages show it."""
        return shown(f"{self.root}/{self.entries[row].name}")

    def key(self, row: int) -> str:
        """This image file, as dataset.skip names it."""
        return self.entries[row].name


def find_folder(path: Path, test_path: Path | None) -> tuple[dict[str, FoundFiles], tuple[Finding, ...]]:
    """The splits of a folder or archive of class folders, and its problems."""
    layout = read_layout(list_files(path), None if test_path is None else list_files(test_path))
    found = {
        split: FoundFiles(EncodedFiles(layout.roots[split], entries), layout.labels[split], layout.classes)
        for split, entries in layout.entries.items()
    }
    return found, layout.problems
