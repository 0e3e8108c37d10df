"""Lists .tar, .tar.gz and .zip archives without unpacking them: regular files only, no links, no outside paths."""

import gzip
import io
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from jointsearch.data.files import (
    DEFLATED,
    STORED,
    Entry,
    Finding,
    Listing,
    ZipMember,
    is_ignored,
    most_bytes,
    name_bytes,
    read_slice,
    read_span,
    shown,
)
from search_spaces.errors import InputError

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip")
MAX_MEMBERS = 3_000_000  # ImageNet has 1.3 million
MAX_UNPACKED_BYTES = 2**32  # limit of a .tar.gz, which is unpacked in memory

# name, kind ("file", "folder" or a description of anything else), size, function that reads it
Member = tuple[str, str, int, Callable[[], bytes]]


def list_archive(path: Path) -> Listing:
    """The image files of an archive, each readable in place; refused members are listed as problems."""
    name = path.name.lower()
    if not name.endswith(ARCHIVE_SUFFIXES):
        raise InputError(f"{shown(str(path))} is not an archive that can be read; give a {', '.join(ARCHIVE_SUFFIXES)}")
    members = _zip_members if name.endswith(".zip") else _tar_members if name.endswith(".tar") else _tar_gz_members
    try:
        return _listing(path, members(path.resolve()))
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise InputError(
            f"{shown(str(path))} cannot be read as an archive ({error}); make or download the archive again"
        ) from error


def _listing(path: Path, members: Iterator[Member]) -> Listing:
    """Sort members into files, folders and problems."""
    entries, folders, problems = [], set(), []
    seen: Counter[str] = Counter()
    for count, (name, kind, size, read) in enumerate(members, start=1):
        if count > MAX_MEMBERS:
            raise InputError(f"{shown(str(path))} has more than {MAX_MEMBERS:,} members; split it")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if any(is_ignored(part) for part in parts if part != ".."):
            continue
        clean = "/".join(parts)
        refusal = _refusal(name, parts, kind, size, seen[clean])
        if refusal:
            problems.append(Finding("error", shown(f"{path}/{name}"), refusal))
        elif kind == "folder":
            folders.add(clean)
        else:
            seen[clean] += 1
            folders.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
            entries.append(Entry(clean, read))
    entries.sort(key=lambda entry: name_bytes(entry.name))
    return Listing(str(path), tuple(entries), frozenset(folders - {""}), tuple(problems))


def _refusal(name: str, parts: list[str], kind: str, size: int, earlier: int) -> str:
    """Why a member is refused and what to do, or nothing."""
    if name.startswith("/") or ".." in parts:
        return "points out of the archive; make the archive again with names below its own folder"
    if kind not in ("file", "folder"):
        return f"is {kind}, but only regular files are read; make the archive again with the file itself"
    if size > (most := most_bytes(name)):
        return f"has {size:,} bytes, but an image file may have {most:,}; remove it or make it smaller"
    if earlier:
        return "is in the archive twice under one name; make the archive again with each file once"
    return ""


def _tar_members(path: Path) -> Iterator[Member]:
    with path.open("rb") as file:
        yield from _members_of_tar(file, lambda name, offset, size: partial(read_span, path, offset, size, name))


def _tar_gz_members(path: Path) -> Iterator[Member]:
    """Unpack the archive once, in memory, because a gzip stream has no random access."""
    chunks, total = [], 0
    with gzip.open(path) as file:
        while chunk := file.read(2**22):
            chunks.append(chunk)
            total += len(chunk)
            if total > MAX_UNPACKED_BYTES:
                raise InputError(
                    f"{shown(str(path))} unpacks to more than {MAX_UNPACKED_BYTES:,} bytes; "
                    "turn it into a plain .tar with gunzip, which is read in place"
                )
    archive = b"".join(chunks)
    yield from _members_of_tar(
        io.BytesIO(archive), lambda name, offset, size: partial(read_slice, archive, offset, size)
    )


def _members_of_tar(
    file: io.BufferedIOBase, reader: Callable[[str, int, int], Callable[[], bytes]]
) -> Iterator[Member]:
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            yield member.name, _kind_in_tar(member), member.size, reader(member.name, member.offset_data, member.size)
        # tarfile takes a damaged header for the end and would silently drop the images after it.
        file.seek(archive.offset)
        end = file.read(tarfile.BLOCKSIZE)
    if len(end) < tarfile.BLOCKSIZE or any(end):
        raise tarfile.ReadError(f"it is damaged or cut off at byte {archive.offset}")


def _kind_in_tar(member: tarfile.TarInfo) -> str:
    if member.isdir():
        return "folder"
    if member.issym() or member.islnk():
        return f"a link to {shown(member.linkname)}"
    if member.isreg() and not member.issparse():
        return "file"
    return "a device, a pipe or a sparse file"


def _zip_members(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            read = ZipMember(
                path,
                f"{path}/{info.filename}",
                info.header_offset,
                info.compress_size,
                info.file_size,
                info.compress_type,
                info.CRC,
            )
            yield info.filename, _kind_in_zip(info), max(info.file_size, info.compress_size), read


def _kind_in_zip(info: zipfile.ZipInfo) -> str:
    mode = stat.S_IFMT(info.external_attr >> 16)
    if stat.S_ISLNK(mode):
        return "a link"
    if info.is_dir():
        return "folder"
    if mode not in (0, stat.S_IFREG):
        return "a device or a pipe"
    if info.flag_bits & 1:
        return "encrypted"
    return "file" if info.compress_type in (STORED, DEFLATED) else "packed in an unusual way"
