"""Parts of a data set are disjoint, stratified, seeded, and never depend on how the disk orders its files."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jointsearch.data.sets import ImageSet
from jointsearch.data.splits import of_classes, search_halves, stratified_split
from search_spaces.errors import InputError

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(torch.tensor)


@settings(deadline=None, max_examples=100)
@given(LABELS, st.data())
def test_parts_are_disjoint_sorted_stratified_and_of_the_size_asked_for(labels, data) -> None:
    first = data.draw(st.integers(0, len(labels)))
    second = data.draw(st.integers(0, len(labels) - first))
    parts = stratified_split(labels, (first, second), seed=7)
    assert [len(part) for part in parts] == [first, second]
    taken = torch.cat(parts)
    assert len(taken.unique()) == len(taken)
    left = labels.bincount(minlength=5)
    for part in parts:
        assert part.tolist() == sorted(part.tolist())
        counts = labels[part].bincount(minlength=5)
        share = len(part) * left.double() / max(int(left.sum()), 1)
        assert ((share - counts).abs() < 1).all()
        left = left - counts


def test_a_reduced_set_of_equal_classes_has_equal_classes() -> None:
    labels = torch.arange(5000) % 10
    (part,) = stratified_split(labels, (400,), seed=0)
    assert labels[part].bincount().tolist() == [40] * 10


def test_the_same_seed_gives_the_same_parts_and_another_seed_others() -> None:
    labels = torch.arange(200) % 4
    first, again, other = (stratified_split(labels, (40,), seed)[0].tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_the_global_generator_is_neither_used_nor_moved() -> None:
    labels = torch.arange(200) % 4
    torch.manual_seed(1)
    first = stratified_split(labels, (40,), 0)[0]
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert torch.equal(stratified_split(labels, (40,), 0)[0], first)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("later", [0, 20, 100])
def test_a_part_does_not_change_with_the_sizes_after_it(later: int) -> None:
    labels = torch.arange(200) % 4
    assert torch.equal(stratified_split(labels, (60, later), 0)[0], stratified_split(labels, (60,), 0)[0])


@pytest.mark.parametrize("sizes", [(11,), (6, 5), (-1, 3)])
def test_more_images_than_there_are_is_an_error(sizes: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"cannot be taken from 10; lower dataset\.reduced"):
        stratified_split(torch.zeros(10, dtype=torch.int64), sizes, 0)


@pytest.mark.parametrize("count", [30, 31])
def test_search_halves_are_disjoint_and_together_everything(count: int) -> None:
    image_set = ImageSet(
        torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1), torch.arange(count) % 3, ("a", "b", "c")
    )
    train, validation = search_halves(image_set, seed=0)
    pixels = [part.images.flatten().tolist() for part in (train, validation)]
    assert sorted(pixels[0] + pixels[1]) == list(range(count))
    assert len(validation) == count // 2
    assert validation.labels.bincount().tolist() == [5, 5, 5]
    assert search_halves(image_set, seed=1)[0].images.flatten().tolist() != pixels[0]


def thirty_classes(per_class: int) -> ImageSet:
    """Images whose one pixel is their label, of classes by the names 0 to 29."""
    labels = (torch.arange(30 * per_class) * 7) % 30
    return ImageSet(labels.to(torch.uint8).view(-1, 1, 1, 1), labels, tuple(map(str, range(30))))


def test_some_of_the_classes_are_numbered_anew_one_to_one_and_keep_all_of_their_images() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    some = of_classes(thirty_classes(4), 12)
    assert torch.equal(torch.get_rng_state(), before)
    assert sorted(some.labels.unique().tolist()) == list(range(12))
    assert some.labels.bincount().tolist() == [4] * 12
    pairs = set(zip(some.labels.tolist(), some.images.flatten().tolist(), strict=True))
    assert len(pairs) == 12  # each new number has one old one
    assert [some.classes[new] for new, _ in sorted(pairs)] == [str(old) for _, old in sorted(pairs)]
    assert list(some.classes) == sorted(some.classes, key=int)  # in the order that they had
    assert some.classes != tuple(map(str, range(12)))


def test_the_classes_are_the_same_for_every_part_of_a_data_set_and_never_more_than_there_are() -> None:
    whole = thirty_classes(4)
    assert of_classes(whole, 12).classes == of_classes(thirty_classes(1), 12).classes
    for count in (30, 31):
        assert torch.equal(of_classes(whole, count).labels, whole.labels)
        assert of_classes(whole, count).classes == whole.classes
