"""Teachers that tell whether an augmented image can still be recognized (after TeachAugment, Suzuki, CVPR 2022).

Two networks learn beside the one that is trained, each from one half of the training images, without the policy. Each
judges the images of the other half, so that none judges what it has learned by heart. A copy is no longer recognized if
the teacher has the class of the plain image right, and that of the copy wrong.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from jointsearch.data.sets import Batch
from jointsearch.protocols import PLAIN_STEP, Moment, State, TrainStep

HALVES = 2
LEAST = 2  # images of a step: one alone has no batch statistics


class Teachers:
    """Two cross-fitted teachers."""

    def __init__(self, train_step: TrainStep) -> None:
        self.trained = [train_step.beside() for _ in range(HALVES)]
        self.seen = torch.zeros((), dtype=torch.int64)  # copies
        self.lost = torch.zeros((), dtype=torch.int64)  # of them, those that were no longer recognized

    def recognized(self, copies: Tensor, plain: Batch) -> Tensor:
        """Which of the copies (C, B, ...) of a batch count, (C, B)."""
        half = half_of(plain.index).to(copies.device)
        found = torch.ones(copies.shape[:2], dtype=torch.bool, device=copies.device)
        for place, teacher in enumerate(self.trained):
            judged = (half != place).nonzero().flatten()
            if len(judged):
                right = [
                    _right(teacher.network(), one[judged], plain.labels[judged]) for one in (plain.images, *copies)
                ]
                found[:, judged] = torch.stack(right[1:]) | ~right[0]
        self.seen += found.numel()
        self.lost = self.lost.to(found.device) + (~found).sum()
        return found

    def learn(self, plain: Batch, at: Moment) -> int:
        """Let each teacher take a step on the images of its half. Returns the cost in forward-equivalents."""
        half = half_of(plain.index).to(plain.images.device)
        for place, teacher in enumerate(self.trained):
            own = (half == place).nonzero().flatten()
            if len(own) >= LEAST:
                teacher.network().train()
                teacher.step(plain.images[own], plain.labels[own], at.epoch * at.steps + at.step)
        return PLAIN_STEP

    def facts(self) -> Mapping[str, float]:
        """The share of copies that were no longer recognized so far."""
        return {"unrecognized_share": float(self.lost) / max(1, int(self.seen))}

    def state(self) -> State:
        """What a checkpoint has to hold."""
        return {"teachers": [one.state() for one in self.trained], "seen": self.seen, "lost": self.lost}

    def restore(self, state: State) -> None:
        """Continue from a state."""
        for teacher, its in zip(self.trained, state["teachers"], strict=True):
            teacher.load(its)
        self.seen, self.lost = state["seen"], state["lost"]


def half_of(index: Tensor) -> Tensor:
    """To which half the images with these numbers belong, 0 or 1, however they are sorted."""
    scrambled = (index.to(torch.int64) * 0x9E3779B1) % 2**32  # Knuth's multiplicative hash
    return (scrambled >> 31) & 1


@torch.no_grad()
def _right(network: torch.nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Whether each image is classified rightly."""
    network.eval()
    return network(images).argmax(1) == labels
