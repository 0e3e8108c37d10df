"""Class folders and archives that the tests of data share."""

import io
import tarfile
import zipfile
from pathlib import Path

from jointsearch.data.datasets import Folder
from tests.images_bench import png

Files = dict[str, bytes]


def gray(level: int) -> bytes:
    """A 2x2 image of one gray level."""
    return png(2, 1, 8, 0, bytes([level, level]))


def classes(prefix: str = "", first: int = 0, count: int = 10) -> Files:
    """Two classes with images of different gray levels, whose names sort differently by number and by bytes."""
    return {f"{prefix}{name}/{n}.png": gray(first + 20 * n + k) for k, name in enumerate("ab") for n in range(count)}


def write_folder(root: Path, files: Files) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def write_tar(path: Path, files: Files, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def write_zip(path: Path, files: Files) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def settings(path: Path, **fields) -> Folder:
    """Sizes and channels stay as they are, and a quarter of the training images validates."""
    defaults = {"path": str(path), "channels": None, "validation": 0.25, "workers": 0}
    return Folder(**{**defaults, **fields})


def levels(image_set) -> list[int]:
    return image_set.images[:, 0, 0, 0].tolist()
