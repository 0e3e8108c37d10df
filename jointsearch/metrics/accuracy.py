"""Accuracy, and of test images what is usually given beside it: by class, balanced, macro F1, calibration error."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from timm.task.evaluator import ClassificationEvaluator
from torch import Tensor

from jointsearch.data.groups import Grouped, Groups
from jointsearch.metrics.groups import WORST, group_accuracies, group_scores, worst_group

CALIBRATION_BINS = 15  # of equal width, as in Guo et al. (ICML 2017)
TOP = 5  # of fewer classes, or as many, the right one is always among the five likeliest


class Accuracy:
    """Top-1 accuracy in percent, with the mean cross entropy beside it, summed up on the device by timm.

    Where the data have groups, that of the worst group, too.
    """

    name = "accuracy"
    unit = "%"
    higher_is_better = True
    by_group = True

    def __init__(self, device: torch.device) -> None:
        self._evaluator = ClassificationEvaluator(device)
        self._classes = 0
        self._batches: list[tuple[Tensor, Tensor, Tensor]] = []  # labels, predicted classes, their probabilities: (B,)
        self._groups: list[Groups] = []

    def update(self, outputs: Tensor, labels: Tensor | Grouped) -> None:
        """Take in the class logits (B, C) and labels (B,) of a batch."""
        if isinstance(labels, Grouped):
            self._groups.append(labels.groups)
            labels = labels.labels
        self._evaluator.update(outputs, labels)
        self._classes = outputs.shape[1]
        logits = outputs.detach().float()
        # As timm takes the likeliest class: where two are equally likely, max could name the other one.
        predicted = logits.topk(min(TOP, self._classes)).indices[:, 0]
        # Where an output is no number the network is sure of nothing; JSON could not hold a NaN.
        confidence = logits.softmax(1).gather(1, predicted[:, None])[:, 0].nan_to_num(0.0)
        self._batches.append((labels, predicted, confidence))

    def compute(self) -> dict[str, float]:
        """The loss and the accuracy of all batches so far."""
        scores = self._evaluator.compute()
        worst = {WORST: worst_group(self._of_groups())} if self._groups else {}
        return {"loss": scores["loss"], self.name: scores["top1"], **worst}

    def further(self, classes: Sequence[str]) -> dict[str, float]:
        """More scores in percent. A class of which there is no image is left out."""
        labels, predicted, confidence = self._images()
        scores = further_scores(labels, predicted, self._classes)
        scores["calibration_error"] = calibration_error(labels == predicted, confidence)
        if self._classes > TOP:
            scores["top5_accuracy"] = self._evaluator.compute()["top5"]
        if self._groups:
            scores |= group_scores(self._of_groups(), classes, self._groups[0].names(classes))
        return scores | accuracy_by_class(labels, predicted, classes)

    def details(self, classes: Sequence[str]) -> Mapping[str, Any]:
        """What the network said of each image, in their order."""
        labels, predicted, confidence = self._images()
        return {
            "classes": list(classes),
            "labels": labels.tolist(),
            "predicted": predicted.tolist(),
            "confidence": [round(value, 4) for value in confidence.tolist()],
            **({"groups": self._numbers().tolist()} if self._groups else {}),
        }

    def _images(self) -> tuple[Tensor, Tensor, Tensor]:
        labels, predicted, confidence = (torch.cat(parts).cpu() for parts in zip(*self._batches, strict=True))
        return labels, predicted, confidence.double()

    def _numbers(self) -> Tensor:
        return torch.cat([groups.numbers for groups in self._groups]).cpu()

    def _of_groups(self) -> Tensor:
        labels, predicted, _ = self._images()
        return group_accuracies(Groups(self._numbers(), self._groups[0].attributes), labels == predicted, self._classes)


def further_scores(labels: Tensor, predicted: Tensor, classes: int) -> dict[str, float]:
    """Balanced accuracy, macro F1 and the accuracy of the worst class, in percent, from labels and predictions (N,)."""
    held, said, right = _counts(labels, predicted, classes)
    recalls = (right / held)[held > 0]
    # F1 is 2 right / (held + said); a class that neither is there nor was predicted has none.
    f1 = (2 * right / (held + said))[held + said > 0]
    means = {"balanced_accuracy": recalls.mean(), "macro_f1": f1.mean(), "worst_class_accuracy": recalls.min()}
    return {name: 100 * float(value) for name, value in means.items()}


def accuracy_by_class(labels: Tensor, predicted: Tensor, classes: Sequence[str]) -> dict[str, float]:
    """The share of each class's images that were recognized, in percent, as `accuracy/cat`."""
    held, _, right = _counts(labels, predicted, len(classes))
    shares = (100 * right / held).tolist()
    return {
        f"accuracy/{name}": share for name, share, count in zip(classes, shares, held.tolist(), strict=True) if count
    }


def calibration_error(right: Tensor, confidence: Tensor) -> float:
    """How far the probability of the predicted class is from the share that is right, in percent.

    Images (N,) are put into bins by that probability: (0, 1/15], (1/15, 2/15], ... Of each bin the distance of mean
    probability and share counts by its images (expected calibration error, Guo et al., ICML 2017).
    """
    bins = (confidence * CALIBRATION_BINS).ceil().long().sub(1).clamp(0, CALIBRATION_BINS - 1)
    gaps = torch.zeros(CALIBRATION_BINS, dtype=torch.float64).index_add_(0, bins, right.double() - confidence.double())
    return 100 * float(gaps.abs().sum()) / len(right)


def _counts(labels: Tensor, predicted: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of each class the images, the predictions and the right predictions: (C,), (C,), (C,)."""
    parts = (labels, predicted, labels[labels == predicted])
    held, said, right = (torch.bincount(part, minlength=classes).double() for part in parts)
    return held, said, right
