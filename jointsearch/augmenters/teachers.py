"""Teachers that tell whether an augmented image can still be recognized (after TeachAugment, Suzuki, CVPR 2022).

Two networks learn beside the one that is trained, each from one half of the training images, without the policy. Each
judges the images of the other half, so that none judges what it has learned by heart. A copy is no longer recognized if
the teacher has the class of the plain image right, and that of the copy wrong.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from jointsearch.data.sets import Batch
from jointsearch.protocols import PLAIN_STEP, Beside, Moment, State, TrainStep

HALVES = 2
LEAST = 2  # images of a step: one alone has no batch statistics


class Teachers:
    """Two networks, each of which judges the images that the other one learns."""

    def __init__(self, train_step: TrainStep) -> None:
        self.trained = [train_step.beside() for _ in range(HALVES)]
        self.seen = torch.zeros((), dtype=torch.int64)  # copies
        self.lost = torch.zeros((), dtype=torch.int64)  # of them, those that were no longer recognized

    def guard(self, copies: Tensor, plain: Batch, at: Moment) -> Tensor:
        """Which of the copies (C, B, ...) of a batch count, (C, B); the teachers learn from its plain images."""
        known = self.recognized(copies, plain)
        self.learn(plain, at)
        return known

    def recognized(self, copies: Tensor, plain: Batch) -> Tensor:
        """Which of the copies (C, B, ...) of a batch count, (C, B)."""
        found = torch.ones(copies.shape[:2], dtype=torch.bool, device=copies.device)
        for teacher, other in zip(self.trained, reversed(halves_of(plain)), strict=True):
            if len(other):
                labels = plain.labels[other]
                before, *after = [_right(teacher, one[other], labels) for one in (plain.images, *copies)]
                found[:, other] = torch.stack(after) | ~before
        self.seen += found.numel()
        self.lost = self.lost.to(found.device) + (~found).sum()
        return found

    def learn(self, plain: Batch, at: Moment) -> None:
        """Let each teacher take a step on the images of its half."""
        for teacher, own in zip(self.trained, halves_of(plain), strict=True):
            if len(own) >= LEAST:
                teacher.network().train()
                teacher.step(plain.images[own], plain.labels[own], at.epoch * at.steps + at.step)

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


def cost_of_teachers(copies: int) -> int:
    """Forward-equivalents of a step: an image is judged as it is and on each copy, and one teacher learns it."""
    return 1 + copies + PLAIN_STEP


def guarded(copies: Tensor, known: Tensor, plain: Batch) -> Tensor:
    """Copies (C, B, ...) with the plain images in the place of those that are not known."""
    return torch.where(known[..., None, None, None], copies, plain.images)


def halves_of(batch: Batch) -> list[Tensor]:
    """For each half, the places of its images in a batch. The number of an image decides, however a set is sorted."""
    scrambled = (batch.index.cpu().to(torch.int64) * 0x9E3779B1) % 2**32  # Knuth's multiplicative hash
    half = (scrambled >> 31) & 1
    return [(half == place).nonzero().flatten().to(batch.images.device) for place in range(HALVES)]


@torch.no_grad()
def _right(teacher: Beside, images: Tensor, labels: Tensor) -> Tensor:
    """Whether each image is classified rightly."""
    teacher.network().eval()
    right: Tensor = teacher.outputs(images).argmax(1) == labels
    return right
