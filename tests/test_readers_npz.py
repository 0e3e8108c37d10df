"""Arrays from .npz files equal numpy's; any other content gives a one-line error, and unpacking is limited."""

import io
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from search_spaces.errors import InputError
from search_spaces.readers.npz import read_npz
from search_spaces.readers.read import read_policy
from tests.policy_files import assert_one_line, deepaa


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return stream.getvalue()


def npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """An .npz whose first array has this header."""
    text = header.encode("latin-1")
    return zipped(("policy_probs.npy", b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + data))


def misplaced() -> bytes:
    """A directory that is said to begin after its own end."""
    whole = bytearray(zipped(("policy_probs.npy", b"1")))
    whole[-6:-2] = (len(whole) * 2).to_bytes(4, "little")
    return bytes(whole)


def with_array(**changes: object) -> Callable[[Path], object]:
    return lambda path: deepaa(path, **changes)


FLOATS = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2)}"
PROBABILITIES = np.full((2, 4), 0.25)
# What is in the file, and what the one line must say.
MALFORMED_NPZ: dict[str, tuple[bytes | Callable[[Path], object], str]] = {
    "empty": (b"", "is no readable .npz"),
    "text": (b"policy", "is no readable .npz"),
    "half": (zipped(("a", b"1" * 1000))[:60], "is no readable .npz"),
    "too long": (bytes(1_000_001), "more than 1,000,000 bytes"),
    "a directory before the file": (misplaced(), "is no readable .npz"),
    "no arrays": (zipped(), "holds 0 arrays named policy_probs; wanted one, it holds nothing"),
    "other arrays": (zipped(("w.npy", b"")), "it holds 'w.npy'"),
    "no array": (zipped(("policy_probs.npy", b"\x80\x04.")), "policy_probs is no .npy array"),
    "cut header": (npy(FLOATS[:20]), "policy_probs has the header"),
    "code in the header": (npy("__import__('os').system('touch marker')"), "policy_probs has the header"),
    "deep header": (npy("[" * 900), "policy_probs has the header"),
    "objects": (with_array(policy_probs=np.array([[None]])), "policy_probs has the type '|O'"),
    "complex": (npy(FLOATS.replace("f4", "c8")), "has the type '<c8'; wanted numbers or strings"),
    "record": (npy(FLOATS.replace("'<f4'", "[('a', '<f4')]")), "has the type [('a'"),
    "one byte float": (npy(FLOATS.replace("f4", "f1")), "has the type '<f1'"),
    "negative size": (npy(FLOATS.replace("(2, 2)", "(2, -2)")), "has the shape (2, -2)"),
    "huge size": (npy(FLOATS.replace("(2, 2)", "(10**9,)")), "policy_probs has the header"),
    "other size": (npy(FLOATS, bytes(15)), "has 15 bytes of data for the shape (2, 2); it is damaged"),
    "columns": (npy(FLOATS.replace("False", "True"), bytes(16)), "numpy.ascontiguousarray"),
    "no text": (with_array(op_names=np.array([0x110000], dtype="<u4").view("<U1")), "strings that are not text"),
    "flat": (with_array(policy_probs=PROBABILITIES[0]), "policy_probs has the shape (4,); wanted (layers, entries)"),
    "deep": (with_array(policy_probs=np.full((17, 4), 0.25)), "at most 16 layers"),
    "no distribution": (with_array(policy_probs=PROBABILITIES * 2), "policy_probs[0] is no distribution"),
    "words": (with_array(policy_probs=np.full((1, 4), "a")), "policy_probs[0] is no distribution"),
    "not finite": (with_array(policy_probs=np.full((1, 4), np.nan)), "policy_probs[0] is no distribution"),
    "one level": (with_array(l_mags=1), "l_mags is (1,); wanted the number of levels"),
    "half a level": (with_array(l_mags=2.5), "l_mags is (2.5,)"),
    "short ops": (with_array(ops=np.array([0])), "ops has 1 values, (0,); wanted 4 whole numbers"),
    "op too high": (with_array(ops=np.array([0, 1, 2, 3])), "one for each entry of policy_probs, from 0 to 2"),
    "level too high": (with_array(mags=np.array([0, 1, 2, 13])), "mags has 4 values"),
    "unknown op": (with_array(op_names=np.array(["Identity", "Warp", "RandFlip"])), "op_names: op is 'Warp', which"),
}


@pytest.mark.parametrize(("content", "said"), MALFORMED_NPZ.values(), ids=MALFORMED_NPZ.keys())
def test_a_malformed_npz_gives_one_line(
    content: bytes | Callable[[Path], object], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "policy.npz"
    path.write_bytes(content) if isinstance(content, bytes) else content(path)
    assert_one_line(path, said, monkeypatch)


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (zipfile.ZIP_DEFLATED, "policy_probs unpacks to more than 1,000,000 bytes"),
        (zipfile.ZIP_BZIP2, "policy_probs is packed by another method"),
        (zipfile.ZIP_LZMA, "policy_probs is packed by another method"),
    ],
)
def test_a_bomb_is_not_unpacked(method: int, said: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.npz"
    path.write_bytes(zipped(("policy_probs.npy", bytes(50_000_000)), method=method))
    tracemalloc.start()
    with pytest.raises(InputError, match=said):
        read_policy(path)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_an_archive_with_any_byte_changed_is_read_or_refused(tmp_path: Path) -> None:
    path = deepaa(tmp_path / "policy.npz")
    whole = path.read_bytes()
    refused = 0
    for place in range(len(whole) - 400, len(whole)):  # the directory of the archive
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            read_policy(path)
        except InputError:
            refused += 1
    assert refused > 100


def test_numbers_of_every_kind_are_what_numpy_reads(tmp_path: Path) -> None:
    kinds = ("<f4", ">f8", "<f8", "|i1", ">i2", "<i4", ">i8", "|u1", "<u2", ">u4", "<u8", "<U3", ">U5")
    arrays = {f"a{n}": np.arange(6).reshape(2, 3).astype(kind) for n, kind in enumerate(kinds)}
    np.savez_compressed(tmp_path / "all.npz", **arrays)  # type: ignore[arg-type]
    for name, array in read_npz(tmp_path / "all.npz", tuple(arrays), "test").items():
        assert array.shape == (2, 3)
        assert list(array.values) == arrays[name].ravel().tolist()
