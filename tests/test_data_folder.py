"""Class folders are found in a folder or an archive in every layout, and every misplaced file is named."""

import os
import random
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from jointsearch.data.load import load_splits
from jointsearch.data.sets import DataSplits, ImageSet
from search_spaces.errors import InputError
from tests.folders_bench import Files, classes, gray, levels, settings, write_folder, write_tar, write_zip
from tests.images_bench import png

WRITERS: dict[str, Callable[[Path, Files], Path]] = {
    "folder": lambda root, files: write_folder(root / "set", files),
    "tar": lambda root, files: write_tar(root / "set.tar", files),
    "tar_gz": lambda root, files: write_tar(root / "set.tar.gz", files, "w:gz"),
    "tgz": lambda root, files: write_tar(root / "SET.TGZ", files, "w:gz"),
    "zip": lambda root, files: write_zip(root / "set.zip", files),
}


def contents(splits: DataSplits) -> list[list[tuple[int, int]]]:
    return [
        list(zip(levels(part), part.labels.tolist(), strict=True))
        for part in (splits.train, splits.validation, splits.test)
    ]


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
@pytest.mark.parametrize("prefix", ["", "Dataset/", "wrapping/Dataset/", "./"])
def test_a_set_without_splits_is_divided_in_three_with_nothing_lost(write, prefix: str, tmp_path: Path) -> None:
    path = write(tmp_path, {**classes(prefix), f"{prefix}README.txt": b"about", f"{prefix}a/.hidden": b"not an image"})
    splits = load_splits(settings(path), seed=0)
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [12, 4, 4]
    assert splits.train.classes == ("a", "b")
    everything = [pair for part in contents(splits) for pair in part]
    assert sorted(everything) == sorted((20 * n + k, k) for k in range(2) for n in range(10))
    assert all(part.labels.bincount().tolist() == [len(part) // 2] * 2 for part in (splits.train, splits.test))


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
@pytest.mark.parametrize(("prefix", "validation"), [("", "val"), ("set/", "Validation"), ("", "valid"), ("x/", "")])
def test_own_splits_are_kept(write, prefix: str, validation: str, tmp_path: Path) -> None:
    held_out = classes(f"{prefix}{validation}/", 5, 3) if validation else {}
    path = write(tmp_path, {**classes(f"{prefix}train/"), **held_out, **classes(f"{prefix}test/", 9, 4)})
    splits = load_splits(settings(path), seed=0)
    sizes = [len(splits.train), len(splits.validation), len(splits.test)]
    assert sizes == ([20, 6, 8] if validation else [15, 5, 8])
    assert sorted(levels(splits.test)) == sorted(9 + 20 * n + k for k in range(2) for n in range(4))


def test_a_second_archive_may_hold_the_test_images(tmp_path: Path) -> None:
    train = write_tar(tmp_path / "train.tar", classes())
    test = write_zip(tmp_path / "test.zip", classes("some/", 9, 4))
    splits = load_splits(settings(train, test_path=str(test)), seed=0)
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [15, 5, 8]


def test_a_class_called_train_is_a_class(tmp_path: Path) -> None:
    path = write_folder(
        tmp_path, {"train/1.png": gray(1), "train/2.png": gray(2), "bus/1.png": gray(3), "bus/2.png": gray(4)}
    )
    splits = load_splits(settings(path, validation=None, test_share=0.5), seed=0)
    assert splits.train.classes == ("bus", "train")


def test_the_order_of_files_on_disk_and_in_an_archive_changes_nothing(tmp_path: Path) -> None:
    files = list({**classes(), "a/é.png": gray(250), "b/Z.png": gray(251)}.items())
    results = []
    for number in range(4):
        random.Random(number).shuffle(files)
        path = list(WRITERS.values())[number](tmp_path / f"{number}" if number == 0 else tmp_path, dict(files))
        results.append(contents(load_splits(settings(path), seed=3)))
    assert all(result == results[0] for result in results)


def test_the_seed_draws_validation_and_never_moves_the_test_images(tmp_path: Path) -> None:
    path = write_folder(tmp_path, classes())
    first, second = (load_splits(settings(path), seed) for seed in (0, 1))
    assert levels(first.test) == levels(second.test)
    assert levels(first.validation) != levels(second.validation)


def test_classes_are_sorted_by_the_bytes_of_their_names(tmp_path: Path) -> None:
    names = ["10", "9", "B", "a", "é"]
    path = write_folder(tmp_path, {f"{name}/{n}.png": gray(n) for name in names for n in range(2)})
    assert load_splits(settings(path, validation=None, test_share=0.5), 0).train.classes == tuple(names)


def test_a_stream_gives_the_same_images_as_memory(tmp_path: Path) -> None:
    for write in WRITERS.values():
        path = write(tmp_path, classes())
        in_memory, streamed = (load_splits(settings(path, in_memory=mode), 0) for mode in ("always", "never"))
        assert isinstance(in_memory.train, ImageSet)
        assert not isinstance(streamed.train, ImageSet)
        (batch,) = streamed.train.batches(torch.arange(12), 12)
        assert torch.equal(batch.images, in_memory.train.images)


def test_dot_folders_and_system_files_are_ignored(tmp_path: Path) -> None:
    debris = {
        ".git/x.png": b"",
        "__MACOSX/a/._0.png": b"",
        "a/.DS_Store": b"",
        "b/Thumbs.db": b"",
        "a/desktop.ini": b"",
    }
    for write in WRITERS.values():
        assert len(load_splits(settings(write(tmp_path, {**classes(), **debris})), 0).train) == 12


def test_a_link_to_a_file_or_class_inside_the_folder_is_followed(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", classes())
    (root / "a" / "linked.png").symlink_to(root / "b" / "0.png")
    (root / "c").symlink_to(root / "b")
    splits = load_splits(settings(root, validation=None), 0)
    assert splits.train.classes == ("a", "b", "c")
    assert len(splits.train) + len(splits.test) == 31


def make_device(file: Path) -> None:
    try:
        os.mknod(file, 0o600 | 0o020000, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root may make a device")


def make_socket(file: Path) -> None:
    place = os.getcwd()
    os.chdir(file.parent)  # a socket's name may have 100 characters
    try:
        socket.socket(socket.AF_UNIX).bind(file.name)
    finally:
        os.chdir(place)


STRANGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "broken_link": (lambda file: file.symlink_to("nowhere.png"), "is a broken link; remove it"),
    "link_out_of_the_root": (lambda file: file.symlink_to("/etc/hostname"), "is a link out of the data folder"),
    "link_to_a_folder_outside": (lambda file: file.symlink_to("/etc"), "is a link out of the data folder"),
    "link_to_a_device": (lambda file: file.symlink_to("/dev/zero"), "is a link out of the data folder"),
    "link_to_itself": (lambda file: file.symlink_to(file.name), "is a broken link"),
    "fifo": (os.mkfifo, "is a device, a pipe or a socket"),
    "device": (make_device, "is a device, a pipe or a socket"),
    "socket": (make_socket, "is a device, a pipe or a socket"),
    "folder": (lambda file: file.mkdir(), "is a folder inside a class folder"),
    "text": (lambda file: file.write_text("hello"), "is not recognized as one of"),
    "empty": (lambda file: file.touch(), "is empty"),
}


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("kind", STRANGE)
def test_a_file_that_is_no_image_is_named_and_never_skipped(kind: str, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", classes())
    make, words = STRANGE[kind]
    make(root / "a" / "00.png")
    with pytest.raises(InputError) as caught:
        load_splits(settings(root), 0)
    assert str(caught.value).startswith(f"{root}/a/00.png {words}")
    assert "\n" not in str(caught.value)


BAD_LAYOUTS: dict[str, tuple[Files, str]] = {
    "one_class": ({"a/1.png": gray(1)}, "set has 1 class folders with images; give at least 2"),
    "no_class": ({"README": b""}, "set has 0 class folders"),
    "image_outside": ({**classes(), "x.JPG": gray(1)}, "set/x.JPG is an image outside of a class folder; move it"),
    "nested": ({**classes(), "a/more/1.png": gray(1)}, "set/a/more is a folder inside a class folder"),
    "too_deep": ({**classes(), "a/1/2/3/4/5.png": gray(1)}, "set/a/1"),
    "test_only_class": (
        {**classes("train/"), **classes("test/"), "test/c/1.png": gray(1)},
        "has the class c in its test",
    ),
    "stray_folder": (
        {**classes("train/"), **classes("test/"), **classes("other/")},
        "set/other lies beside the train and test",
    ),
    "two_of_one_split": ({**classes("train/"), **classes("val/"), **classes("valid/")}, "are all validation folders"),
    "mixed_sizes": ({**classes(), "b/0.png": png(3, 1, 8, 0, bytes(3))}, "b/0.png is 3x1 px with 1 channel and"),
    "mixed_channels": ({**classes(), "b/0.png": png(2, 1, 8, 2, bytes(6))}, "is 2x1 px with 3 channels and"),
}


@pytest.mark.parametrize("name", BAD_LAYOUTS)
def test_a_layout_that_does_not_fit_is_one_line(name: str, tmp_path: Path) -> None:
    files, words = BAD_LAYOUTS[name]
    with pytest.raises(InputError) as caught:
        load_splits(settings(write_folder(tmp_path / "set", files)), 0)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_class_folder_is_an_error(tmp_path: Path) -> None:
    root = write_folder(tmp_path, classes())
    (root / "c").mkdir()
    with pytest.raises(InputError, match="/c is a class folder without images; fill or remove it"):
        load_splits(settings(root), 0)


def test_both_files_of_two_sizes_are_named_and_a_size_helps(tmp_path: Path) -> None:
    path = write_folder(tmp_path, {**classes(), "b/5.png": png(3, 1, 8, 0, bytes(3))})
    with pytest.raises(InputError, match=r"b/5\.png is 3x1 px .* and .*a/0\.png is 2x1 px .* set dataset\.image_size"):
        load_splits(settings(path), 0)
    assert load_splits(settings(path, image_size=4, channels=3), 0).train.image_shape == (3, 4, 4)
