"""Search policy and cells, and train with what is found beside controls: python scripts/joint_search.py dataset=NAME"""

import sys

from jointsearch.commands.command import run

if __name__ == "__main__":
    sys.exit(run("joint_search"))
