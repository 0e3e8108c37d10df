"""What each row of a comparison cost, for a seed: time, images, and passes through the network."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jointsearch.protocols import PLAIN_STEP
from jointsearch.report.alike import Alike
from jointsearch.report.costs import machine
from jointsearch.report.results_file import Record

OHL_BATCH = 1024  # the batch to which the paper of OHL-Auto-Aug converts iterations


@dataclass(frozen=True)
class Cost:
    """The mean over seeds; None where the results do not say it."""

    seconds: float | None = None
    images: float | None = None  # that trained weights, each as often as it did
    forward_equivalents: float | None = None  # forward passes of a batch; a backward pass counts as two


@dataclass(frozen=True)
class Costs:
    """The cost of a row: of the trainings, and of the searches that found what they were trained with."""

    row: str
    training: Cost
    search: Cost | None  # None: nothing was searched, as far as the run says

    @property
    def seconds(self) -> float | None:
        """Of a seed, training and search together."""
        return _sum([self.training, *([] if self.search is None else [self.search])]).seconds


def ledger(alike: Alike) -> tuple[Costs, ...]:
    """The cost of every row that has a finished training, in the order in which rows come up."""
    finished: dict[str, list[Record]] = {}
    for training in alike.trainings:
        if training.result is not None:
            finished.setdefault(training.row, []).append(training)
    costs = []
    for row, trainings in finished.items():
        searched = [found for one in trainings if (found := alike.searches.get((row, one.seed)))]
        search = _mean([_sum(map(_search_cost, found)) for found in searched]) if searched else None
        costs.append(Costs(row, _mean([_training_cost(one) for one in trainings]), search))
    return tuple(costs)


def machines(alike: Alike) -> list[str]:
    """The machines on which the times of a ledger were taken."""
    records = [*alike.trainings, *(one for found in alike.searches.values() for one in found)]
    told = (one.birth.get("hardware") for one in records if one.result is not None)
    return sorted({machine(str(name)) for name in told if name})


def iterations(trainings: int, epochs: int, images: int, batch: int = OHL_BATCH) -> float:
    """Training iterations at a common batch size: the account of Table 4 of OHL-Auto-Aug (Lin et al., ICCV 2019).

    AutoAugment on CIFAR-10: iterations(trainings=15_000, epochs=120, images=4_000), which is 7.03e6.
    """
    return trainings * epochs * images / batch


def _training_cost(record: Record) -> Cost:
    result = record.result or {}
    images, epochs = _value(result, "images_trained"), _value(result, "epochs")
    passes = _value(result, "forward_equivalents")  # told where steps are not plain ones
    return Cost(_value(result, "seconds"), images, passes or _passes(images, epochs, _batch(record)))


def _search_cost(record: Record) -> Cost:
    result = record.result or {}
    steps, epochs, batch = _value(result, "steps"), _value(result, "epochs"), _batch(record)
    train = _value(record.settings.get("data"), "train")
    images = _value(result, "images_trained")  # told where steps train on several copies
    if images is None and steps is not None and epochs and batch is not None:
        of_epoch = steps / epochs * batch  # the last batch may be short
        images = epochs * (of_epoch if train is None else min(of_epoch, train))
    return Cost(_value(result, "seconds"), images, _value(result, "forward_equivalents"))


def _passes(images: float | None, epochs: float | None, batch: float | None) -> float | None:
    """What the plain steps of a training cost: of an epoch all batches are full but the last."""
    if images is None or not epochs or not batch:
        return None
    return PLAIN_STEP * epochs * -(-(images / epochs) // batch)


def _batch(record: Record) -> float | None:
    return _value(record.settings.get("recipe"), "batch_size")


def _value(data: Any, key: str) -> float | None:
    found = data.get(key) if isinstance(data, dict) else None
    return None if isinstance(found, bool) or not isinstance(found, int | float) else float(found)


def _sum(costs: Iterable[Cost]) -> Cost:
    """All searches of one seed together."""
    return _combined(list(costs), sum)


def _mean(costs: Sequence[Cost]) -> Cost:
    return _combined(costs, statistics.fmean)


def _combined(costs: Sequence[Cost], how: Any) -> Cost:
    """A figure that one of them lacks is not known of all."""
    found = {}
    for name in ("seconds", "images", "forward_equivalents"):
        values = [getattr(cost, name) for cost in costs]
        found[name] = None if None in values else how(values)
    return Cost(**found)
