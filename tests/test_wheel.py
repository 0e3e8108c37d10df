"""The installed package is complete: it holds its configurations, and works without the repository."""

import subprocess
import sys
import zipfile
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from jointsearch.compose import CONFIGS
from tests.conftest import REPOSITORY
from tests.scripts_bench import copy_project
from tests.starts import run_all

pytest.importorskip("hatchling", reason="hatchling is not installed; pip install -e '.[dev]'")

BUILD = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
HELPED = ["search", "retrain", "compare", "report"]
ENTRY = "import sys; from jointsearch.commands.command import entry_point; sys.exit(entry_point())"
WHERE = "import os; import jointsearch; print(jointsearch.__file__, os.listdir())"
UNLINK = """
from pathlib import Path
Path("out/report.html").unlink()
print(Path("out/summary.md").read_text(), end="")
"""
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


@pytest.fixture(scope="module")
def done(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, CompletedProcess[str]]:
    """What the installed package comes to, in the folder `folder` beside: it has nothing else of this project."""
    scratch = tmp_path_factory.mktemp("scratch")
    files = {"jointsearch": ENTRY, "where": WHERE, "notebook": NOTEBOOK, "unlink": UNLINK}
    for name, text in files.items():
        (scratch / name).write_text(text)
    commands = {
        "where": ["where"],
        **{f"{word} --help": ["jointsearch", word, "--help"] for word in HELPED},
        "listed": ["where"],
        "search": ["jointsearch", "search", *TINY],
        "compare": ["jointsearch", "compare", "out", "format=markdown"],
        "unlink": ["unlink"],
        "report": ["jointsearch", "report", "out"],
        "notebook": ["notebook"],
    }
    folder = scratch / "folder"
    folder.mkdir()
    words = [(folder, [str(scratch / name), *rest]) for name, *rest in commands.values()]
    return dict(zip(commands, run_all(words, installed, scratch / "printed"), strict=True))


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
def test_the_installed_package_is_the_one_that_runs(installed: Path, done: dict[str, CompletedProcess[str]]) -> None:
    assert done["where"].stdout.split() == [str(installed / "jointsearch" / "__init__.py"), "[]"]


@pytest.mark.slow
@pytest.mark.parametrize("word", HELPED)
def test_the_installed_command_lists_its_settings(word: str, done: dict[str, CompletedProcess[str]]) -> None:
    assert done[f"{word} --help"].returncode == 0
    assert "Settings, with the values that they have now:" in done[f"{word} --help"].stdout
    assert done["listed"].stdout.split()[1:] == ["[]"]  # no file is left


@pytest.mark.slow
def test_the_installed_command_searches_compares_and_reports(done: dict[str, CompletedProcess[str]]) -> None:
    assert [done[word].returncode for word in ("search", "compare", "unlink", "report")] == [0, 0, 0, 0]
    assert "| found |" in done["search"].stdout
    assert done["compare"].stdout.startswith(done["unlink"].stdout)
    assert (Path(done["report"].args[0]).parent / "folder/out/report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_the_notebook_of_ten_lines_searches_with_the_installed_package(done: dict[str, CompletedProcess[str]]) -> None:
    assert len(NOTEBOOK.strip().splitlines()) <= 10
    assert done["notebook"].returncode == 0, done["notebook"].stderr
