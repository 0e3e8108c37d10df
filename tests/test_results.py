"""The files below results/: the docs' tables are made from them, they stay small, and nothing is lost in them."""

import json
import re
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jointsearch.commands.command import run
from jointsearch.report.comparison import compare
from jointsearch.report.costs import describe_costs, machine
from jointsearch.report.results_file import Record, read_results
from jointsearch.report.results_policy import pack_policy, unpack_policy
from jointsearch.report.results_writer import write_results
from jointsearch.runs.run_folder import SETTINGS_FILE
from search_spaces.controls import named_policy
from search_spaces.errors import InputError
from search_spaces.genotype import PUBLISHED
from search_spaces.policy import OpChoice, Policy, SubPolicy
from search_spaces.schedule import PolicySchedule
from tests.conftest import REPOSITORY

RESULTS = REPOSITORY / "results"
PAGES = [REPOSITORY / "docs" / "results.md", REPOSITORY / "docs" / "history.md", RESULTS / "README.md"]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
DIFFERENCES = re.findall(r"<!-- (results/\S+) minus (\S+) -->\n(.*?)<!-- end -->", TEXT, re.DOTALL)
COSTS = re.findall(r"<!-- costs of (results/\S+) -->\n(.*?)<!-- end -->", TEXT, re.DOTALL)
NAMED = r"`((?:search_spaces|jointsearch|results|scripts|tests|docs)/[\w/.]+)`"

FOUND = Policy(
    (SubPolicy((), 0.5), SubPolicy((OpChoice("Rotate", 0.7, 0.1), OpChoice("Equalize")), 0.25)), name="found"
)
# Neighbors of one op that differ in more than their magnitude.
UNEVEN = Policy(
    tuple(
        SubPolicy((OpChoice("Rotate", probability, magnitude),), weight)
        for weight, probability, magnitude in [(1.0, 0.5, 0.1), (1.0, 0.5, 0.2), (2.0, 0.5, 0.3), (2.0, 0.6, 0.4)]
    )
)
LEARNED = [0.0116, 0.0366, 1 / 3]
CURVE = [{"epoch": 1, "step": 8, "train_loss": 2.5}, {"epoch": 2, "step": 16, "train_loss": 2.25}]


# The docs and the files of the repository


