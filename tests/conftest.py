"""What all tests share: one thread, some images, the folder of real data, and the list of the project's files."""

import os
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

REPOSITORY = Path(__file__).resolve().parent.parent

# Begun first, so that no process is left with one of them alone; the others take at most half a minute each.
LONGEST = (
    *(
        "planted",
        "torchrun",
        "elsewhere",
        "scripts_search",
        "scripts_joint",
        "scripts",
        "docs",
        "retrain",
        "search_kills",
        "wheel",
    ),
)

# One thread: sums are always added in the same order, and on small tensors a second thread costs more than it gives.
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Tests of half a minute and more run when they are asked for."""
    parser.addoption("--long", action="store_true", help="also run the tests that are marked long")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest files first, within a file the order stays; long tests only where they are wanted."""
    left_out = [] if config.getoption("--long") else [item for item in items if item.get_closest_marker("long")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    order = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


@pytest.fixture
def images() -> Tensor:
    """(8, 3, 32, 32) in [0, 1], multiples of 1/255: smooth patches and fine grain, dark, bright and flat images."""
    generator = torch.Generator().manual_seed(20)
    patches = interpolate(torch.rand(8, 3, 5, 5, generator=generator), size=32, mode="bilinear")
    grain = 0.1 * torch.randn(8, 3, 32, 32, generator=generator)
    contrast = torch.linspace(0.3, 1.4, 8).view(8, 1, 1, 1)
    brightness = torch.linspace(0.7, 0.3, 8).view(8, 1, 1, 1)
    natural = (patches - 0.5 + grain) * contrast + brightness
    return natural.clamp(0, 1).mul(255).round().div(255)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets, named by JOINTSEARCH_DATA or found as shared/data beside the repository."""
    folder = Path(os.environ.get("JOINTSEARCH_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not a folder; set JOINTSEARCH_DATA to one")
    return folder


def project_files(suffix: str = "") -> list[Path]:
    """Every file of the project that git would not ignore, in order."""
    return sorted(path for path in _walk(REPOSITORY) if path.name.endswith(suffix))


def _walk(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if _is_ignored(path):
            continue
        if path.is_dir():
            yield from _walk(path)
        else:
            yield path


@cache
def _ignored() -> tuple[str, ...]:
    return tuple((REPOSITORY / ".gitignore").read_text().split())


def _is_ignored(path: Path) -> bool:
    at_root = path.parent == REPOSITORY
    return path.name == ".git" or any(
        fnmatch(path.name, pattern.strip("/")) for pattern in _ignored() if at_root or not pattern.startswith("/")
    )
