"""Measure on this machine: python scripts/benchmark.py augment|ops|search_step|planted|planted_cells|levers|shapes"""

import sys

from jointsearch.commands.command import run

if __name__ == "__main__":
    sys.exit(run("benchmark"))
