"""Published policy files in their formats, and the check that a bad file gives a one-line error."""

import time
from pathlib import Path

import numpy as np
import pytest

from search_spaces.errors import InputError
from search_spaces.readers.read import read_policy


def deepaa(path: Path, **changes: object) -> Path:
    """Two layers over four entries: nothing, rotation at level 9 of 12 and at level 0, and a flip."""
    arrays = {
        "policy_probs": np.array([[0.5, 0.5, 0, 0], [0.25, 0, 0.25, 0.5]], dtype=np.float32),
        "l_ops": 3,
        "l_mags": 13,
        "ops": np.array([[0], [1], [1], [2]], dtype=np.int32),
        "mags": np.array([[6], [9], [0], [6]], dtype=np.int32),
        "op_names": np.array(["Identity:(0.0,,1.0)", "Rotate:(-30.0,,30.0)", "RandFlip:(0.0,,1.0)"]),
        **changes,
    }
    np.savez(path, **{name: value for name, value in arrays.items() if value is not ...})  # type: ignore[arg-type]
    return path


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def assert_one_line(path: Path, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    start = time.process_time()
    with pytest.raises(InputError) as error:
        read_policy(path)
    assert time.process_time() - start < 1
    assert said in str(error.value)
    assert "policy" in str(error.value)
    assert "\n" not in str(error.value)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
