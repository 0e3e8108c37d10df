"""Accuracy of groups, of the worst one and gaps of classes, counted by hand."""

import torch
from torch.nn.functional import one_hot

from jointsearch.data.groups import Grouped, Groups
from jointsearch.metrics.accuracy import Accuracy

# cat in: 4 images, 3 right; cat out: 2, 1 right; dog in: none; dog out: 3, 3 right.
LABELS = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1])
VALUES = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 1])
PREDICTED = torch.tensor([0, 0, 0, 1, 0, 1, 1, 1, 1])


def measured(grouped: bool) -> Accuracy:
    metric = Accuracy(torch.device("cpu"))
    for rows in (slice(0, 5), slice(5, 9)):
        labels = Grouped(LABELS[rows], Groups.of(LABELS[rows], VALUES[rows], ("in", "out")))
        metric.update(one_hot(PREDICTED[rows], 2) * 4.0, labels if grouped else LABELS[rows])
    return metric


def test_groups_are_counted_and_one_without_images_is_left_out() -> None:
    metric = measured(grouped=True)
    assert metric.compute()["worst_group_accuracy"] == 50.0
    further = metric.further(("cat", "dog"))
    assert {name: value for name, value in further.items() if "group" in name} == {
        "group_accuracy/cat/in": 75.0,
        "group_accuracy/cat/out": 50.0,
        "group_accuracy/dog/out": 100.0,
        "group_gap/cat": 25.0,
        "largest_group_gap": 25.0,
    }
    assert metric.details(("cat", "dog"))["groups"] == [0, 0, 0, 0, 1, 1, 3, 3, 3]


def test_all_else_is_as_without_groups() -> None:
    with_groups, without = measured(grouped=True), measured(grouped=False)
    assert with_groups.compute().items() - without.compute().items() == {("worst_group_accuracy", 50.0)}
    classes = ("cat", "dog")
    assert without.further(classes).items() <= with_groups.further(classes).items()
    assert without.details(classes).items() <= with_groups.details(classes).items()
    assert not [name for name in (*without.compute(), *without.further(classes)) if "group" in name]
