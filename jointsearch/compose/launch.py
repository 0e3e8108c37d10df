"""Starts numbered pieces of work by one of Hydra's launchers, as on a SLURM cluster by submitit."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import patch

import hydra
from omegaconf import DictConfig

from search_spaces.errors import InputError

LAUNCHERS = ("submitit_slurm", "submitit_local")


def launch(
    launcher: str, options: Sequence[str], folder: Path, numbers: Sequence[int], work: Callable[[int], int]
) -> None:
    """Do `work(number)` for every number, each in a job of its own, and wait for all of them.

    `options` are the launcher's own, as in partition=gpu; what the jobs print lies in `folder`.
    """
    try:
        import hydra_plugins.hydra_submitit_launcher.submitit_launcher  # noqa: F401  # only looked for
    except ImportError as error:
        raise InputError(
            f"launcher={launcher} needs the package hydra-submitit-launcher ({error}); pip install "
            "'jointsearch[slurm]', or leave launcher out"
        ) from None

    @hydra.main(version_base="1.3", config_path=None)
    def job(given: DictConfig) -> int:
        return work(given.member)

    words = [
        "--multirun",
        f"hydra/launcher={launcher}",
        f"hydra.sweep.dir={folder}",
        f"hydra.launcher.submitit_folder={folder}/.submitit/%j",
        *(f"hydra.launcher.{option}" for option in options),
        f"+member={','.join(map(str, numbers))}",
    ]
    with patch.object(sys, "argv", ["sweep", *words]):  # Hydra reads its own from there
        job()
