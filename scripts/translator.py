"""Train a translator of images between two attributes: python scripts/translator.py dataset=colored_digits"""

import sys

from jointsearch.commands.command import run

if __name__ == "__main__":
    sys.exit(run("translator"))
