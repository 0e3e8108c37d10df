"""List all that is wrong in a data set: python scripts/check_data.py dataset=folder dataset.path=FOLDER_OR_TAR"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the scripts find each other

from jointsearch.data.check import check_data_report
from jointsearch.data.load import DataSettings
from jointsearch.settings import build
from scripts.door import run
from search_spaces.errors import InputError


def main(config: dict[str, Any]) -> None:
    """Print every finding; errors among them end with exit code 2."""
    report, has_errors = check_data_report(build(DataSettings, config["dataset"], "dataset"))
    print(report)
    if has_errors:
        raise InputError("training would refuse this data set; mend what is listed above as error")


if __name__ == "__main__":
    sys.exit(run(main, "check_data"))
