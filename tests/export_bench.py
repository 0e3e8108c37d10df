"""What the tests of exported policies share."""

import functools
import importlib.abc
import importlib.util
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from search_spaces.augment.table import OPS

SINGLE = tuple(name for name, op in OPS.items() if op.uses != "partner")


class FromText(importlib.abc.InspectLoader):
    """Imports a module from its text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def get_source(self, fullname: str) -> str:
        return self.text


@functools.cache
def module_of(text: str) -> ModuleType:
    loader = FromText(text)
    spec = importlib.util.spec_from_loader("policy_torchvision", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def kornia_drawn(value: Any, image: Tensor, count: int) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return value(image.expand(count, -1, -1, -1))
