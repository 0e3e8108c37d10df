"""A search may have fewer images, of fewer classes, than the trainings after it: a reduced ImageNet."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from jointsearch.commands.command import run
from jointsearch.data import folder
from jointsearch.data.files import read_file
from jointsearch.data.load import Loaded
from jointsearch.data.sets import ImageSet
from jointsearch.search_kinds import PolicyOnly
from jointsearch.study import run_study
from search_spaces.errors import InputError
from tests.folders_bench import gray, settings, write_folder
from tests.runs_bench import DIGITS, search_study


def rows(images: ImageSet) -> list[tuple[int, ...]]:
    return [tuple(row) for row in images.images.flatten(1).tolist()]


def test_a_search_may_be_given_some_of_the_classes() -> None:
    loaded = Loaded(DIGITS)
    parts, whole = loaded.search_splits(3, 60, 4), loaded.splits(3).train
    assert torch.cat([parts.train.labels, parts.validation.labels]).bincount().tolist() == [15] * 4
    assert parts.train.classes == parts.validation.classes == parts.test.classes
    assert parts.train.classes == loaded.search_splits(4, 20, 4).train.classes
    name_of = dict(zip(rows(whole), [whole.classes[label] for label in whole.labels.tolist()], strict=True))
    for part in (parts.train, parts.validation):
        assert [name_of[row] for row in rows(part)] == [part.classes[label] for label in part.labels.tolist()]


def test_a_class_that_a_search_would_not_train_is_named() -> None:
    loaded = Loaded(DIGITS)
    names = loaded.search_splits(3, 20, 4).train.classes
    with pytest.raises(InputError, match=rf"class {names[1]} .* has no image left for training"):
        loaded.search_splits(3, 2, 4)


def test_the_trainings_after_it_have_all_images_and_classes(tmp_path: Path) -> None:
    study = replace(search_study(dataset=DIGITS), retrain=True, controls=())
    assert isinstance(study.search, PolicyOnly)
    some = replace(study, search=replace(study.search, policy_images=60, policy_classes=4))
    data = {}
    for name, one in {"all": study, "some": some}.items():
        run_study(replace(one, recipe=replace(one.recipe, epochs=1)), tmp_path / name)
        data[name] = json.loads((tmp_path / name / "found" / "seed3" / "settings.json").read_text())["data"]
    assert data["all"] == data["some"]
    told = json.loads((tmp_path / "some" / "search-seed3" / "settings.json").read_text())
    assert (told["search"]["images"], told["search"]["classes"]) == (60, 4)
    assert told["data"]["train"] == 30


def test_a_search_by_whole_trainings_has_all_images() -> None:
    with pytest.raises(
        InputError, match=r"^policy_images and policy_classes are of searches inside one training; Race"
    ):
        PolicyOnly(policy_images=100)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a file of each class folder was read."""
    counts: Counter[str] = Counter()

    def counted(path: Path, name: str) -> bytes:
        counts[path.parent.name] += 1
        return read_file(path, name)

    monkeypatch.setattr(folder, "read_file", counted)
    return counts


def test_of_a_folder_of_many_classes_only_the_images_of_the_search_are_read(
    reads: Counter[str], tmp_path: Path
) -> None:
    files = {f"{split}/n{c:03}/{n}.png": gray(c) for c in range(40) for n in range(6) for split in ("train", "test")}
    path = write_folder(tmp_path / "set", files)
    words = ["search=policy", "searcher=differentiable", "network=tiny_cnn", "dataset=folder", f"dataset.path={path}"]
    words += ["dataset.image_size=8", "dataset.workers=0", "dataset.validation=0", "policy_classes=5"]
    words += ["policy_images=20", "search_recipe.epochs=2", "search_recipe.batch_size=10", "seeds=[0]"]
    assert run("joint_search", [*words, "retrain=false", f"run={tmp_path / 'out'}"]) == 0
    del reads["n000"]  # the first image of all, whose shape counts
    assert len(reads) in (4, 5)
    assert sum(reads.values()) <= 2 * 20  # by the search, and by its report


def test_the_search_of_a_folder_is_the_same_in_memory_and_streamed(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "set", {f"n{c}/{n}.png": gray(c * 9 + n) for c in range(9) for n in range(8)})
    parts = [Loaded(settings(path, in_memory=way)).search_splits(0, 12, 3) for way in ("always", "never")]
    streamed = next(iter(parts[1].train.batches(torch.arange(6), 6)))
    assert torch.equal(parts[0].train.images, streamed.images)
    assert torch.equal(parts[0].train.labels, streamed.labels)
