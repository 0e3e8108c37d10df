"""Full precision for rewards, even inside autocast: in bfloat16 half of a finite difference is rounding noise."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# The places where torch may round float32 to TF32 or bfloat16 before multiplying. Only the settings of torch >= 2.9 can
# always be read; the older ones (allow_tf32) raise if a user has set the new ones.
_BACKENDS: Any = torch.backends
_PRODUCTS = (
    _BACKENDS.cuda.matmul,
    _BACKENDS.cudnn.conv,
    _BACKENDS.mkldnn.matmul,
    _BACKENDS.mkldnn.conv,
)


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Turn off autocast and TF32 inside, and restore both afterwards."""
    before = [product.fp32_precision for product in _PRODUCTS]
    try:
        for product in _PRODUCTS:
            product.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for product, precision in zip(_PRODUCTS, before, strict=True):
            product.fp32_precision = precision
