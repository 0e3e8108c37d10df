"""Train a network under a policy and its controls: python scripts/retrain.py policy=FILE|NAME|RUN dataset=NAME"""

import sys

from jointsearch.commands.command import run

if __name__ == "__main__":
    sys.exit(run("retrain"))
