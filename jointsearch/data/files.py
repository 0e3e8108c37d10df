"""Image files by name, read in place: the entries of a listing of a folder or an archive."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from search_spaces.errors import InputError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm")
MAX_FILE_BYTES = 2**28  # an image file of more than 256 MiB is refused as a mistake or an attack
MAX_JSON_BYTES = 2**32  # COCO's annotations have 450 MB
STORED, DEFLATED = 0, 8  # the supported compression methods of a zip


@dataclass(frozen=True)
class Entry:
    """One file of a data set: its name below the root, with slashes, and how to get its bytes."""

    name: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Finding:
    """One problem of a data set: the file, and what to do. An error stops training, a warning does not."""

    severity: str
    file: str
    text: str
    other: str = ""  # the part of the text that is of this file alone

    def __str__(self) -> str:
        return f"{self.file} {self.text}"


@dataclass(frozen=True)
class Listing:
    """The content of a folder or an archive: files sorted by the bytes of their names, folders, and problems."""

    root: str
    entries: tuple[Entry, ...]
    folders: frozenset[str]
    problems: tuple[Finding, ...]


def name_bytes(name: str) -> bytes:
    """The sort key of a name, so that the order of images depends on no locale and no file system."""
    return name.encode("utf-8", "surrogateescape")


def shown(name: str) -> str:
    """A file name fit for one line on any terminal: control characters and undecodable bytes are escaped."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in name)


def is_ignored(part: str) -> bool:
    """Whether a file or folder of this name belongs to an operating system and not to the data set."""
    return part.startswith(".") or part in ("__MACOSX", "Thumbs.db", "desktop.ini")


def read_file(path: Path, name: str) -> bytes:
    """The bytes of a file on disk."""
    return read_span(path, 0, most_bytes(name), name)


def most_bytes(name: str) -> int:
    """How many bytes a file of this name may have."""
    return MAX_JSON_BYTES if name.lower().endswith(".json") else MAX_FILE_BYTES


def read_span(path: Path, offset: int, size: int, name: str) -> bytes:
    """At most `size` bytes of a file from `offset`, to read a member of a tar archive in place."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size)
    except OSError as error:
        raise InputError(f"{shown(name)} cannot be read ({error.strerror}); repair or remove it") from error


def read_slice(archive: bytes, offset: int, size: int) -> bytes:
    """A member of a tar archive that was unpacked in memory."""
    return archive[offset : offset + size]


@dataclass(frozen=True)
class ZipMember:
    """A member of a zip archive, read in place, so that workers share no open file."""

    path: Path
    name: str
    header: int
    packed_size: int
    size: int
    method: int
    checksum: int

    def __call__(self) -> bytes:
        """The unpacked bytes, never more than the archive declares."""
        head = read_span(self.path, self.header, 30, self.name)
        # The local header repeats the name and has an extra field, whose length is not in the directory.
        skip = 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
        packed = read_span(self.path, self.header + skip, self.packed_size, self.name)
        data = packed if self.method == STORED else self._inflated(packed)
        if len(data) != self.size or zlib.crc32(data) != self.checksum:
            raise InputError(
                f"{shown(self.name)} is damaged inside its zip archive; make or download the archive again"
            )
        return data

    def _inflated(self, packed: bytes) -> bytes:
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, self.size + 1)
        except zlib.error:
            return b""  # fails the length or checksum test above
