"""Use a trained network on a folder of images: python scripts/predict.py run=RUN images=FOLDER"""

import sys

from jointsearch.commands.command import run

if __name__ == "__main__":
    sys.exit(run("predict"))
