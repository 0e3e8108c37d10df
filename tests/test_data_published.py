"""Small files in the published form of a data set are read, and a malicious pickle is refused without effect."""

import fcntl
import gzip
import hashlib
import http.server
import os
import pickle
import socket
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from scipy.io import savemat

from jointsearch.data import cifar, download, svhn
from jointsearch.data.cifar import CIFARS, read_cifar
from jointsearch.data.datasets import DATASETS
from jointsearch.data.download import fetch
from jointsearch.data.safe_pickle import read_pickle
from jointsearch.data.svhn import MD5, PUBLISHED, read_svhn
from search_spaces.errors import InputError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 3072), dtype=np.uint8)


def python2_pickle(value: Any) -> bytes:
    """A pickle of protocol 2 as Python 2 wrote it, with byte strings: the form in which CIFAR is published."""
    return b"\x80\x02" + _python2(value) + b"."


def _python2(value: Any) -> bytes:
    if isinstance(value, str | bytes):
        data = value.encode("latin-1") if isinstance(value, str) else value
        return b"T" + len(data).to_bytes(4, "little") + data
    if isinstance(value, int):
        return b"J" + value.to_bytes(4, "little", signed=True)
    if isinstance(value, list):
        return b"](" + b"".join(map(_python2, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(_python2(key) + _python2(entry) for key, entry in value.items()) + b"u"
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\x01b\x87R"
    dtype = b"cnumpy\ndtype\nU\x02u1K\0K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    rows, columns = (_python2(side) for side in value.shape)
    return empty + b"(K\x01" + rows + columns + b"\x86" + dtype + b"\x89" + _python2(value.tobytes()) + b"tb"


def cifar10_files(rows: int = 2) -> dict[str, bytes]:
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    files = {"batches.meta": python2_pickle({"label_names": [f"class {n}" for n in range(10)], "num_vis": 3072})}
    for number, name in enumerate(names):
        batch = {
            "batch_label": name,
            "labels": [number, 9],
            "data": PIXELS[2 * number :][:rows],
            "filenames": ["a", "b"],
        }
        files[name] = python2_pickle(batch)
    return files


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def write_archive(folder: Path, name: str, files: dict[str, bytes]) -> Path:
    inner = write(folder / "made" / "batches", files)
    with tarfile.open(folder / name, "w:gz") as archive:
        archive.add(inner, "batches")
    return folder / name


def check_cifar10(splits) -> None:
    assert splits.train.labels.tolist() == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9]
    assert splits.test.labels.tolist() == [5, 9]
    assert splits.validation is None
    assert np.array_equal(splits.train.images.reshape(10, -1).numpy(), PIXELS[:10])
    assert np.array_equal(splits.test.images.numpy(), PIXELS[10:].reshape(2, 3, 32, 32))


def test_cifar10_is_read_from_its_folder_its_archive_or_the_folder_of_the_archive(tmp_path: Path) -> None:
    archive = write_archive(tmp_path, "cifar-10-python.tar.gz", cifar10_files())
    for place in (tmp_path / "made" / "batches", tmp_path / "made", archive):
        splits = read_cifar("cifar10", place, download=False)
        check_cifar10(splits)
        assert splits.train.classes[3] == "class 3"
    (tmp_path / "alone").mkdir()
    archive.rename(tmp_path / "alone" / archive.name)
    check_cifar10(read_cifar("cifar10", tmp_path / "alone", download=False))


def test_cifar10_is_read_from_its_binary_version(tmp_path: Path) -> None:
    files = {"batches.meta.txt": b"airplane\nautomobile\n" + b"x\n" * 8}
    names = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]
    for number, name in enumerate(names):
        files[name] = bytes([number]) + PIXELS[2 * number].tobytes() + bytes([9]) + PIXELS[2 * number + 1].tobytes()
    splits = read_cifar("cifar10", write(tmp_path, files), download=False)
    check_cifar10(splits)
    assert splits.train.classes[:2] == ("airplane", "automobile")


def test_cifar100_has_its_fine_labels(tmp_path: Path) -> None:
    batch = {"data": PIXELS[:3], "fine_labels": [99, 0, 5], "coarse_labels": [1, 1, 1]}
    meta = {"fine_label_names": [f"fine {n}" for n in range(100)], "coarse_label_names": ["c"] * 20}
    files = {"train": python2_pickle(batch), "test": python2_pickle(batch), "meta": python2_pickle(meta)}
    splits = read_cifar("cifar100", write(tmp_path, files), download=False)
    assert splits.train.labels.tolist() == [99, 0, 5]
    assert splits.train.classes[99] == "fine 99"
    binary = b"".join(bytes([7, label]) + row.tobytes() for label, row in zip([99, 0, 5], PIXELS, strict=False))
    names = "\n".join(meta["fine_label_names"]).replace(" ", "_").encode()
    other = write(tmp_path / "b", {"train.bin": binary, "test.bin": binary, "fine_label_names.txt": names})
    again = read_cifar("cifar100", other, download=False)
    assert torch.equal(again.train.images, splits.train.images)
    assert again.train.labels.tolist() == [99, 0, 5]


