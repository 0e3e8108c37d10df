"""A folder of parquet files in the Hugging Face form is a data set like any other."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from jointsearch.data.datasets import HuggingFace
from jointsearch.data.hf import TableRows
from jointsearch.data.load import load_splits
from search_spaces.errors import InputError
from tests.folders_bench import gray, levels
from tests.images_bench import WHOLE

datasets = pytest.importorskip("datasets", reason="the extra `hf` is not installed")
# The library forks for its progress bars and leaves files to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps the library's cache out of the home folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def write(
    path: Path,
    count: int,
    first: int = 0,
    names: tuple[str, ...] = ("image", "label"),
    labels: Any = None,
    **cells: Any,
) -> None:
    """`count` gray images of rising levels, with labels 0 1 0 1 ... named no and yes unless others are given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": gray(first + n), "path": None} for n in range(count)]
    values = [n % 2 for n in range(count)] if labels is None else labels
    kinds = {names[0]: datasets.Image()}
    if labels is None:
        kinds[names[1]] = datasets.ClassLabel(names=["no", "yes"])
    elif isinstance(values[0], str):
        kinds[names[1]] = datasets.Value("string")
    else:
        kinds[names[1]] = datasets.Value("int64")
    columns = {names[0]: cells.get("images", images), names[1]: values}
    datasets.Dataset.from_dict(columns, features=datasets.Features(kinds)).to_parquet(path)


def settings(path: Path | str, **fields: Any) -> HuggingFace:
    return HuggingFace(**{"path": str(path), "channels": None, "validation": 0.25, "workers": 0, **fields})


def test_a_folder_without_splits_is_divided_in_three(tmp_path: Path) -> None:
    write(tmp_path / "set" / "0000.parquet", 10)
    write(tmp_path / "set" / "0001.parquet", 10, first=10)
    splits = load_splits(settings(tmp_path / "set"), 0)
    assert splits.train.classes == ("no", "yes")
    parts = (splits.train, splits.validation, splits.test)
    assert [len(part) for part in parts] == [12, 4, 4]
    pairs = [pair for part in parts for pair in zip(levels(part), part.labels.tolist(), strict=True)]
    assert sorted(pairs) == [(n, n % 2) for n in range(20)]


def test_splits_are_recognized_by_words_in_names_of_files_and_folders(tmp_path: Path) -> None:
    for name, count in (("data/train-00000-of-00001", 8), ("data/validation-00000-of-00001", 4), ("test/0000", 2)):
        write(tmp_path / "set" / f"{name}.parquet", count)
    splits = load_splits(settings(tmp_path / "set"), 0)
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [8, 4, 2]


def test_a_stream_gives_the_same_images_as_memory(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", 20)
    in_memory, streamed = (load_splits(settings(tmp_path, in_memory=mode), 0) for mode in ("always", "never"))
    (batch,) = streamed.train.batches(torch.arange(12), 12)
    assert torch.equal(batch.images, in_memory.train.images)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [(["no", "yes", "no", "yes"] * 3, ("no", "yes")), ([7, 3, 7, 3] * 3, ("3", "7"))],
    ids=["texts", "numbers"],
)
def test_labels_without_names_are_classes_in_order(labels: Any, classes: tuple[str, ...], tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", 12, names=("img", "y"), labels=labels)
    splits = load_splits(settings(tmp_path, image_column="img", label_column="y", validation=None), 0)
    assert splits.train.classes == classes
    expected = [classes.index(str(labels[level])) for level in levels(splits.train)]
    assert splits.train.labels.tolist() == expected


def unlabelled(path: Path) -> None:
    write(path / "train.parquet", 6, labels=[0, 1] * 3)
    write(path / "test.parquet", 2, labels=[-1, -1])


def bad_image(data: bytes | None) -> Any:
    cells = [{"bytes": gray(n), "path": None} for n in range(5)] + [{"bytes": data, "path": None} if data else None]
    return lambda path: write(path / "train.parquet", 6, images=cells)


BAD = {
    "no_folder": (lambda path: None, {}, "is no folder here; set dataset.path"),
    "empty_folder": (lambda path: path.mkdir(), {}, "holds no .parquet files"),
    "no_train": (lambda path: write(path / "test.parquet", 4), {}, "has no split called train (but test)"),
    "wrong_image_column": (
        lambda path: write(path / "a.parquet", 4),
        {"image_column": "x"},
        "set dataset.image_column",
    ),
    "wrong_label_column": (lambda path: write(path / "a.parquet", 4), {"label_column": "x"}, "to one of image, label"),
    "no_images_there": (
        lambda path: write(path / "a.parquet", 4),
        {"image_column": "label"},
        "has no images in column label",
    ),
    "images_as_labels": (
        lambda path: write(path / "a.parquet", 4),
        {"label_column": "image"},
        "set dataset.label_column",
    ),
    "unlabelled_test": (unlabelled, {}, "(test) row 0 has the label -1, which is no class"),
    "absent_image": (bad_image(None), {}, "row 5 holds no image bytes"),
    "damaged_image": (bad_image(WHOLE["png"][:500]), {}, "(train) row 5 is cut off or damaged"),
    "other_size": (bad_image(WHOLE["jpeg"]), {}, "row 5 is 20x24 px with 3 channels and"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", BAD)
def test_unusable_data_gives_one_line(name: str, tmp_path: Path) -> None:
    make, fields, words = BAD[name]
    make(tmp_path / "set")
    with pytest.raises(InputError) as caught:
        load_splits(settings(tmp_path / "set", **fields), 0)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_image_that_is_only_named_is_not_looked_for_on_the_disk() -> None:
    rows = TableRows([{"image": {"bytes": None, "path": "/etc/hostname"}}], "set (train)", "image")
    with pytest.raises(InputError, match=r"set \(train\) row 0 holds no image bytes in column image"):
        rows.data(0)


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1" + bytes(100))
    with pytest.raises(InputError, match=r"cannot be read as a data set \(.*\); repair it or get it again"):
        load_splits(settings(tmp_path), 0)


def test_a_name_on_the_hub_is_fetched_only_when_asked_and_fails_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(name: str) -> Any:
        raise ConnectionError(f"{name} is out of reach\nand more")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(InputError, match=r"some/name is no folder here; .* or dataset\.download=true"):
        load_splits(settings("some/name"), 0)
    with pytest.raises(
        InputError, match=r"cannot be read as a data set \(ConnectionError: some/name is out of reach\)"
    ):
        load_splits(settings("some/name", download=True), 0)


def test_without_the_extra_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install "jointsearch\[hf\]"'):
        load_splits(settings("anything"), 0)


def test_rows_are_left_out_by_split_and_number_and_are_named_so_by_their_error(tmp_path: Path) -> None:
    images = [{"bytes": gray(n) if n != 3 else b"text", "path": None} for n in range(10)]
    write(tmp_path / "set" / "train.parquet", 10, images=images)
    write(tmp_path / "set" / "test.parquet", 4, first=20)
    with pytest.raises(InputError, match=r"row 3 is not recognized .*, or leave it out: dataset\.skip=\[train/3\]$"):
        load_splits(settings(tmp_path / "set", validation=0), 0)
    splits = load_splits(settings(tmp_path / "set", validation=0, skip=("train/3", "test/1")), 0)
    assert levels(splits.train) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert levels(splits.test) == [20, 22, 23]
