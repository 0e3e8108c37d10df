"""Put trainings side by side: python scripts/compare.py run=FOLDER"""

import sys

from jointsearch.commands.command import run

if __name__ == "__main__":
    sys.exit(run("compare"))
