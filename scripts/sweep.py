"""Run all combinations of a sweep file: python scripts/sweep.py FILE jobs=2"""

import sys

from jointsearch.commands.command import run

if __name__ == "__main__":
    sys.exit(run("sweep"))
