"""What the README promises: it is short, and it names every command."""

import re

from jointsearch.commands.command import COMMANDS
from tests.conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_it_has_at_most_a_hundred_lines() -> None:
    assert len(README.splitlines()) <= 100


def test_it_names_every_script() -> None:
    scripts = {f"{path.stem}.py" for path in (REPOSITORY / "jointsearch" / "configs").glob("*.yaml")}
    assert scripts == set(re.findall(r"python scripts/(\w+\.py)", README))


def test_it_names_every_installed_command() -> None:
    assert set(COMMANDS) == set(re.findall(r"`jointsearch (\w+)`", README))
