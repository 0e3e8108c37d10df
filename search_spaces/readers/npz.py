"""Reads arrays of numbers and strings from an .npz file, a zip of .npy files. Arrays of objects are refused.

numpy's load with allow_pickle=False does the same, but this package does not require numpy. An .npy file is a header
followed by the values.
"""

import ast
import io
import math
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search_spaces.errors import InputError
from search_spaces.plain_json import read_bytes, shown, shown_path

MAX_BYTES = 1_000_000
MAX_HEADER = 1_000
MAX_DIMENSIONS = 4
MAGIC = b"\x93NUMPY"
# numpy's type codes, and the type codes of struct.
CODES = {"f4": "f", "f8": "d", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q"}


@dataclass(frozen=True)
class Array:
    """The shape of an array, and its values in row-major order."""

    shape: tuple[int, ...]
    values: tuple[Any, ...]


def read_npz(path: Path | str, names: tuple[str, ...], what: str) -> dict[str, Array]:
    """Read the arrays of these names; `what` names the file in errors."""
    where = f"{what} file {shown_path(path)}"
    raw = read_bytes(path, what, MAX_BYTES)
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            return {name: _member(archive, name, where) for name in names}
    except InputError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OSError) as error:
        raise InputError(f"{where} is no readable .npz ({shown(str(error))}); save it again with numpy.savez") from None


def _member(archive: zipfile.ZipFile, name: str, where: str) -> Array:
    found = [info for info in archive.infolist() if info.filename == f"{name}.npy"]
    if len(found) != 1:
        known = ", ".join(shown(info.filename) for info in archive.infolist()[:10])
        raise InputError(f"{where} holds {len(found)} arrays named {name}; wanted one, it holds {known or 'nothing'}")
    # The size in the archive cannot be trusted, so at most MAX_BYTES are unpacked. zipfile honors that limit for these
    # two methods only, the only ones that numpy writes; it unpacks the others whole.
    if found[0].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"{where}: {name} is packed by another method than numpy's; save it again with numpy.savez")
    with archive.open(found[0]) as stream:
        raw = stream.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise InputError(f"{where}: {name} unpacks to more than {MAX_BYTES:,} bytes; check the path")
    return parse_npy(raw, f"{where}: {name}")


def parse_npy(raw: bytes, where: str) -> Array:
    """One array from the bytes of an .npy file. Arrays of objects are refused, because reading them runs pickle."""
    header, start = _header(raw, where)
    kind, order, shape = header["descr"], header["fortran_order"], header["shape"]
    match = re.fullmatch(r"([<>|=])(?:([fiu][1248])|U([1-9][0-9]{0,3}))", kind) if isinstance(kind, str) else None
    if match is None or (match[2] and match[2] not in CODES):
        raise InputError(f"{where} has the type {shown(kind)}; wanted numbers or strings, save it as such")
    if not isinstance(shape, tuple) or len(shape) > MAX_DIMENSIONS or not all(_is_size(size) for size in shape):
        raise InputError(f"{where} has the shape {shown(shape)}; wanted at most {MAX_DIMENSIONS} sizes, save it again")
    if order is not False and sum(size > 1 for size in shape) > 1:
        raise InputError(f"{where} is stored in column order; save it again with numpy.ascontiguousarray")
    count, width = math.prod(shape), 4 * int(match[3]) if match[3] else int(match[2][1])
    if len(raw) - start != count * width:
        raise InputError(
            f"{where} has {len(raw) - start} bytes of data for the shape {shape}; it is damaged, get it again"
        )
    endian = ">" if match[1] == ">" else "<"
    if not match[3]:
        return Array(shape, struct.unpack_from(f"{endian}{count}{CODES[match[2]]}", raw, start))
    codec = "utf-32-be" if endian == ">" else "utf-32-le"
    words = [raw[start + n * width : start + (n + 1) * width] for n in range(count)]
    try:
        return Array(shape, tuple(word.decode(codec).rstrip("\0") for word in words))
    except UnicodeDecodeError:
        raise InputError(f"{where} holds strings that are not text; it is damaged, get it again") from None


def _header(raw: bytes, where: str) -> tuple[dict[str, Any], int]:
    # Magic, version, the header's length (2 bytes before version 2, then 4), the header: a literal dict.
    wide = raw[6:7] != b"\x01"
    start = 12 if wide else 10
    if not raw.startswith(MAGIC) or raw[6:7] not in (b"\x01", b"\x02", b"\x03") or len(raw) < start:
        raise InputError(f"{where} is no .npy array; save it again with numpy.savez")
    length = int.from_bytes(raw[8:start], "little")
    text = raw[start : start + length].decode("latin-1")
    try:
        header = ast.literal_eval(text) if length <= MAX_HEADER else None
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        header = None
    if not isinstance(header, dict) or set(header) != {"descr", "fortran_order", "shape"}:
        raise InputError(f"{where} has the header {shown(text)}; wanted descr, fortran_order and shape, save it again")
    return header, start + length


def _is_size(size: Any) -> bool:
    return isinstance(size, int) and not isinstance(size, bool) and 0 <= size <= MAX_BYTES
