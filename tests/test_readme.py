"""What the README says is so: its table is the one the folders give, its Python runs, its files exist."""

import re
import runpy
from pathlib import Path

import pytest

from jointsearch.report.comparison import compare
from tests.conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
MENTIONED = sorted(set(re.findall(r"`((?:search_spaces|jointsearch|results|scripts)/[\w/.]+)`", README)))


@pytest.mark.parametrize("folder", re.findall(r"<!-- (results/\w+) -->", README))
def test_the_table_is_what_the_folders_give(folder: str) -> None:
    written = re.search(rf"<!-- {folder} -->\n(.*?)<!-- end -->", README, re.DOTALL)
    assert written is not None
    assert written[1] == compare([REPOSITORY / folder]).to_markdown()


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
    scripts = {path.name for path in (REPOSITORY / "scripts").glob("*.py")} - {"__init__.py", "door.py"}
    assert scripts == set(re.findall(r"python scripts/(\w+\.py)", README))
