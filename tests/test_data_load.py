"""Every named data set keeps its promises; settings that mean nothing are errors."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits

from jointsearch.data.datasets import DATASETS, DataSettings, Digits, Folder, HuggingFace, Shapes
from jointsearch.data.load import load_splits
from jointsearch.data.sets import ImageSet, StreamSet
from jointsearch.data.shapes import CLASSES, SHAPES_ANSWER, TETROMINOES, draw_shapes, read_shapes
from jointsearch.data.splits import search_halves
from jointsearch.data.standard import normalize
from jointsearch.settings import build
from search_spaces.augment.table import OPS
from search_spaces.errors import InputError


@pytest.mark.parametrize("settings", [Digits(), Shapes()], ids=["digits", "shapes"])
def test_an_embedded_set_is_normalized_by_its_defaults(settings: DataSettings) -> None:
    train = load_splits(settings, 0).train
    assert isinstance(train, ImageSet)
    pixels = normalize(train.images, settings.standard)
    assert abs(pixels.mean()) < 0.1
    assert abs(pixels.std() - 1) < 0.15


def test_digits_are_scikit_learns_with_300_for_training() -> None:
    splits = load_splits(Digits(), seed=0)
    parts = (splits.train, splits.validation, splits.test)
    assert [len(part) for part in parts] == [300, 748, 749]
    assert all(part.image_shape == (1, 8, 8) for part in parts)
    assert all(part.labels.bincount().min() >= len(part) // 10 - 3 for part in parts)
    ours = sorted((label, *image) for part in parts for image, label in flat(part))
    published = load_digits()
    levels = (published.images.reshape(-1, 64) * 255 / 16).round().astype(int)
    assert ours == sorted(
        (label, *image) for image, label in zip(levels.tolist(), published.target.tolist(), strict=True)
    )


def flat(part: ImageSet | StreamSet) -> list[tuple[list[int], int]]:
    assert isinstance(part, ImageSet)
    return list(zip(part.images.flatten(1).tolist(), part.labels.tolist(), strict=True))


def test_validation_does_not_change_when_fewer_training_images_are_kept() -> None:
    full, reduced = (load_splits(Digits(reduced=count), seed=4) for count in (None, 100))
    assert isinstance(full.validation, ImageSet)
    assert isinstance(reduced.validation, ImageSet)
    assert torch.equal(full.validation.images, reduced.validation.images)
    assert reduced.train.labels.bincount().tolist() == [10] * 10
    kept = [(tuple(image), label) for image, label in flat(full.train)]
    assert all((tuple(image), label) in kept for image, label in flat(reduced.train))


def test_a_share_and_a_number_of_images_mean_the_same() -> None:
    by_share = load_splits(Digits(validation=0.5), 0)
    by_number = load_splits(Digits(validation=524), 0)
    assert [len(part) for part in (by_share.train, by_share.validation)] == [524, 524]
    assert flat(by_share.validation) == flat(by_number.validation)


def test_without_validation_everything_is_for_training() -> None:
    for nothing in (None, 0):
        splits = load_splits(Digits(validation=nothing), 0)
        assert [len(splits.train), len(splits.validation)] == [1048, 0]


def test_search_halves_of_a_data_set_share_no_image_and_have_equal_classes() -> None:
    train, validation = search_halves(load_splits(Digits(), 0).train, seed=0)
    assert [len(train), len(validation)] == [150, 150]
    assert not {tuple(image) for image, _ in flat(train)} & {tuple(image) for image, _ in flat(validation)}
    assert (train.labels.bincount() - validation.labels.bincount()).abs().max() <= 1


@dataclass(frozen=True)
class Divided(Digits):
    """All digits, and so much of them held out as test images."""

    test_share: float | None = None  # type: ignore[misc]


BAD: dict[str, tuple[DataSettings, str]] = {
    "folder_without_a_place": (Folder(), "set dataset.path to a folder"),
    "hf_without_a_place": (HuggingFace(), "set dataset.path to a folder of parquet files"),
    "absent_place": (Folder(path="nowhere/at/all"), "nowhere/at/all does not exist; give"),
    "no_test_split": (Divided(), "has no test split; set dataset.test_share"),
    "test_share_too_large": (Divided(test_share=1.0), "dataset.test_share is 1.0, which is 1797 of 1797"),
    "test_share_too_small": (Divided(test_share=0.0001), "which is 0 of 1797 images; give a share"),
    "validation_too_large": (Shapes(reduced=801), "training images less 0 for validation leave 800"),
    "all_for_validation": (Divided(test_share=0.5, validation=0.9999), "give a share between 0 and 1"),
    "reduced_too_large": (Divided(test_share=0.5, validation=800, reduced=100), "leave 99; lower"),
    "class_not_trained": (Digits(reduced=5), "has no image left for training; raise"),
}


@pytest.mark.parametrize("name", BAD)
def test_settings_that_cannot_be_followed_are_one_line(name: str) -> None:
    settings, words = BAD[name]
    with pytest.raises(InputError) as caught:
        load_splits(settings, 0)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("digits", "path"),
        ("digits", "extra"),
        ("cifar10", "extra"),
        ("shapes", "validation"),
        ("shapes", "test_share"),
        ("svhn", "workers"),
    ],
)
def test_a_key_of_another_data_set_is_unknown(name: str, key: str) -> None:
    with pytest.raises(InputError, match=rf"^dataset\.{key} is not a setting; ") as caught:
        build(DATASETS[name], {key: 1}, "dataset")
    assert "\n" not in str(caught.value)


def test_shapes_are_the_same_on_every_call_whatever_the_global_seed() -> None:
    torch.manual_seed(1)
    first = read_shapes().train
    torch.manual_seed(2)
    second = read_shapes().train
    assert torch.equal(first.images, second.images)
    assert first.classes == CLASSES
    assert first.image_shape == (3, 32, 32)


def test_only_the_held_out_shapes_are_moved_turned_and_brightened() -> None:
    found = read_shapes()
    assert found.test is not None
    for part, is_varied in ((found.train, False), (found.test, True)):
        assert isinstance(part, ImageSet)
        assert part.boxes is not None
        centers = (part.boxes[:, :2] + part.boxes[:, 2:]) / 2 - 16
        assert (centers.abs().max() > 4) == is_varied
        assert (centers.abs().max() <= 0.5) == (not is_varied)
        brightness = part.images.float().mean((1, 2, 3))
        assert (brightness.max() > 200) == is_varied


def test_a_box_holds_its_shape_and_nothing_else() -> None:
    image_set = draw_shapes(64, 1.0, torch.Generator().manual_seed(9))
    assert image_set.boxes is not None
    rows = torch.arange(32) + 0.5
    for image, (left, top, right, bottom) in zip(image_set.images.double(), image_set.boxes.tolist(), strict=True):
        inside = ((rows > top) & (rows < bottom))[:, None] & ((rows > left) & (rows < right))
        ground = image[:, :2, :2].mean((1, 2)), image[:, ~inside].mean(1)
        # Noise has a standard deviation of at most 15 levels, so the mean of 4 pixels is within 40 of its own mean.
        assert (ground[0] - ground[1]).abs().max() < 40
        assert (image[:, inside].mean(1) - ground[1]).abs().max() > 12
        assert 0 <= left < right <= 32
        assert 0 <= top < bottom <= 32


def test_a_mirrored_shape_is_the_shape_of_another_class() -> None:
    def mirrored(letter: str) -> tuple[str, ...]:
        return tuple(row[::-1] for row in TETROMINOES[letter])

    assert mirrored("L") == TETROMINOES["J"]
    assert mirrored("S") == TETROMINOES["Z"]


def test_bright_shapes_lie_on_darker_ground_and_dark_ones_on_brighter_ground() -> None:
    image_set = draw_shapes(80, 0.0, torch.Generator())
    centre = image_set.images[:, :, 14:18, 14:18].float().mean((1, 2, 3))
    corner = image_set.images[:, :, :4, :4].float().mean((1, 2, 3))
    is_bright = torch.tensor([CLASSES[label].startswith("bright") for label in image_set.labels.tolist()])
    assert torch.equal(centre > corner, is_bright)


def test_the_right_answer_names_ops_that_exist() -> None:
    assert set(SHAPES_ANSWER["recover"]).isdisjoint(SHAPES_ANSWER["avoid"])
    assert {*SHAPES_ANSWER["recover"], *SHAPES_ANSWER["avoid"]} <= OPS.keys()


def test_real_photos_in_a_tar_are_read_and_divided(shared_data: Path) -> None:
    settings = Folder(path=str(shared_data / "signdigits_s64.tar"), image_size=32, workers=0)
    splits = load_splits(settings, 0)
    assert splits.train.classes == tuple("0123456789")
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [1485, 165, 412]
    assert splits.train.image_shape == (3, 32, 32)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_reduced_set_out_of_a_large_archive_decodes_only_what_it_keeps(shared_data: Path) -> None:
    path = shared_data / "cifar10_jpg_train.tar.gz"
    settings = Folder(path=str(path), reduced=500, validation=500, test_share=0.01, workers=2)
    splits = load_splits(settings, 0)
    parts = (splits.train, splits.validation, splits.test)
    assert all(isinstance(part, ImageSet) and part.image_shape == (3, 32, 32) for part in parts)
    assert all(part.labels.bincount().tolist() == [50] * 10 for part in parts)
    assert splits.train.classes[0] == "airplane"
