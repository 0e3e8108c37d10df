"""What an op's function must promise, checked on any function in its place: ours keep it, and kornia's?"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from jointsearch.benchmarks.augmentation import photographs
from search_spaces.augment.op import AugOp

# Levels of 255: what 8-bit images cannot show.
UNSEEN = 0.01
# Channels, rows and columns that the ops take beside color photographs.
SHAPES = ((1, 12, 20), (2, 8, 8), (5, 8, 8), (3, 2, 1))
REFUSALS = (RuntimeError, ValueError, TypeError, AssertionError)
Function = Callable[..., Tensor]


def op_arguments(op: AugOp, images: Tensor, magnitude: float | None = None) -> tuple[Tensor, ...]:
    """Arguments for an op's function: one magnitude, or for every image one of its own; signs that alternate."""
    noise = torch.rand(3, len(images), generator=torch.Generator().manual_seed(0), dtype=images.dtype)
    magnitudes = noise[0] if magnitude is None else torch.full_like(noise[0], magnitude)
    sign = 1 - 2 * (torch.arange(len(images)) % 2).to(images.dtype)
    arguments = images, op.amount(magnitudes, sign)
    extra = {"amount": (), "position": (noise[1:].T,), "partner": (images.flip(0),)}
    return *arguments, *extra[op.uses]


def broken_promises(op: AugOp, function: Function) -> list[str]:
    """What a function in the place of an op's own would not do, a few words for each."""
    try:
        function(*op_arguments(op, _levels(2, 32)))
    except REFUSALS:
        return ["one amount for a whole batch"]
    return [broken for promise in PROMISES if (broken := promise(op, function))]


def gradients(op: AugOp, function: Function) -> tuple[str, ...]:
    """Which of amount and images a finite gradient that is not zero reaches."""
    arguments = [argument.detach().clone() for argument in op_arguments(op, _levels(8, 64))]
    images, amount = arguments[0].requires_grad_(), arguments[1].requires_grad_()
    changed = function(*arguments)
    if not changed.requires_grad:
        return ()
    weights = torch.rand(changed.shape, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad((changed * weights).sum(), (amount, images), allow_unused=True)
    named = zip(("amount", "images"), found, strict=True)
    return tuple(name for name, slope in named if slope is not None and slope.isfinite().all() and slope.any())


def _levels(count: int, size: int) -> Tensor:
    return photographs(count, size).float() / 255


def _takes_every_shape(op: AugOp, function: Function) -> str:
    refused = []
    for shape in SHAPES:
        images = torch.rand(4, *shape, generator=torch.Generator().manual_seed(0))
        try:
            changed = function(*op_arguments(op, images))
        except REFUSALS:
            refused.append("x".join(map(str, shape)))
        else:
            if changed.shape != images.shape or not changed.isfinite().all():
                refused.append("x".join(map(str, shape)))
    return f"fails on {', '.join(refused)}" if refused else ""


def _changes_nothing_at_zero(op: AugOp, function: Function) -> str:
    if not op.has_magnitude:
        return ""
    images = _levels(8, 32)
    levels = float((function(*op_arguments(op, images, 0.0)) - images).abs().max() * 255)
    return f"magnitude 0 changes pixels by {levels:.3g} levels" if levels > UNSEEN else ""


def _treats_images_one_by_one(op: AugOp, function: Function) -> str:
    arguments = op_arguments(op, _levels(6, 32))
    together = function(*arguments)
    alone = torch.cat([function(*(argument[n : n + 1] for argument in arguments)) for n in range(6)])
    levels = float((together - alone).abs().max() * 255)
    return f"a batch is {levels:.3g} levels off its images one by one" if levels > UNSEEN else ""


def _has_the_gradient(op: AugOp, function: Function) -> str:
    # What is straight-through is put around a function, whichever it is.
    missing = {"amount", "images"} - set(gradients(op, function)) if op.gradient == "pathwise" else ()
    return f"no gradient to the {' and '.join(sorted(missing))}" if missing else ""


def _reads_levels_that_were_rounded(op: AugOp, function: Function) -> str:
    # Arithmetic of an op before leaves level k at k / 255 only up to the last bits of a float, in some pixels.
    arguments = op_arguments(op, _levels(8, 32).clamp(min=1 / 255))
    images = arguments[0]
    below = images - 1e-6 * (torch.rand(images.shape, generator=torch.Generator().manual_seed(0)) < 0.5)
    levels = float((function(below, *arguments[1:]) - function(*arguments)).abs().max() * 255)
    return f"1e-6 below a level is {levels:.3g} levels off" if levels > 0.5 else ""  # AutoContrast may stretch 1e-6


def _does_not_wait(op: AugOp, function: Function) -> str:
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    arguments = [argument.to("meta") for argument in op_arguments(op, images)]
    with _Waits() as waits:
        try:
            function(*arguments)
        except (RuntimeError, NotImplementedError):  # a number was read from a tensor
            return "makes a GPU wait"
    return "makes a GPU wait" if waits.found else ""


class _Waits(TorchDispatchMode):
    """Finds blocking copies from the CPU to another device; `meta` stands for it, and needs no GPU."""

    found = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        device = args[0].device.type if args and isinstance(args[0], Tensor) else None
        if func is torch.ops.aten._to_copy.default:
            target = kwargs.get("device")
            self.found |= (
                device == "cpu"
                and target is not None
                and target.type != "cpu"
                and not kwargs.get("non_blocking", False)
            )
        elif func is torch.ops.aten.lift_fresh.default:
            self.found |= device != "cpu"
        return func(*args, **kwargs)


PROMISES = (
    _takes_every_shape,
    _changes_nothing_at_zero,
    _treats_images_one_by_one,
    _has_the_gradient,
    _reads_levels_that_were_rounded,
    _does_not_wait,
)
