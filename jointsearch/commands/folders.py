"""Where a command writes when it is not told."""

import hashlib
import os
import sys
from datetime import datetime
from pathlib import Path

from jointsearch.runs.boards import SWEEP_ID
from jointsearch.sweeps.members import folder_name


def new_folder(kind: str) -> str:
    """A folder of its own for each start; for an agent of a W&B sweep the same for the same words, so that it resumes.

    runs/search/2026-01-31/12-00-00, or runs/sweep/SWEEP/preset_joint-seeds_0-1a2b3c4d
    """
    if sweep := os.environ.get(SWEEP_ID):
        words = [word for word in sys.argv[1:] if "=" in word and not word.startswith("wandb")]
        mark = hashlib.sha256(repr(words).encode()).hexdigest()[:8]  # names may be cut, and lose brackets and commas
        return f"runs/sweep/{folder_name([sweep])}/{folder_name(words) or kind}-{mark}"
    name = f"runs/{kind}/{datetime.now():%Y-%m-%d/%H-%M-%S}"
    number = 1
    while Path(name if number == 1 else f"{name}-{number}").exists():
        number += 1
    return name if number == 1 else f"{name}-{number}"
