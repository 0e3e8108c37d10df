"""Messages name the command as it was started: the script, or the installed command."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jointsearch.commands.command import COMMANDS, entry_point
from jointsearch.commands.names import INSTALLED, as_started
from tests.scripts_bench import run_script


@pytest.fixture
def installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """What `jointsearch WORDS` prints."""
    monkeypatch.chdir(tmp_path)

    def start(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["jointsearch", *words])
        entry_point()
        return "".join(capsys.readouterr())

    return start


SAID = {
    "retrain searcher=trials": "is not for jointsearch retrain; use it with jointsearch search",
    "search preset=fast_autoaugment2019": "is not for jointsearch search; use it with jointsearch retrain",
    "compare": "a run folder of jointsearch retrain or jointsearch search",
    "report": "a run folder of jointsearch search or jointsearch retrain",
    "compare missing": "a run folder of jointsearch retrain",
    "retrain policy=missing.txt": "jointsearch show policy=FILE save=policy.json",
    "search --help": "jointsearch search dataset=cifar100",
}


@pytest.mark.parametrize("words", SAID)
def test_the_installed_command_names_itself_and_no_script(words: str, installed: Callable[..., str]) -> None:
    printed = installed(*words.split())
    assert SAID[words] in printed
    assert not re.search(r"\w+[.]py\b", printed)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_the_installed_command_begins_with_it(command: str, installed: Callable[..., str]) -> None:
    assert re.match(rf"jointsearch {command}\b", installed(command, "--help"))


def test_a_script_names_scripts_also_after_the_installed_command(
    installed: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    installed("retrain", "searcher=trials")
    assert run_script("retrain", "searcher=trials") == 2
    assert "is not for scripts/retrain.py; use it with scripts/joint_search.py" in capsys.readouterr().err


def test_a_file_that_is_named_as_a_script_is_left_alone() -> None:
    before = INSTALLED.set(True)
    told = as_started("plugin mine/retrain.py failed; python scripts/report.py RUN, or retrain.pyc")
    INSTALLED.reset(before)
    assert told == "plugin mine/retrain.py failed; jointsearch report RUN, or retrain.pyc"
