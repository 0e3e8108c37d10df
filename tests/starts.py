"""Commands in processes of their own that share one start: importing what all of them need takes most of their time."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

# Each command is a fork of a process that has imported the package and nothing else, run as `python FILE WORDS` is.
STARTER = """
import gc, importlib, json, os, runpy, sys, traceback
from jointsearch.commands.command import COMMANDS
for each in COMMANDS.values():
    importlib.import_module(f"jointsearch.commands.{each}")
gc.freeze()
outcomes = []
for number, (folder, words) in enumerate(json.loads(sys.argv[1])):
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        for stream, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{sys.argv[2]}/{number}.{name}", os.O_WRONLY | os.O_CREAT), stream)
        sys.argv, code = words, 0
        try:
            runpy.run_path(words[0], run_name="__main__")
        except SystemExit as ended:
            code = ended.code or 0
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # leaves out two seconds in which all that was imported is taken apart
    outcomes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(outcomes))
"""


def run_all(
    commands: Sequence[tuple[Path, Sequence[str]]], package: Path, scratch: Path, **environment: str
) -> list[subprocess.CompletedProcess[str]]:
    """What each (folder to run in, file and words) comes to, with the package that lies in the folder `package`."""
    given = json.dumps([(str(folder), list(words)) for folder, words in commands])
    scratch.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", STARTER, given, str(scratch)],
        cwd=scratch,
        env=os.environ | {"PYTHONPATH": str(package), "PYTHONSAFEPATH": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = [
        [(scratch / f"{number}.{name}").read_text() for name in ("out", "err")] for number in range(len(commands))
    ]
    codes = json.loads(done.stdout)
    return [
        subprocess.CompletedProcess(words, code, out, err)
        for (_, words), code, (out, err) in zip(commands, codes, printed, strict=True)
    ]
