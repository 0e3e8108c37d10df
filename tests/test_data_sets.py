"""Sets give their images in the order asked for, once each, whether they lie in memory or are streamed by workers."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from jointsearch.data.sets import Batch, ImageSet, StreamSet
from search_spaces.errors import InputError

# From Python 3.12 on, starting workers in a process that has threads is answered with this warning.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@dataclass(frozen=True)
class Numbered:
    """Row n is an image whose pixels are n; one row may be unreadable."""

    broken: int = -1

    def read(self, row: int) -> Tensor:
        if row == self.broken:
            raise InputError(f"file{row}.jpg is empty; remove it")
        return torch.full((1, 2, 3), row % 256, dtype=torch.uint8)


def numbered(count: int) -> ImageSet:
    pixels = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 3)
    boxes = torch.arange(count * 4, dtype=torch.float32).view(-1, 4)
    return ImageSet(pixels.clone(), torch.arange(count) % 3, ("a", "b", "c"), boxes)


def stream(count: int, workers: int, broken: int = -1) -> StreamSet:
    rows = torch.arange(count)
    return StreamSet(Numbered(broken), rows, rows % 3, ("a", "b", "c"), (1, 2, 3), workers)


SETS = {"in_memory": numbered, "workers_0": lambda count: stream(count, 0), "workers_2": lambda count: stream(count, 2)}


@pytest.mark.parametrize("make", SETS.values(), ids=SETS.keys())
def test_batches_come_in_exactly_the_order_given(make) -> None:
    order = torch.tensor([5, 0, 9, 2, 2, 7, 1])
    batches = list(make(10).batches(order, 3))
    assert [batch.index.tolist() for batch in batches] == [[5, 0, 9], [2, 2, 7], [1]]
    for batch in batches:
        assert batch.images.dtype == torch.uint8
        assert batch.images.shape == (len(batch.index), 1, 2, 3)
        assert torch.equal(batch.images[:, 0, 0, 0].long(), batch.index)
        assert torch.equal(batch.labels, batch.index % 3)


@pytest.mark.parametrize("make", SETS.values(), ids=SETS.keys())
def test_an_epoch_holds_every_image_exactly_once(make) -> None:
    image_set = make(10)
    order = torch.randperm(len(image_set), generator=torch.Generator().manual_seed(3))
    seen = torch.cat([batch.images[:, 0, 0, 0] for batch in image_set.batches(order, 4)])
    assert seen.tolist() == order.tolist()


@pytest.mark.parametrize("make", SETS.values(), ids=SETS.keys())
def test_no_order_gives_no_batch(make) -> None:
    assert list(make(4).batches(torch.empty(0, dtype=torch.int64), 3)) == []


@pytest.mark.parametrize("make", SETS.values(), ids=SETS.keys())
def test_a_subset_counts_from_zero_and_keeps_pixels_with_labels(make) -> None:
    part = make(10).subset(torch.tensor([8, 3])).subset(torch.tensor([1, 0, 1]))
    (batch,) = part.batches(torch.arange(3), 8)
    assert len(part) == 3
    assert batch.images[:, 0, 0, 0].tolist() == [3, 8, 3]
    assert batch.labels.tolist() == part.labels.tolist() == [0, 2, 0]
    assert batch.index.tolist() == [0, 1, 2]


@pytest.mark.parametrize("make", SETS.values(), ids=SETS.keys())
def test_reading_batches_leaves_the_global_generator_alone(make) -> None:
    before = torch.get_rng_state()
    list(make(5).batches(torch.arange(5), 2))
    assert torch.equal(torch.get_rng_state(), before)


def test_boxes_follow_their_images_into_a_subset() -> None:
    boxes = numbered(5).subset(torch.tensor([4, 1])).boxes
    assert boxes is not None
    assert boxes[:, 0].tolist() == [16, 4]


@pytest.mark.parametrize("count", [10, 600])
def test_a_stream_read_into_memory_has_the_same_images(count: int) -> None:
    image_set = stream(count, 2).subset(torch.arange(count).flip(0)).in_memory()
    assert image_set.images[:, 0, 0, 0].tolist() == [row % 256 for row in reversed(range(count))]
    assert image_set.image_shape == (1, 2, 3)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_file_is_one_line_even_from_a_worker(workers: int) -> None:
    with pytest.raises(InputError, match=r"^file6\.jpg is empty; remove it$"):
        list(stream(10, workers, broken=6).batches(torch.arange(10), 4))


def test_a_set_moves_to_a_device_with_everything_it_holds() -> None:
    moved = numbered(3).to("meta")
    assert moved.boxes is not None
    assert {moved.images.device.type, moved.labels.device.type, moved.boxes.device.type} == {"meta"}
    (batch,) = stream(3, 0).to("meta").batches(torch.arange(3), 3)
    assert isinstance(batch, Batch)
    assert {batch.images.device.type, batch.labels.device.type, batch.index.device.type} == {"meta"}
