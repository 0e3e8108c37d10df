"""Put trainings side by side: python scripts/compare.py run=FOLDER"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the scripts find each other

from jointsearch.report.comparison import compare
from scripts.door import run


def main(config: dict[str, Any]) -> None:
    """Print the comparison as a table."""
    folders = config["run"] if isinstance(config["run"], list) else [config["run"]]
    print(compare([Path(folder) for folder in folders], config["metric"], config["baseline"]).to_markdown(), end="")


if __name__ == "__main__":
    sys.exit(run(main, "compare"))
