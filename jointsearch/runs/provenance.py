"""The birth certificate of a figure: command, code, libraries, hardware, date."""

import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import torchvision


def birth_certificate() -> dict[str, Any]:
    """What is needed to make a figure again, as plain data."""
    return {
        "command": " ".join([Path(sys.argv[0]).name, *map(without_folders, sys.argv[1:])]),
        "commit": code_commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
    }


def without_folders(argument: str) -> str:
    """An argument whose absolute paths keep only their names, so that a published figure does not name folders."""
    return re.sub(r"(^|[=\[,'\"])(?:~|/)[^=,\]]*/", r"\1", argument)


def code_commit() -> str:
    """The commit of this code, marked when files differ from it; "unknown" outside a git checkout."""
    here = Path(__file__).resolve().parent
    commit = _git(here, "rev-parse", "--short=12", "HEAD")
    if not commit:
        return "unknown"
    return commit + ("+changes" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")


def package_version() -> str:
    """The version of jointsearch; a checkout that nobody installed has none."""
    try:
        return version("jointsearch")
    except PackageNotFoundError:
        return "not installed"


def hardware() -> str:
    """The GPU if there is one, else the processor and its number of cores."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        names = [line.split(":", 1)[1].strip() for line in information.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores"


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
