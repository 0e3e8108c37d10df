"""Run every combination of a sweep file, several at a time, and compare what comes out."""

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

from jointsearch.commands.names import COMMANDS
from jointsearch.compose.launch import LAUNCHERS, launch
from jointsearch.loops.journal import Interrupted
from jointsearch.registry import SWEEPS
from jointsearch.report.comparison_formats import to_text
from jointsearch.report.comparisons import compare_all
from jointsearch.runs.run_folder import check_writable
from jointsearch.settings import bounded, check_fields, choice, setting
from jointsearch.sweeps.members import Member, Sweep, read_sweep
from jointsearch.sweeps.work import Outcome, Work, finished
from search_spaces.errors import InputError, nearest
from search_spaces.plain_json import shown_path

SUBJECT = "file"
MOST_USED = ("file", "run", "jobs")
LAUNCHER = "launcher."  # begins the words of the launcher
OFFLINE = "wandb=disabled"  # what a sweep file says of W&B is for its agents


@dataclass(frozen=True)
class Settings:
    """What is run, and how many at a time."""

    file: str | None = setting(None, help="joint_vs_separate, or a file as `wandb sweep` reads it, with method: grid")
    run: str | None = setting(None, help="folder of the sweep; give it again to continue. null: runs/sweep/FILE")
    jobs: int = bounded(1, 1, 1024, help="commands that run at the same time on this machine")
    also: tuple[str, ...] = setting((), help="settings of every command; any other word, as budget=0.5, is one")
    launcher: str | None = choice(None, None, *LAUNCHERS, help="submitit_slurm: a job of a SLURM cluster each")
    launcher_options: tuple[str, ...] = setting((), help="of the launcher; launcher.partition=gpu is one")

    def __post_init__(self) -> None:
        check_fields(self)


def own_words(words: Sequence[str]) -> list[str]:
    """The words of a command line; those of the launcher are gathered, and those for the commands of the sweep."""
    names = {item.name for item in fields(Settings)}
    own = [word for word in words if word.partition("=")[0] in names]
    options = [word for word in words if word.startswith(LAUNCHER)]
    others = [word for word in words if word not in (*own, *options)]
    gathered = {"launcher_options": [word.removeprefix(LAUNCHER) for word in options], "also": others}
    return [*own, *(f"{name}=[{','.join(map(_quoted, some))}]" for name, some in gathered.items() if some)]


def _quoted(word: str) -> str:
    """A word in quotes, as Hydra reads it: only before a quote a backslash stands for something."""
    inner = re.sub(r'(\\*)"', r'\1\1\\"', word)
    ended = re.sub(r"(\\+)$", r"\1\1", inner)
    return f'"{ended}"'


def main(given: Settings) -> None:
    """Run what is not finished yet, and print the comparison."""
    if given.file is None:
        raise InputError("sweep needs a file; give one of yours, or joint_vs_separate")
    shipped = SWEEPS / f"{given.file}.yaml"
    file = shipped if shipped.is_file() and not Path(given.file).is_file() else Path(given.file)
    sweep = read_sweep(file)
    sweep = sweep.replaced(*_unsent(given, sweep), *given.also)
    folder = Path(given.run or f"runs/sweep/{file.stem}")
    check_writable(folder)
    members = sweep.members
    done = sum(finished(folder / member.name, member) is not None for member in members)
    print(f"{len(members)} commands in {folder}, {done} of them finished")
    print("To continue, or to help from another machine that shares the folder: the same command", flush=True)
    work = Work(folder, command_of(sweep.program), partial(print, flush=True), _shared_threads(given, members))
    outcomes = _outcomes(given, work, members)
    if work.stopped_by is not None:
        raise Interrupted(work.stopped_by)
    _report(folder, outcomes)


def _outcomes(given: Settings, work: Work, members: Sequence[Member]) -> list[Outcome]:
    if given.launcher is None:
        return work.do_all(members, given.jobs)
    waiting = [number for number, one in enumerate(members) if finished(work.folder / one.name, one) is None]
    if waiting:
        work.folder.mkdir(parents=True, exist_ok=True)
        launch(
            given.launcher,
            given.launcher_options,
            (work.folder / "launcher").absolute(),
            waiting,
            partial(_do, Path.cwd(), work.folder, work.command, tuple(members)),
        )
    found = [(member, finished(work.folder / member.name, member)) for member in members]
    return [Outcome(member, 1) if done is None else done for member, done in found]


def _do(where: Path, folder: Path, command: tuple[str, ...], members: Sequence[Member], number: int) -> int:
    """A member, by a job of a launcher."""
    os.chdir(where)
    return Work(folder, command, partial(print, flush=True)).do(members[number]).exit_code or 0


def _unsent(given: Settings, sweep: Sweep) -> list[str]:
    """The word that sends nothing to W&B, where only the file says otherwise."""
    sends = any(word.startswith("wandb=") for member in sweep.members for word in member.words)
    return [OFFLINE] if sends and not any(word.startswith("wandb=") for word in given.also) else []


def _shared_threads(given: Settings, members: Sequence[Member]) -> tuple[str, ...]:
    """The share of this machine's threads that each of several commands at a time gets, where none is named."""
    named = any(word.startswith("threads=") for member in members for word in member.words)
    if named or given.launcher is not None or given.jobs == 1:
        return ()
    return (f"threads={max(1, (os.cpu_count() or 1) // given.jobs)}",)


def command_of(program: str) -> tuple[str, ...]:
    """What starts a command, by the script that a sweep file names."""
    words = {module: word for word, module in COMMANDS.items()}
    if program not in words:
        raise InputError(f"program {shown_path(Path(program))} is not a command; {nearest(program, words)}")
    return sys.executable, "-m", "jointsearch", words[program]


def _report(folder: Path, outcomes: Sequence[Outcome]) -> None:
    """Print what did not go through, and the comparison of what did."""
    elsewhere = [one.member.name for one in outcomes if one.exit_code is None]
    failed = [one.member.name for one in outcomes if one.exit_code]
    if elsewhere:
        print(f"Another process has {len(elsewhere)}: {', '.join(elsewhere)}")
    if failed:
        print(f"Failed: {', '.join(failed)}; see console.log in their folders below {folder}, then repeat the command")
    if len(elsewhere) + len(failed) < len(outcomes):
        print(f"\n{to_text(compare_all([folder]))}", end="")
    if failed:
        raise InputError(f"{len(failed)} of {len(outcomes)} commands failed; see above which, and what to do")
