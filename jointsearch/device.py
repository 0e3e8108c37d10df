"""Which device a run uses, from what the user wrote."""

import contextlib
import os
from collections.abc import Iterator

import torch

from jointsearch.distributed import processes
from search_spaces.errors import InputError


def choose_device(text: str) -> torch.device:
    """`auto` is the first GPU, or the CPU where there is none. Of several processes each has a GPU of its own."""
    if text == "auto":
        text = "cuda" if torch.cuda.is_available() else "cpu"
        if processes() == 1:
            return torch.device(text)
    if processes() > 1 and text.startswith("cuda"):
        if text != "cuda":
            raise InputError(f"device is {text}, and each process of torchrun has a GPU of its own; use device=auto")
        text = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(text)
    except RuntimeError:
        raise InputError(f"device is {text!r}; give auto, cpu, cuda or cuda:<number>") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device is {text}, and this machine has {torch.cuda.device_count()} GPU(s); use device=auto")
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device is {text}, which no run here was ever tried on; give auto, cpu or cuda")
    return device


@contextlib.contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Compute with so many CPU threads inside; None keeps torch's choice."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
