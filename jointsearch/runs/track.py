"""The metrics of a search or training, as JSON lines in its folder, and on the board of the command."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from jointsearch.runs.boards import NO_BOARD, Board
from search_spaces.errors import InputError
from search_spaces.plain_json import parse_json

METRICS_FILE = "metrics.jsonl"
NO_NUMBERS = ("nan", "inf", "-inf")  # how JSON holds them


class Tracker:
    """Appends metrics to `folder/metrics.jsonl`. No clock is written, so that a resumed run repeats every byte."""

    def __init__(self, folder: Path, board: Board = NO_BOARD) -> None:
        self._board = board
        board.open()
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / METRICS_FILE
        tell_again(folder, board)
        self._file = self.path.open("ab")

    def log(self, step: int, metrics: Mapping[str, float | int | str]) -> None:
        """Append one line; NaN and infinities become the strings "nan", "inf" and "-inf", so that it stays JSON."""
        if "step" in metrics:
            raise ValueError("metrics already have a step of their own; it is the first argument")
        line = {key: _plain(value) for key, value in metrics.items()} | {"step": step}
        self._file.write((json.dumps(line, sort_keys=True, allow_nan=False) + "\n").encode())
        self._file.flush()
        self._board.log(self.path.parent, step, metrics)

    def offset(self) -> int:
        """The size of the file in bytes, all of them on the disk: what a checkpoint remembers."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def rewind(self, offset: int) -> None:
        """Cut the file back to `offset`, so that a resumed run neither repeats nor misses a line."""
        size = self.offset()
        with self.path.open("rb") as stream:
            stream.seek(max(offset - 1, 0))
            # Past the end of the file there is nothing to read, so a file that is too short ends no line there.
            ends_a_line = offset == 0 or stream.read(1) == b"\n"
        if not ends_a_line:
            raise InputError(
                f"{self.path} has {size} bytes and the checkpoint was made at the end of the line at byte {offset}; "
                "the file was changed since: restore it, or start a new run in another folder"
            )
        self._file.truncate(offset)
        self._file.seek(0, os.SEEK_END)
        os.fsync(self._file.fileno())

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def tell_again(folder: Path, board: Board) -> None:
    """Tell a board what the metrics of a folder hold already.

    W&B sends in intervals, so what a killed process logged last never arrived. A point that did arrive comes again with
    the same step and the same value.
    """
    path = folder / METRICS_FILE
    for line in read_metrics(path) if board.is_wanted and path.is_file() else ():
        step = line.pop("step")
        board.log(folder, step, {key: float(value) if value in NO_NUMBERS else value for key, value in line.items()})


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file, oldest first; the beginning of a line that a kill cut off is left out."""
    if not path.is_file():
        raise InputError(f"metrics file {path} is not there; give the metrics.jsonl of a run folder")
    complete, _, _ = path.read_bytes().rpartition(b"\n")
    lines = complete.decode(errors="replace").split("\n") if complete else []
    rows = [parse_json(line, f"metrics file {path}, line {number},") for number, line in enumerate(lines, start=1)]
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or "step" not in row:
            raise InputError(f"metrics file {path}, line {number}, is not a record with a step; restore the file")
    return rows


def _plain(value: float | int | str) -> float | int | str:
    return str(float(value)) if isinstance(value, float) and not math.isfinite(value) else value
