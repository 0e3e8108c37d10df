"""List all that is wrong in a data set: python scripts/check_data.py dataset=folder dataset.path=FOLDER_OR_TAR"""

import sys

from jointsearch.commands.command import run

if __name__ == "__main__":
    sys.exit(run("check_data"))
