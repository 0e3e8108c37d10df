"""Measure on this machine: python scripts/benchmark.py TASK, as ops; jointsearch benchmark --help lists the tasks."""

import sys

from jointsearch.commands.command import run

if __name__ == "__main__":
    sys.exit(run("benchmark"))
