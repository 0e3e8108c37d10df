"""Whether gradients can be followed."""

from collections.abc import Iterable

import torch
from torch import Tensor


def all_finite(learned: Iterable[Tensor]) -> bool:
    """Whether every gradient is a number throughout; each device is waited for once, and not for every gradient."""
    gradients = [one.grad for one in learned if one.grad is not None]
    devices = dict.fromkeys(gradient.device for gradient in gradients)
    checks = [torch.stack([one.isfinite().all() for one in gradients if one.device == device]) for device in devices]
    return all(bool(check.all()) for check in checks)
