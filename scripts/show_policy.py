"""Draw a policy, or convert one of others: python scripts/show_policy.py FILE|NAME out=FILE.png save=FILE.json"""

import sys

from jointsearch.commands.command import run

if __name__ == "__main__":
    sys.exit(run("show_policy"))
