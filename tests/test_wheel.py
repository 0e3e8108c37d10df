"""The installed package is complete: it holds its configurations, and works without the repository."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from jointsearch.compose import CONFIGS
from tests.conftest import REPOSITORY
from tests.scripts_bench import copy_project

pytest.importorskip("hatchling", reason="hatchling is not installed; pip install -e '.[dev]'")

BUILD = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
TINY = [
    *("search=policy", "searcher=random", "network=tiny_cnn", "seeds=[0]", "dataset.reduced=60", "device=cpu"),
    *("search_recipe.epochs=1", "recipe.epochs=1", "controls=[none]", "run=out"),
]
NOTEBOOK = """
from jointsearch import compose_study, run_study
study = compose_study("search=policy", "network=tiny_cnn", dataset="digits", seeds=(0,), budget=0.01,
                      searcher="random", device="cpu")
result = run_study(study, "runs/mine")
assert result.policy.sub_policies and result.genotype is None
assert result.comparison.rows and result.report.is_file()
assert run_study(study, "runs/mine").policy == result.policy
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the unpacked wheel, built of a copy of what git would not ignore."""
    copy, target = copy_project(tmp_path_factory.mktemp("copy")), tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-c", BUILD, str(target)], cwd=copy, check=True, capture_output=True)
    (wheel,) = target.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            archive.extract(name, target)
    wheel.unlink()
    return target


def installed_run(installed: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def jointsearch(installed: Path, folder: Path, *words: str) -> str:
    """What the installed command prints; it must end well."""
    entry = "import sys; from jointsearch.commands.command import entry_point; sys.exit(entry_point())"
    done = installed_run(installed, folder, "-c", entry, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_holds_every_configuration_and_every_module(installed: Path) -> None:
    for folder, suffix in ((CONFIGS, ".yaml"), (REPOSITORY / "jointsearch", ".py"), (REPOSITORY / "search_spaces", "")):
        files = {path.relative_to(REPOSITORY) for path in folder.rglob(f"*{suffix}") if path.is_file()}
        missing = {path for path in files if "__pycache__" not in path.parts and not (installed / path).is_file()}
        assert files
        assert not missing
    (metadata,) = installed.glob("jointsearch-*.dist-info")
    assert "jointsearch = jointsearch.commands.command:entry_point" in (metadata / "entry_points.txt").read_text()
    assert {path.name for path in installed.iterdir()} == {"jointsearch", "search_spaces", metadata.name}


@pytest.mark.slow
def test_the_installed_package_is_the_one_that_runs(installed: Path, tmp_path: Path) -> None:
    done = installed_run(installed, tmp_path, "-c", "import jointsearch; print(jointsearch.__file__)")
    assert done.stdout.strip() == str(installed / "jointsearch" / "__init__.py")


@pytest.mark.slow
@pytest.mark.parametrize("word", ["search", "retrain", "compare", "report"])
def test_the_installed_command_lists_its_settings(word: str, installed: Path, tmp_path: Path) -> None:
    assert "Settings, with the values that they have now:" in jointsearch(installed, tmp_path, word, "--help")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_installed_command_searches_compares_and_reports(installed: Path, tmp_path: Path) -> None:
    printed = jointsearch(installed, tmp_path, "search", *TINY)
    assert "| found |" in printed
    assert jointsearch(installed, tmp_path, "compare", "out") == (tmp_path / "out/summary.md").read_text()
    (tmp_path / "out/report.html").unlink()
    jointsearch(installed, tmp_path, "report", "out")
    assert (tmp_path / "out/report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_the_notebook_of_ten_lines_searches_with_the_installed_package(installed: Path, tmp_path: Path) -> None:
    assert len(NOTEBOOK.strip().splitlines()) <= 10
    done = installed_run(installed, tmp_path, "-c", NOTEBOOK)
    assert done.returncode == 0, done.stderr
