"""What the README says is so: Python runs, files exist."""

import re
import runpy
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
FILES = r"`((?:search_spaces|jointsearch|results|scripts|tests|docs)/[\w/.]+)`"
MENTIONED = sorted(set(re.findall(FILES, README)))


@pytest.mark.parametrize("place", range(len(PYTHON)))
def test_the_python_runs_as_written(place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy.json").write_text("{}")
    (tmp_path / "snippet.py").write_text(PYTHON[place])
    runpy.run_path("snippet.py")


@pytest.mark.parametrize("name", MENTIONED)
def test_a_file_it_names_exists(name: str) -> None:
    assert (REPOSITORY / name).exists()


def test_it_names_every_script() -> None:
    scripts = {f"{path.stem}.py" for path in (REPOSITORY / "configs").glob("*.yaml")}
    assert scripts == set(re.findall(r"python scripts/(\w+\.py)", README))
