"""What the tests of tables share: small networks, images with a planted op, and searchers that measure when told."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from jointsearch.data.sets import Batch
from jointsearch.data.standard import Standard
from jointsearch.protocols import Context, StepReport
from jointsearch.searchers.spaces import Measured
from jointsearch.searchers.table import Table, TableSearcher, Trials
from search_spaces.policy import Policy
from tests.search_bench import Descent, moment, noise

AS_IS = Standard(mean=(0.5,), std=(0.25,))
MOVED = Standard(crop_padding=2, flip=True, cutout=3, mean=(0.5,), std=(0.25,))
PLANTED = ("HorizontalFlip", "Color", "TranslateY")
EPOCHS = 3  # the fewest with two measurements of trials


def table(*ops: str, start: str = "trivialaugment", **searcher: Any) -> Table:
    return Table(policy_space=Measured(start, ops or None), **searcher)


def trials(*ops: str, start: str = "trivialaugment", **searcher: Any) -> Trials:
    return Trials(policy_space=Measured(start, ops or None), **({"measurements": 2, "levels": 3} | searcher))


def some(count: int, seed: int) -> Batch:
    images = torch.randint(256, (count, 3, 8, 8), generator=(dice := noise(seed))).to(torch.uint8)
    return batch_of(images, torch.randint(2, (count,), generator=dice))


def batch_of(images: Tensor, labels: Tensor) -> Batch:
    return Batch(images, labels, torch.arange(len(labels)))


def glyphs(rows: tuple[int, ...], count: int, seed: int) -> Batch:
    """A bright square in one of these rows on a dark ground; its column, left or right, is the class."""
    dice, labels = noise(seed), torch.arange(count) % 2
    images = torch.full((count, 3, 8, 8), 60) + torch.randint(20, (count, 1, 8, 8), generator=dice)
    for image, label in zip(images, labels.tolist(), strict=True):
        row = rows[int(torch.randint(len(rows), (), generator=dice))]
        image[:, row : row + 2, 5 * label : 5 * label + 3] += 120
    return batch_of(images.to(torch.uint8), labels)


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2))


def convolutional() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Tanh(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(8 * 36, 2))
    return nn.Sequential(*layers)


def normalized(images: Tensor) -> Tensor:
    return (images / 255 - 0.5) / 0.25


def searcher_of(
    search: Table | Trials, network: nn.Module, rate: float = 0.1, standard: Standard = AS_IS, epochs: int = EPOCHS
) -> TableSearcher:
    return search.start(Context(network, Descent(network, rate), standard, noise(), epochs))


def received(searcher: TableSearcher) -> list[Tensor]:
    """The images that the network was trained on, those of trials included."""
    step = searcher.context.train_step
    assert isinstance(step, Descent)
    return step.received


def run(
    searcher: TableSearcher,
    batches: list[Batch],
    judges: list[Batch],
    first: int = 0,
    measured: Callable[[int], bool] | None = None,
) -> list[StepReport]:
    """Steps `first` and on; they are measured where the searcher wants it, or where `measured` says."""
    reports = []
    for step, batch in enumerate(batches, first):
        at = moment(step=step)
        wanted = searcher.needs.wanted(at) if measured is None else measured(step)
        reports.append(searcher.step(batch, judges if wanted else [], at))
    return reports


def always(step: int) -> bool:
    return True


def of_table(searcher: TableSearcher, op: str) -> dict[str, Any]:
    (row,) = (row for row in searcher.found().facts["table"] if row["op"] == op)
    return row


def policy_of(searcher: TableSearcher) -> Policy:
    policy = searcher.found().policy
    assert isinstance(policy, Policy)
    return policy


def restored(searcher: TableSearcher, *gains: list[float], images: tuple[float, ...] = (8, 8)) -> TableSearcher:
    """The searcher after measurements of these gains, a list for each, over so many images."""
    rows, sizes = torch.tensor(gains, dtype=torch.float64), torch.tensor(images, dtype=torch.float64)
    searcher.restore(searcher.state() | {"gains": rows, "images": sizes})
    return searcher


def ops_of_rows(searcher: TableSearcher) -> list[str]:
    """The op of each row, in the order of the columns of `gains`."""
    entries = searcher.rows.entries.sub_policies
    first = [entries[int(members[0])] for members in searcher.rows.members]
    return [entry.ops[0].op if entry.ops else "identity" for entry in first]


def relabelled(batch: Batch, labels: Tensor) -> Batch:
    return replace(batch, labels=labels)
