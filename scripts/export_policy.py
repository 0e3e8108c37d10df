"""Write a policy for another library: python scripts/export_policy.py policy=policy.json format=torchvision"""

import sys

from jointsearch.commands.command import run

if __name__ == "__main__":
    sys.exit(run("export_policy"))
