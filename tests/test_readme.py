"""What the README and its page of measurements say is so: tables are their folders', Python runs, files exist."""

import re
import runpy
from pathlib import Path

import pytest

from jointsearch.report.comparison import compare
from search_spaces.plain_json import read_json
from tests.conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
MEASUREMENTS = (REPOSITORY / "docs" / "measurements.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
FILES = r"`((?:search_spaces|jointsearch|results|scripts|tests|docs)/[\w/.]+)`"
COSTS = (
    "| search | seeds | steps | forward-equivalents | seconds, least to most | sub-policies in use |",
    "|---|---|---|---|---|---|",
)
MENTIONED = sorted(set(re.findall(FILES, README + MEASUREMENTS)))


@pytest.mark.parametrize(
    ("folder", "baseline", "written"),
    re.findall(r"<!-- (results/\w+) minus (\S+) -->\n(.*?)<!-- end -->", MEASUREMENTS, re.DOTALL),
)
def test_a_table_is_what_its_folder_gives(folder: str, baseline: str, written: str) -> None:
    assert written == compare([REPOSITORY / folder], baseline=baseline).to_markdown()


def test_every_folder_of_trainings_has_its_table() -> None:
    trained = {f"results/{path.parents[2].name}" for path in (REPOSITORY / "results").glob("*/*/seed*/result.json")}
    assert trained == set(re.findall(r"<!-- (results/\w+) minus", MEASUREMENTS))


def test_the_costs_of_searches_are_what_their_results_say() -> None:
    [written] = re.findall(r"<!-- costs of (results/\w+) -->\n(.*?)<!-- end -->", MEASUREMENTS, re.DOTALL)
    folder, table = REPOSITORY / written[0], written[1]
    assert table == "\n".join([*COSTS, *(_cost(row) for row in sorted(folder.iterdir()))]) + "\n"


def _cost(row: Path) -> str:
    searches = sorted(row.glob("search-seed*"))
    results = [read_json(search / "result.json", "result") for search in searches]
    machines: dict[str, list[float]] = {}
    for search, result in zip(searches, results, strict=True):
        hardware = read_json(search / "birth.json", "birth certificate")["hardware"]
        machines.setdefault("EPYC" if "EPYC" in hardware else "Xeon", []).append(result["seconds"])
    seconds = ", ".join(f"{_span(machines[name], '.0f')} ({name})" for name in sorted(machines))
    [steps], [cost] = ({result[key] for result in results} for key in ("steps", "forward_equivalents"))
    in_use = _span([result["effective_sub_policies"] for result in results], ".1f")
    return f"| {row.name} | {len(results)} | {steps:,} | {cost:,} | {seconds} | {in_use} |"


def _span(values: list[float], figures: str) -> str:
    return " to ".join(dict.fromkeys(format(value, figures) for value in (min(values), max(values))))


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
