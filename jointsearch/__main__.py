"""`python -m jointsearch COMMAND name=value ...`, as the installed command."""

import sys

from jointsearch.commands.command import entry_point

if __name__ == "__main__":
    sys.exit(entry_point())
