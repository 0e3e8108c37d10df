"""Put a run on one page: python scripts/report.py run=FOLDER writes report.html into it, which needs no network."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the scripts find each other

from jointsearch.data.load import DataSettings
from jointsearch.report.page import write_report
from jointsearch.settings import build
from scripts.door import run


@dataclass(frozen=True)
class Settings:
    """What configs/report.yaml holds."""

    run: str


def main(config: dict[str, Any]) -> None:
    """Write the page."""
    dataset = config.pop("dataset", None)
    settings = build(Settings, config)
    print(write_report(settings.run, build(DataSettings, dataset, "dataset") if dataset else None))


if __name__ == "__main__":
    sys.exit(run(main, "report"))
