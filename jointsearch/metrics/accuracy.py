"""The share of images whose likeliest class is the right one."""

import torch
from timm.task.evaluator import ClassificationEvaluator
from torch import Tensor


class Accuracy:
    """Top-1 accuracy in percent, with the mean cross entropy beside it, summed up on the device by timm."""

    name = "accuracy"
    unit = "%"
    higher_is_better = True

    def __init__(self, device: torch.device) -> None:
        self._evaluator = ClassificationEvaluator(device)

    def update(self, outputs: Tensor, labels: Tensor) -> None:
        """Take in the class logits (B, C) and labels (B,) of a batch."""
        self._evaluator.update(outputs, labels)

    def compute(self) -> dict[str, float]:
        """The loss and the accuracy of all batches so far."""
        scores = self._evaluator.compute()
        return {"loss": scores["loss"], self.name: scores["top1"]}
