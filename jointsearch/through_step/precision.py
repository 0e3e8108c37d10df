"""Full precision for rewards: the finite difference of a network in bfloat16 is half noise, whatever autocast says."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# Where torch may round float32 to TF32 or bfloat16 before it multiplies. Only the settings of torch >= 2.9 can be read
# whichever way a user has set them; torch's older ones (allow_tf32) then raise.
_BACKENDS: Any = torch.backends
_PRODUCTS = (
    _BACKENDS.cuda.matmul,
    _BACKENDS.cudnn.conv,
    _BACKENDS.mkldnn.matmul,
    _BACKENDS.mkldnn.conv,
)


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Neither autocast nor TF32 inside; both as before afterwards."""
    before = [product.fp32_precision for product in _PRODUCTS]
    try:
        for product in _PRODUCTS:
            product.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for product, precision in zip(_PRODUCTS, before, strict=True):
            product.fp32_precision = precision
