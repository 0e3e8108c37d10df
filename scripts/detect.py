"""Train a detector on trained backbones: python scripts/detect.py run=RUN detector=NAME dataset=NAME"""

import sys

from jointsearch.commands.command import run

if __name__ == "__main__":
    sys.exit(run("detect"))
