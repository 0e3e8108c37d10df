"""Put a run on one page: python scripts/report.py run=FOLDER writes report.html into it, which needs no network."""

import sys

from jointsearch.commands.command import run

if __name__ == "__main__":
    sys.exit(run("report"))