@pytest.mark.parametrize(("file", "baseline", "written"), DIFFERENCES, ids=[file for file, _, _ in DIFFERENCES])
def test_a_table_of_trainings_is_what_its_file_gives(
    file: str, baseline: str, written: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("compare", [f"{REPOSITORY / file}", f"baseline={baseline}", "format=markdown"]) == 0
    assert capsys.readouterr().out.startswith(written)


@pytest.mark.parametrize(("file", "written"), COSTS, ids=[file for file, _ in COSTS])
def test_a_table_of_costs_is_what_its_file_gives(file: str, written: str) -> None:
    assert written == describe_costs(read_results(REPOSITORY / file))


def test_the_differences_that_the_history_repeats_are_those_of_the_file() -> None:
    repeated = re.findall(r"^\| `(\w+_trivialaugment)` \|.*\| (-\d\.\d\d ± \d\.\d\d)", TEXT, re.MULTILINE)
    table = compare([RESULTS / "cifar10_1000.jsonl"], baseline="trivialaugment").to_markdown()
    assert len(repeated) == 5
    for row, difference in repeated:
        assert re.search(rf"^\| {row} \|.*\| {difference} \|", table, re.MULTILINE), (row, difference)


def test_every_file_has_its_table_in_the_docs() -> None:
    shown = {file for file, _, _ in DIFFERENCES} | {file for file, _ in COSTS}
    assert shown == {f"results/{path.name}" for path in RESULTS.glob("*.jsonl")}


def test_results_stay_small_beside_the_code() -> None:
    files = [path for path in RESULTS.rglob("*") if path.is_file()]
    assert len(files) <= 40
    assert sum(path.stat().st_size for path in files) < 2_000_000


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.jsonl")), ids=lambda path: path.stem)
def test_every_line_has_its_certificate_and_a_policy_and_genotype_that_can_be_used_again(path: Path) -> None:
    for record in read_results(path):
        assert {"command", "commit", "date", "hardware", "torch"} <= record.birth.keys(), record.place
        assert {"network", "recipe", "seed", "dataset", "data"} <= record.settings.keys(), record.place
        assert record.result, record.place
        # The oldest searches kept no policy; the training of their row and seed has it.
        assert record.is_search or record.policy is not None, record.place
        in_settings = record.settings.get("network_options", {}).get("genotype")
        assert (None if record.genotype is None else record.genotype.to_darts()) in (in_settings, record.darts)


@pytest.mark.parametrize("name", sorted(set(re.findall(NAMED, TEXT))))
def test_a_file_that_the_docs_name_exists(name: str) -> None:
    assert (REPOSITORY / name).exists()


def test_the_python_of_the_folder_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [snippet] = re.findall(r"```python\n(.*?)```", (RESULTS / "README.md").read_text(), re.DOTALL)
    shutil.copytree(RESULTS, tmp_path / "results")
    write_training(tmp_path / "runs" / "mine", "none", 0, 50.0)
    write_training(tmp_path / "runs" / "more", "none", 1, 51.0)
    (tmp_path / "snippet.py").write_text(snippet)
    monkeypatch.chdir(tmp_path)
    runpy.run_path("snippet.py")
    assert {choice.op for one in Policy.load("policy.json").sub_policies for choice in one.ops} >= {
        "Rotate",
        "Equalize",
    }
    assert [(record.row, record.seed) for record in read_results("results/mine.jsonl")] == [("none", 0), ("none", 1)]


# Writing and reading


def write_part(folder: Path, settings: dict[str, Any], birth: dict[str, Any], result: dict[str, Any] | None) -> None:
    folder.mkdir(parents=True)
    (folder / SETTINGS_FILE).write_text(json.dumps(settings))
    (folder / "birth.json").write_text(json.dumps(birth))
    if result is not None:
        (folder / "result.json").write_text(json.dumps(result))


def write_training(root: Path, row: str, seed: int, accuracy: float | None, policy: Policy | None = None) -> None:
    folder = root / row / f"seed{seed}"
    recipe = {"epochs": 2, "learning_rate": 0.1}
    settings = {"network": "tiny_cnn", "recipe": recipe, "seed": seed, "data": {"train": 8, "digest": f"d{seed}"}}
    result = None if accuracy is None else {"epochs": 2, "test_accuracy_last": accuracy, "seconds": 1.5}
    birth = {"commit": "abc", "command": f"retrain.py policy={row}", **({"date": None} if row == "none" else {})}
    write_part(folder, settings, birth, result)
    (policy or named_policy(row)).save(folder / "policy.json")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(epoch) + "\n" for epoch in CURVE))


