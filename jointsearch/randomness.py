"""The global generators, lent to libraries that draw from them and given back untouched."""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def own_global_randomness(seed: int) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's global generators, and put them back as they were on leaving.

    Our own code takes a torch.Generator; network initialization, dropout and timm's Mixup do not.
    """
    with kept_global_randomness():
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def kept_global_randomness() -> Iterator[None]:
    """Go on drawing from them as they are, and put them back as they were on leaving."""
    python_state = random.getstate()
    numpy_state = np.random.get_state()  # noqa: NPY002  timm's Mixup draws from the legacy generator
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002
