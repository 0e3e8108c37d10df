"""Commands as a user types them, their refusals, and the choices that are offered."""

import re
import shutil
from pathlib import Path

import pytest

from jointsearch.commands.command import run
from jointsearch.compose import CONFIGS
from tests.conftest import REPOSITORY, project_files

REMEDY = re.compile(r"did you mean|choose|close|give|wanted|lower|set |use |leave|make|settings are|name |put |see ")


def run_script(name: str, *arguments: str) -> int:
    """The exit code of a command."""
    return run(name, list(arguments))


def search_alone(*words: str) -> list[str]:
    """The words of a search without those of the trainings that would follow."""
    return [*(word for word in words if not word.startswith(("recipe.", "controls="))), "retrain=false"]


def refusal(capsys: pytest.CaptureFixture[str], name: str, *arguments: str) -> str:
    """The one line that a bad command gets; it has written nothing, and ends with exit code 2."""
    before = sorted(Path().rglob("*"))
    capsys.readouterr()
    assert run_script(name, *arguments) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert printed.count("\n") == 1
    assert sorted(Path().rglob("*")) == before
    return printed


def names_what_is_wrong(word: str, message: str) -> bool:
    """Whether a message names the setting, or the value, that a word of the command line gives."""
    key, _, value = word.lstrip("+-").partition("=")
    words = (key, key.rpartition(".")[2], *re.findall(r"[A-Za-z_]+", value))
    return any(one in message for one in words if one)


def choices(group: str) -> list[str]:
    """The choices of a group, as the command line takes them."""
    return [f"{group}={path.stem}" for path in sorted((CONFIGS / group).glob("*.yaml"))]


COMMANDS = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
WHOLE = [*choices("preset"), *choices("experiment")]  # papers' settings, and those of our results


def copy_project(target: Path) -> Path:
    """A copy of everything that git would not ignore, without documents and results."""
    for path in project_files():
        place = path.relative_to(REPOSITORY)
        if place.parts[0] not in ("docs", "results"):
            (target / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target / place)
    return target