def write_search(folder: Path, seed: int, seconds: float) -> None:
    settings = {"search": {"searcher": {"is": "Table"}}, "network": "tiny_cnn", "seed": seed, "recipe": {"epochs": 2}}
    shares = [0.25] * 31 + [0.1, 0.1, 0.2]
    table = [{"op": "Rotate", "magnitude": None, "gain": -1e-17}]
    costs = {"steps": 1040, "forward_equivalents": 9392, "seconds": seconds, "effective_sub_policies": 1.99}
    result = {**costs, "sub_policy_shares": shares, "table": table, "visits": [0] * 5}
    write_part(folder / f"search-seed{seed}", settings, {"hardware": "AMD EPYC, 2 cores"}, result)
    FOUND.save(folder / f"search-seed{seed}" / "policy.json")
    PUBLISHED["DARTS_V2"].save(folder / f"search-seed{seed}" / "genotype.json")


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two run folders: trainings of three rows, and searches beside a training of theirs."""
    for seed in range(3):
        write_training(tmp_path / "a", "none", seed, 50.0 + seed)
        write_training(tmp_path / "a", "trivialaugment", seed, 60.0)
        write_search(tmp_path / "b", seed, 10.0 * seed)
    write_training(tmp_path / "b", "found", 0, 55.1, FOUND)
    write_training(tmp_path / "b", "found", 1, None, FOUND)
    return [tmp_path / "a", tmp_path / "b"]


def test_what_is_written_is_what_is_read(runs: list[Path], tmp_path: Path) -> None:
    written = write_results(runs, tmp_path / "all.jsonl", curves={("found", 0)})
    read = read_results(tmp_path / "all.jsonl")
    assert read == written
    assert len(read) == 11
    write_results(runs[:1], tmp_path / "grown.jsonl")
    assert (
        write_results([tmp_path / "grown.jsonl", runs[1]], tmp_path / "grown.jsonl", curves={("found", 0)}) == written
    )
    assert (tmp_path / "grown.jsonl").read_bytes() == (tmp_path / "all.jsonl").read_bytes()
    for record in read:
        kind = "search-seed" if record.is_search else "seed"
        parents = [run if record.is_search else run / record.row for run in runs]
        [folder] = [parent / f"{kind}{record.seed}" for parent in parents if (parent / f"{kind}{record.seed}").is_dir()]
        files = {"settings": SETTINGS_FILE, "birth": "birth.json", "result": "result.json"}
        for name, file in files.items():
            path = folder / file
            assert getattr(record, name) == (json.loads(path.read_text()) if path.is_file() else None)
        assert isinstance(record.policy, Policy)
        assert record.policy.to_json() == (folder / "policy.json").read_text()
        assert record.genotype == (PUBLISHED["DARTS_V2"] if record.is_search else None)
        assert list(record.curve) == (CURVE if (record.row, record.seed) == ("found", 0) else [])


def test_a_file_gives_the_table_of_its_run_folders(runs: list[Path], tmp_path: Path) -> None:
    write_results(runs, tmp_path / "all.jsonl")
    from_file = compare([tmp_path / "all.jsonl"])
    assert from_file == compare(runs)
    assert from_file.unfinished == ("found/seed1",)
    write_results(runs[:1], tmp_path / "some.jsonl")
    assert compare([tmp_path / "some.jsonl", runs[1]]) == compare(runs)


def test_what_all_lines_share_is_written_once(runs: list[Path], tmp_path: Path) -> None:
    write_results(runs[:1], tmp_path / "a.jsonl")
    header, *lines = map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())
    shared = {"network": "tiny_cnn", "recipe": {"epochs": 2, "learning_rate": 0.1}, "data": {"train": 8}}
    assert header == {
        "format": "jointsearch-results",
        "version": 1,
        "settings": shared,
        "birth": {"commit": "abc"},
    }
    assert [line["settings"] for line in lines] == [{"data": {"digest": f"d{seed}"}} for seed in (0, 1, 2)] * 2
    assert [line["policy"] for line in lines] == ["none"] * 3 + ["trivialaugment"] * 3


def test_costs_are_counted_by_row_and_machine(runs: list[Path], tmp_path: Path) -> None:
    write_results(runs, tmp_path / "all.jsonl")
    lines = describe_costs(read_results(tmp_path / "all.jsonl")).splitlines()
    assert lines[2:] == ["| b | 3 | 1,040 | 9,392 | 0 to 20 (EPYC) | 2.0 |"]
    names = ["Intel(R) Xeon(R) Processor, 2 cores", "AMD EPYC, 2 cores", "NVIDIA H100 80GB HBM3"]
    assert [machine(name) for name in names] == ["Xeon", "EPYC", "H100 80GB HBM3"]


def test_what_cannot_be_one_table_is_not_written(runs: list[Path], tmp_path: Path) -> None:
    for seed in range(2):
        write_training(tmp_path / "c" / "d", "none", seed, 1.0)
    with pytest.raises(InputError, match=r"repeats seed 0 of none, which .* has; drop one"):
        write_results([*runs, tmp_path / "c" / "d"], tmp_path / "all.jsonl")
    with pytest.raises(InputError, match=r"no training found below .*; give a run folder"):
        write_results([tmp_path / "a" / "none"], tmp_path / "all.jsonl")
    with pytest.raises(InputError, match=r"curves names \('none', 7\), .*; give rows and seeds of these folders"):
        write_results(runs, tmp_path / "all.jsonl", curves={("none", 7)})
    assert not (tmp_path / "all.jsonl").exists()


def changed(**values: Any) -> Callable[[str], str]:
    return lambda line: json.dumps({**json.loads(line), **values})


@pytest.mark.parametrize(
    ("number", "damage", "said"),
    [
        (1, lambda line: "", "line 1, is not valid JSON"),
        (
            1,
            changed(format="jointsearch-policy"),
            "line 1: format is 'jointsearch-policy'; wanted 'jointsearch-results'",
        ),
        (1, changed(version=2), "line 1: version is 2; this code reads version 1"),
        (1, changed(settings=[]), r"line 1 has settings \[\]; wanted an object"),
        (3, lambda line: line[:40], "line 3, is not valid JSON"),
        (3, lambda line: "[]", r"line 3 is \[\]; wanted an object with the keys"),
        (3, changed(results={}), "line 3 has the unknown key 'results'; did you mean result"),
        (4, changed(row=3), "line 4 has the row 3; give the name"),
        (4, changed(seed=True), "line 4 has the seed True; give a whole number"),
        (4, changed(seed=0, row="none"), "line 4 repeats seed 0 of none, which .*, line 2 has; drop one"),
        (5, changed(result=7), "line 5 has result 7; wanted an object"),
        (5, changed(curve={}), "line 5 has the curve {}; give a list"),
        (5, changed(genotype=7), "line 5 has the genotype 7; write it as DARTS does"),
        (
            5,
            changed(result={"a": [{"times": 10**9, "value": 0}]}),
            "line 5 has the times 1000000000; wanted a whole number",
        ),
        (5, changed(result={}), "line 5 has no number test_accuracy_last; .* restore the file"),
        (5, changed(settings={"network": "other"}), "line 5 were not trained alike .*network was tiny_cnn|'tiny_cnn'"),
    ],
)
def test_a_damaged_line_is_named(
    number: int, damage: Callable[[str], str], said: str, runs: list[Path], tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    write_results(runs[:1], path)
    lines = path.read_text().splitlines()
    lines[number - 1] = damage(lines[number - 1])
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=said) as error:
        compare([path])
    assert f"results file {path}" in str(error.value)
    assert "\n" not in str(error.value)


# Policies


@pytest.mark.parametrize(
    ("policy", "packed"),
    [
        (named_policy("trivialaugment"), "trivialaugment"),
        (named_policy("random", seed=3), "random-s3"),
        (FOUND, {"name": "found", "sub_policies": [[0.5], [0.25, ["Rotate", 0.7, 0.1], ["Equalize", 1.0]]]}),
        (
            Policy(tuple(SubPolicy((OpChoice("Rotate", 1.0, level / 30),), 0.1) for level in range(1, 31)), name="x"),
            {"name": "x", "sub_policies": [[0.1, ["Rotate", 1.0, "1..30/30"]]]},
        ),
        (
            Policy(tuple(SubPolicy((OpChoice("Rotate", 1.0, magnitude),)) for magnitude in LEARNED), name="x"),
            {"name": "x", "sub_policies": [[1.0, ["Rotate", 1.0, LEARNED]]]},
        ),
        (PolicySchedule(((0, named_policy("none")), (5, FOUND)), name="x"), None),
        (Policy(named_policy("trivialaugment").sub_policies, name="found"), None),
        (Policy(FOUND.sub_policies, name="trivialaugment"), None),  # a control's name on another policy
        (UNEVEN, None),
    ],
)
def test_a_policy_comes_back_to_the_bit_from_its_short_form(policy: Policy | PolicySchedule, packed: Any) -> None:
    short = pack_policy(policy)
    back = unpack_policy(json.loads(json.dumps(short)), "here")
    assert (back, back.name) == (policy, policy.name)
    assert short == packed or packed is None


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("trivialaugmnt", "did you mean trivialaugment"),
        (7, "wanted an object with the keys"),
        ({"sub_policies": 7}, "wanted a list of lists"),
        ({"sub_policies": [["Rotate"]]}, "weight is 'Rotate'"),
        ({"sub_policies": [[1.0, "Rotate"]]}, r"write \[weight, \[op, probability, magnitude\]"),
        ({"sub_policies": [[1.0, ["Rotate"]]]}, "give each op its probability"),
        ({"sub_policies": [[1.0, ["Rotat", 1.0, 0.5]]]}, "did you mean Rotate"),
        ({"sub_policies": [[1.0, ["Rotate", 1.0, "3..2/30"]]]}, 'write a number, a list, or levels as "0..30/30"'),
        ({"spans": [[0]]}, r"write \[first epoch, policy\] for each"),
    ],
)
def test_a_damaged_policy_is_named(data: Any, said: str) -> None:
    record = Record("found", 0, {}, packed_policy=data, place="results file a.jsonl, line 7")
    with pytest.raises(InputError, match=rf"^results file a\.jsonl, line 7: policy.*{said}"):
        _ = record.policy
