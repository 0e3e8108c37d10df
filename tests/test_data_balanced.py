"""A balanced epoch has as many images of every class; one that is not is a permutation, as ever."""

from pathlib import Path
from typing import Any

import pytest
import torch

from jointsearch import Digits, Folder, Grid, Recipe, load_splits, run_grid
from jointsearch.data.load import load_search_splits
from jointsearch.data.sets import ImageSet
from jointsearch.data.splits import epoch_order
from jointsearch.loops.trainer import Trainer
from tests.folders_bench import gray, write_folder


def labelled(labels: list[int], balanced: bool = True) -> ImageSet:
    found = torch.tensor(labels)
    return ImageSet(torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8), found, ("a", "b", "c"), balanced=balanced)


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_of_12_and_3_and_3_images_an_epoch_of_18_has_6_of_each() -> None:
    images = labelled([0] * 12 + [1] * 3 + [2] * 3)
    counts = torch.zeros(18, dtype=torch.int64)
    for seed in range(200):
        order = epoch_order(images, noise(seed))
        once = order.bincount(minlength=18)
        assert len(order) == 18
        assert once[:12].sum() == 6
        assert once[:12].max() == 1  # the large class repeats none
        assert once[12:].tolist() == [2] * 6  # and of the small ones each image comes as often as the others
        counts += once
    # Each of the 12 is in an epoch with probability 1/2: binomial around 100 with standard deviation 7.
    assert counts[:12].min() > 100 - 6 * 7
    assert counts[:12].max() < 100 + 6 * 7


def test_what_does_not_divide_goes_to_other_classes_in_other_epochs() -> None:
    images, more = labelled([0, 0, 0, 0, 0, 1, 2, 2]), set()
    for seed in range(30):
        of_class = images.labels[epoch_order(images, noise(seed))].bincount(minlength=3).tolist()
        assert sorted(of_class) == [2, 3, 3]
        more.add(tuple(of_class))
    assert more == {(2, 3, 3), (3, 2, 3), (3, 3, 2)}


def test_images_of_a_class_do_not_stand_together() -> None:
    order = epoch_order(labelled([0] * 90 + [1] * 10), noise())
    first = (order[:50] >= 90).sum()
    assert 10 < first < 40


def test_a_class_that_is_not_there_is_left_out() -> None:
    assert (epoch_order(labelled([0, 0, 2, 2, 2, 2]), noise()) < 2).sum() == 3


def test_without_it_an_epoch_is_the_permutation_that_it_was() -> None:
    assert torch.equal(epoch_order(labelled([0] * 9 + [1], False), noise(4)), torch.randperm(10, generator=noise(4)))
    assert torch.equal(epoch_order([None] * 5, noise(4)), torch.randperm(5, generator=noise(4)))  # as a set of objects


@pytest.fixture
def uneven(tmp_path: Path) -> Path:
    """24 images of class a and 6 of class b."""
    few = {f"b/{place}.png": gray(200 + place) for place in range(6)}
    return write_folder(tmp_path / "photos", few | {f"a/{place}.png": gray(place) for place in range(24)})


@pytest.mark.parametrize("in_memory", ["always", "never"])
def test_a_folder_is_balanced_where_that_is_said_also_in_a_search(uneven: Path, in_memory: str) -> None:
    folder = Folder(path=str(uneven), balanced=True, workers=0, in_memory=in_memory)
    parts = (load_splits(folder, 0), load_search_splits(folder, 0))
    assert all(splits.train.balanced for splits in parts)
    assert not load_splits(Folder(path=str(uneven), workers=0), 0).train.balanced
    assert not load_splits(Digits(), 0).train.balanced


@pytest.mark.parametrize("balanced", [True, False])
def test_a_training_sees_every_class_as_often(
    balanced: bool, uneven: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    step = Trainer.step

    def recorded(made: Trainer, images: Any, labels: Any, done: int) -> Any:
        seen.extend(labels.tolist())
        return step(made, images, labels, done)

    monkeypatch.setattr(Trainer, "step", recorded)
    folder = Folder(path=str(uneven), image_size=8, balanced=balanced, validation=0, workers=0)
    [result] = run_grid(Grid(("none",), folder, (0,), "tiny_cnn", Recipe(epochs=3, batch_size=8)), tmp_path / "run")
    counts = torch.tensor(seen[-72:]).bincount().tolist()  # before them come two tried steps
    assert counts == ([36, 36] if balanced else [57, 15])
    assert result["images_trained"] == 72