def test_addresses_and_checksums_are_torchvisions() -> None:
    for name, published in (("cifar10", torchvision.datasets.CIFAR10), ("cifar100", torchvision.datasets.CIFAR100)):
        assert (CIFARS[name].url, CIFARS[name].md5) == (published.url, published.tgz_md5)
    for part, (url, filename, md5) in torchvision.datasets.SVHN.split_list.items():
        assert (f"{PUBLISHED}/{part}_32x32.mat", f"{part}_32x32.mat", MD5[part]) == (url, filename, md5)


def without_network(*_: object, **__: object) -> None:
    raise AssertionError("a socket was opened")


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn"])
def test_absent_files_are_one_line_and_no_download_unasked(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(socket, "socket", without_network)
    monkeypatch.chdir(tmp_path)
    for path in (None, tmp_path / "nowhere"):
        with pytest.raises(
            InputError, match=r"leave dataset\.download=false out to fetch it from http.*, or set dataset\.path to"
        ):
            read_svhn(path, False, False) if name == "svhn" else read_cifar(name, path, False)
    assert list(tmp_path.iterdir()) == []


class Trap:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


ATTACKS = {
    "system": lambda marker: Trap(os.mkdir, str(marker)),
    "open": lambda marker: Trap(open, str(marker), "w"),
    "path": lambda marker: Trap(Path.touch, marker),
    "getattr": lambda marker: Trap(getattr, "text", "upper"),
    "numpy_function": lambda marker: Trap(np.savetxt, str(marker), [1.0]),
    "gzip": lambda marker: Trap(gzip.open, str(marker), "w"),
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", ATTACKS)
def test_a_malicious_pickle_is_refused_and_runs_nothing(name: str, protocol: int, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    data = pickle.dumps({"data": ATTACKS[name](marker)}, protocol)
    with pytest.raises(InputError, match=r"asks for \S+, which no CIFAR batch needs"):
        read_pickle(data, "data_batch_1")
    assert not marker.exists()


ARRAY = python2_pickle(PIXELS[:1])
BAD_PICKLES = {
    "empty": b"",
    "text": b"hello",
    "cut_off": ARRAY[:-30],
    "array_shorter_than_its_shape": ARRAY.replace(b"J\x00\x0c\0\0", b"J\x00\x0d\0\0"),
    "array_of_objects": ARRAY.replace(b"U\x02u1", b"U\x02O8"),
    "array_without_content": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R.",
    "huge_memo": b"\x80\x02Nr\xff\xff\xff\x7f0(r\xff\xff\xff\x7f.",
    "huge_text": b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f.",
    "tuple": pickle.dumps((1, 2)),
    "persistent": b"\x80\x02Pobject\n.",
    "extension": b"\x80\x02\x82\x01.",
}


@pytest.mark.parametrize("name", BAD_PICKLES)
def test_a_malformed_pickle_is_one_line(name: str) -> None:
    with pytest.raises(InputError, match=r"^batch\S* is no CIFAR batch \(.*\); download it again$"):
        read_pickle(BAD_PICKLES[name], "batch")


def test_a_pickle_of_todays_python_is_read_too() -> None:
    value = {b"data": PIXELS[:2], "labels": [1, 2], "rate": 0.5, "none": None}
    read = read_pickle(pickle.dumps(value, protocol=4), "x")
    assert np.array_equal(read["data"], PIXELS[:2])
    assert read["labels"] == [1, 2]
    columns_first = np.asfortranarray(PIXELS[:2])
    assert np.array_equal(read_pickle(pickle.dumps(columns_first, protocol=4), "x"), PIXELS[:2])


def with_label(label: Any) -> dict[str, bytes]:
    return {**cifar10_files(), "data_batch_2": python2_pickle({"labels": [label, 1], "data": PIXELS[:2]})}


BAD_CIFAR = {
    "label_too_large": (with_label(10), "labels that do not fit"),
    "label_negative": (with_label(-1), "labels that do not fit"),
    "label_text": (with_label("cat"), "labels that are no whole numbers"),
    "more_labels_than_images": (cifar10_files(rows=1), "labels that do not fit"),
    "no_labels": ({**cifar10_files(), "data_batch_1": python2_pickle({"data": PIXELS[:2]})}, "has no list of labels"),
    "no_data": ({**cifar10_files(), "data_batch_1": python2_pickle({"labels": [1, 2]})}, "no array of 3072 bytes"),
    "a_list": ({**cifar10_files(), "data_batch_1": python2_pickle([1])}, "has no list of labels"),
    "no_names": (
        {name: data for name, data in cifar10_files().items() if "meta" not in name},
        "comes without batches.meta",
    ),
    "binary_of_odd_length": (
        {**{f"{name}.bin": b"x" * 3074 for name in (*CIFARS["cifar10"].train, "test_batch")}, "batches.meta.txt": b"x"},
        "has 3074 bytes, but each image takes 3073",
    ),
    "one_batch_missing": ({"data_batch_1": b""}, "holds no cifar10"),
}


@pytest.mark.parametrize("name", BAD_CIFAR)
def test_a_damaged_cifar_is_one_line(name: str, tmp_path: Path) -> None:
    files, words = BAD_CIFAR[name]
    with pytest.raises(InputError) as caught:
        read_cifar("cifar10", write(tmp_path, files), download=False)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def svhn_file(path: Path, count: int, first: int) -> np.ndarray:
    pixels = RNG.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
    labels = (np.arange(count) + first) % 10
    savemat(path, {"X": pixels, "y": np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]})
    return pixels


def test_svhn_is_read_with_ten_as_zero_and_extra_where_asked(tmp_path: Path) -> None:
    train, extra, _ = (
        svhn_file(tmp_path / f"{part}_32x32.mat", n, n) for part, n in (("train", 12), ("extra", 4), ("test", 3))
    )
    splits = read_svhn(tmp_path, download=False, extra=False)
    assert splits.train.labels.tolist() == [2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3]
    assert np.array_equal(splits.train.images[5].numpy(), train[:, :, :, 5].transpose(2, 0, 1))
    more = read_svhn(tmp_path, download=False, extra=True).train
    assert len(more) == 16
    assert np.array_equal(more.images[13].numpy(), extra[:, :, :, 1].transpose(2, 0, 1))
    assert len(splits.test) == 3


@pytest.mark.parametrize("data", [b"", b"text" * 100, b"MATLAB 5.0 MAT-file" + bytes(500)])
def test_a_damaged_svhn_file_is_one_line(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "train_32x32.mat").write_bytes(data)
    with pytest.raises(InputError, match=r"train_32x32\.mat is no SVHN file \(\w+\); download it again"):
        read_svhn(tmp_path, download=False, extra=False)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A web server on this machine that answers every path but /absent with the same 3,000,000 bytes."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404 if self.path == "/absent" else 200)
            self.end_headers()
            self.wfile.write(b"abc" * 10**6)

        def log_message(self, *_: Any) -> None:
            """Keep the test's output clean."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_download_is_verified_before_it_gets_its_name(address: str, tmp_path: Path) -> None:
    target = tmp_path / "new" / "file.bin"
    fetch(f"{address}/file", hashlib.md5(b"abc" * 10**6).hexdigest(), target, megabytes=3)
    assert target.read_bytes() == b"abc" * 10**6
    assert [file.name for file in target.parent.iterdir()] == ["file.bin"]


@pytest.mark.parametrize(
    ("path", "words"), [("/file", "but 0000 is published; try again later"), ("/absent", "cannot be downloaded")]
)
def test_a_wrong_or_failed_download_leaves_nothing(path: str, words: str, address: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        fetch(address + path, "0000", tmp_path / "file.bin", megabytes=3)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_download_left_is_removed_and_what_still_runs_is_kept(address: str, tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    left, runs, others = (tmp_path / name for name in (".file.bin.1.part", ".file.bin.2.part", ".other.bin.1.part"))
    for path in (left, runs, others):
        path.write_bytes(b"ab")
    with runs.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        fetch(f"{address}/file", hashlib.md5(b"abc" * 10**6).hexdigest(), target, megabytes=3)
        assert set(tmp_path.iterdir()) == {target, runs, others}


def test_a_download_holds_a_lock_on_what_it_writes(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = []
    monkeypatch.setattr(download.fcntl, "flock", lambda file, how: locked.append((Path(file.name).name, how)))
    fetch(f"{address}/file", hashlib.md5(b"abc" * 10**6).hexdigest(), tmp_path / "file.bin", megabytes=3)
    assert locked == [(f".file.bin.{os.getpid()}.part", fcntl.LOCK_EX)]


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn"])
def test_nothing_is_downloaded_into_a_folder_of_other_files(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[Path] = []
    for module in (cifar, svhn):
        monkeypatch.setattr(module, "fetch", lambda url, md5, target, size: fetched.append(target))
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match=rf"holds other files, as thesis.tex, and not all of {name}; nothing is down"):
        DATASETS[name](path=str(tmp_path)).find()
    assert not fetched
    (tmp_path / "thesis.tex").rename(tmp_path / ".DS_Store")
    (tmp_path / ".file.1.part").touch()
    if name == "svhn":
        (tmp_path / "test_32x32.mat").touch()
    with pytest.raises(InputError, match=r"dataset\.path"):
        DATASETS[name](path=str(tmp_path)).find()
    assert len(fetched) == 1


def test_only_web_addresses_are_fetched(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no web address"):
        fetch((tmp_path / "x").as_uri(), "0", tmp_path / "y", megabytes=1)
