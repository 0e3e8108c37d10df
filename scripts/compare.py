"""Put trainings side by side: python scripts/compare.py run=FOLDER"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the scripts find each other

from jointsearch.report.comparison import METRICS, compare
from jointsearch.settings import build, choice
from scripts.door import run


@dataclass(frozen=True)
class Settings:
    """configs/compare.yaml, checked."""

    run: str | tuple[str, ...]
    baseline: str | None = None
    metric: str = choice(METRICS[0], *METRICS)


def main(config: dict[str, Any]) -> None:
    """Print the comparison as a table."""
    settings = build(Settings, config)
    folders = [settings.run] if isinstance(settings.run, str) else settings.run
    print(compare([Path(folder) for folder in folders], settings.metric, settings.baseline).to_markdown(), end="")


if __name__ == "__main__":
    sys.exit(run(main, "compare"))
