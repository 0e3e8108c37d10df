"""The training of a run whose network a person would use."""

from pathlib import Path

from jointsearch.networks.trained import WEIGHTS_FILE
from jointsearch.report.comparison import compare
from search_spaces.errors import InputError
from search_spaces.plain_json import shown_path


def training_folder(run: Path) -> Path:
    """The folder of a training: the one that is named, or the first seed of the best row of a run folder."""
    if (run / WEIGHTS_FILE).is_file():
        return run
    trained = sorted(run.glob(f"*/seed*/{WEIGHTS_FILE}"))
    if not trained:
        raise InputError(f"{shown_path(run)} holds no trained network; give the folder of a training, or of a run")
    rows = [row.policy for row in compare([run]).rows]
    return min(
        (file.parent for file in trained), key=lambda one: (_place(rows, one.parent.name), len(one.name), one.name)
    )


def _place(rows: list[str], name: str) -> int:
    return rows.index(name) if name in rows else len(rows)
