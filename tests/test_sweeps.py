"""A sweep file means the same to `wandb sweep` and to scripts/sweep.py, and every member is done once."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from jointsearch.commands.command import run
from jointsearch.commands.folders import new_folder
from jointsearch.commands.sweep import command_of, own_words
from jointsearch.compose import compose_words
from jointsearch.registry import SWEEPS
from jointsearch.sweeps.members import Member, read_sweep
from jointsearch.sweeps.work import Outcome, Work
from tests.conftest import REPOSITORY
from tests.kills import wait_for
from tests.scripts_bench import refusal
from tests.wandb_loopback import SWEEP, Loopback

GRID: dict[str, Any] = {
    "program": "scripts/joint_search.py",
    "method": "grid",
    "parameters": {
        "preset": {"values": ["joint", "separate"]},
        "dataset": {"value": "digits"},
        "seeds": {"values": ["[0]", "[1]"]},
    },
}


def write_sweep(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump(GRID | changes, sort_keys=False))
    return path


def test_every_combination_is_a_member_named_by_what_varies(tmp_path: Path) -> None:
    sweep = read_sweep(write_sweep(tmp_path / "s.yaml"))
    assert sweep.program == "joint_search"
    assert [(member.name, member.words) for member in sweep.members] == [
        ("preset_joint-seeds_0", ("preset=joint", "dataset=digits", "seeds=[0]")),
        ("preset_joint-seeds_1", ("preset=joint", "dataset=digits", "seeds=[1]")),
        ("preset_separate-seeds_0", ("preset=separate", "dataset=digits", "seeds=[0]")),
        ("preset_separate-seeds_1", ("preset=separate", "dataset=digits", "seeds=[1]")),
    ]


def test_words_for_all_replace_those_of_the_file(tmp_path: Path) -> None:
    path = write_sweep(tmp_path / "s.yaml")
    members, changed = read_sweep(path).members, read_sweep(path).replaced("dataset=shapes", "budget=0.5").members
    assert changed[0].words == ("preset=joint", "dataset=shapes", "seeds=[0]", "budget=0.5")
    assert [one.name for one in changed] == [one.name for one in members]


def test_what_words_make_equal_is_one_member(tmp_path: Path) -> None:
    members = read_sweep(write_sweep(tmp_path / "s.yaml")).replaced("preset=joint").members
    assert [(one.name, one.words[0]) for one in members] == [("seeds_0", "preset=joint"), ("seeds_1", "preset=joint")]


def test_words_that_a_sweep_does_not_know_are_for_its_commands() -> None:
    assert own_words(["file=a.yaml", "jobs=2"]) == ["file=a.yaml", "jobs=2"]
    order = "dataset.standard.order='crop_flip, policy, cutout'"
    others = ["budget=0.5", order, 'x="a\\b"', "y=a\\"]
    words = own_words(["file=a.yaml", "launcher.partition=gpu", *others])
    assert compose_words("sweep", words).values == {
        "file": "a.yaml",
        "launcher_options": ["partition=gpu"],
        "also": others,
    }


@pytest.mark.parametrize("path", sorted(SWEEPS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_word_of_a_shipped_sweep_is_known_to_its_command(path: Path) -> None:
    sweep = read_sweep(path)
    assert len(sweep.members) > 1
    command_of(sweep.program)
    for member in sweep.members:
        compose_words(sweep.program, member.words)
    head = path.read_text().splitlines()[0]
    assert head.startswith("# python scripts/sweep.py jointsearch/configs/sweep/")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "bayes"}, "method: 'bayes'"),
        ({"program": "scripts/nothing.py"}, "nothing"),
        ({"parameters": None}, "no parameters"),
        ({"parameters": [1]}, "parameters"),
        ({"parameters": {"seeds": {"min": 0, "max": 1}}}, "seeds"),
        ({"parameters": {"seeds": {"values": ["[0]", "[0]"]}}}, "seeds_0"),
        ({"parameters": {"seeds": {"values": []}}}, "seeds"),
    ],
    ids=["method", "program", "missing", "list", "range", "twice", "empty"],
)
def test_a_bad_sweep_file_is_one_line(
    changes: dict[str, Any],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_sweep(tmp_path / "s.yaml", **changes)
    assert message in refusal(capsys, "sweep", "s.yaml")


@pytest.mark.parametrize("content", [b"a: [", b"\xff\xfe", b"- 1"], ids=["open", "bytes", "list"])
def test_a_file_that_is_no_sweep_is_one_line(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_bytes(content)
    assert "s.yaml" in refusal(capsys, "sweep", "s.yaml")
    assert "gone.yaml" in refusal(capsys, "sweep", "gone.yaml")
    assert "file" in refusal(capsys, "sweep")


# ------------------------------------------------------------------------------------------------------------ the work

# A command that notes each start, waits for the file `go`, and fails where it is told to.
COMMAND = """
import pathlib, signal, sys, time
words = dict(word.split("=", 1) for word in sys.argv[1:])
place = pathlib.Path(words["run"])
with (place / "starts").open("a") as starts:
    starts.write("x")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
while not (place.parent / "go").exists():
    time.sleep(0.02)
print("about to end")
sys.exit(int(words.get("code", 0)))
"""
# A sweep in a process of its own.
SWEEPER = """
import sys
from pathlib import Path
from jointsearch.sweeps.members import Member
from jointsearch.sweeps.work import Work
members = [Member(f"m{n}", (f"n={n}",)) for n in range(4)]
work = Work(Path(sys.argv[1]), (sys.executable, sys.argv[2]), lambda text: print(text, flush=True))
print([one.exit_code for one in work.do_all(members, 2)])
"""


@pytest.fixture
def command(tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "command.py").write_text(COMMAND)
    return sys.executable, str(tmp_path / "command.py")


def members_of(tmp_path: Path, **values: Any) -> Any:
    path = write_sweep(tmp_path / "s.yaml", parameters={name: {"values": some} for name, some in values.items()})
    return read_sweep(path).members


def starts(folder: Path) -> dict[str, int]:
    return {path.parent.name: len(path.read_text()) for path in sorted(folder.glob("*/starts"))}


def test_members_run_once_and_a_failed_one_runs_again(tmp_path: Path, command: tuple[str, ...]) -> None:
    folder, said = tmp_path / "sweep", list[str]()
    members = members_of(tmp_path, code=[0, 3], n=[1, 2])
    folder.mkdir()
    (folder / "go").touch()
    for _ in range(2):
        outcomes = Work(folder, command, said.append).do_all(members, 2)
        assert [one.exit_code for one in outcomes] == [0, 0, 3, 3]
    assert starts(folder) == {"code_0-n_1": 1, "code_0-n_2": 1, "code_3-n_1": 2, "code_3-n_2": 2}
    assert any("code_3-n_1: ended with 3\n  about to end" in one for one in said)
    assert [one for one in said if one.startswith("code_0-n_1: finished in")]


def test_words_of_this_machine_do_not_make_another_member(tmp_path: Path, command: tuple[str, ...]) -> None:
    folder = tmp_path / "sweep"
    folder.mkdir()
    (folder / "go").touch()
    for here in (("threads=1",), ("threads=8",), ()):
        Work(folder, command, print, here).do_all(members_of(tmp_path, n=[1]), 1)
    assert starts(folder) == {"n_1": 1}


def test_no_two_commands_share_the_folder_that_an_agent_gives_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")

    def folder(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["joint_search.py", *words])
        return new_folder("search")

    assert folder("preset=joint", "seeds=[0]", "wandb=online").startswith("runs/sweep/abc/preset_joint-seeds_0-")
    long = [f"dataset.path={'photos' * 40}", "dataset=folder"]
    lists = [[*long, "seeds=[0]"], [*long, "seeds=[1]"], ["seeds=[1,2]"], ["seeds=[12]"], ["seeds=12"], ["a=b", "c=d"]]
    lists += [["a=b-c=d"], ["a_b=c"], ["a=b_c"]]
    assert len({folder(*words) for words in lists}) == len(lists)
    assert folder(*lists[0]) == folder(*lists[0])


def test_our_own_sweep_is_found_by_its_name_and_shares_out_the_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    done: list[tuple[int, tuple[str, ...]]] = []

    def note(work: Work, members: Sequence[Member], jobs: int) -> list[Outcome]:
        done.append((len(members), work.here))
        return []

    monkeypatch.setattr(Work, "do_all", note)
    for words in ((), ("dataset=digits", "jobs=2"), ("threads=1", "jobs=3")):
        assert run("sweep", ["joint_vs_separate", *words]) == 0
    assert done == [(36, ()), (12, ("threads=3",)), (36, ())]


def test_a_member_with_other_words_runs_again(tmp_path: Path, command: tuple[str, ...]) -> None:
    folder = tmp_path / "sweep"
    folder.mkdir()
    (folder / "go").touch()
    members = members_of(tmp_path, n=[1, 2])
    for also in ((), ("budget=0.5",), ("budget=0.5",)):
        changed = [Member(one.name, (*one.words, *also)) for one in members]
        Work(folder, command, print).do_all(changed, 1)
    assert starts(folder) == {"n_1": 2, "n_2": 2}


def sweeper(tmp_path: Path, folder: Path, command: tuple[str, ...]) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    words = [sys.executable, "-c", SWEEPER, str(folder), command[1]]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)


def test_two_processes_share_a_sweep_and_none_does_what_the_other_has(tmp_path: Path, command: tuple[str, ...]) -> None:
    folder = tmp_path / "sweep"
    both = [sweeper(tmp_path, folder, command) for _ in range(2)]
    for number in range(4):
        wait_for(folder / f"m{number}" / "starts")
    (folder / "go").touch()
    printed = [process.communicate(timeout=60)[0].splitlines()[-1] for process in both]
    counted = Counter(code for line in printed for code in line.strip("[]").split(", "))
    assert counted["0"] >= 4  # one may also find what the other has finished
    assert counted["0"] + counted["None"] == 8
    assert starts(folder) == {f"m{number}": 1 for number in range(4)}


def test_a_member_outlives_a_killed_sweep_and_is_not_begun_twice(tmp_path: Path, command: tuple[str, ...]) -> None:
    folder = tmp_path / "sweep"
    killed = sweeper(tmp_path, folder, command)
    for number in range(2):
        wait_for(folder / f"m{number}" / "starts")
    killed.kill()
    killed.communicate()
    members = [one for one in members_of(tmp_path, n=[0])]
    alone = Work(folder, command, print)
    here = [type(members[0])(f"m{number}", (f"n={number}",)) for number in range(2)]
    begun_twice = threading.Timer(10, alone.stop, [signal.SIGTERM])  # they would wait for the word to go
    begun_twice.start()
    assert [one.exit_code for one in alone.do_all(here, 2)] == [None, None]
    begun_twice.cancel()
    (folder / "go").touch()
    deadline = time.monotonic() + 60
    while [one.exit_code for one in Work(folder, command, print).do_all(here, 2)] != [0, 0]:
        assert time.monotonic() < deadline
    assert set(starts(folder).values()) <= {1, 2}  # the orphans ended without anybody to note it


def test_a_signal_reaches_what_runs_and_nothing_more_begins(tmp_path: Path, command: tuple[str, ...]) -> None:
    folder = tmp_path / "sweep"
    process = sweeper(tmp_path, folder, command)
    for number in range(2):
        wait_for(folder / f"m{number}" / "starts")
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[0].splitlines()[-1] == "[143, 143, None, None]"
    assert starts(folder) == {"m0": 1, "m1": 1}


def test_a_member_left_to_another_process_is_no_outcome(tmp_path: Path) -> None:
    [member] = members_of(tmp_path, n=[0])
    assert Outcome(member, None).exit_code is None


# ---------------------------------------------------------------------------------- the real commands, with a server

SIZES = {"channels": 4, "layers": 3}
SHORT = {
    "dataset.reduced": 60,
    "search_recipe.epochs": 2,
    "search_recipe.batch_size": 20,
    "recipe.epochs": 1,
    "recipe.batch_size": 20,
    **{f"{network}.{size}": count for network in ("supernet", "cells") for size, count in SIZES.items()},
    "controls": "[none]",
    "device": "cpu",
    "wandb": "online",
}
TINY = {
    "search": {"values": ["joint", "separate"]},
    "seeds": {"values": ["[0]", "[1]", "[2]"]},
    **{name: {"value": value} for name, value in SHORT.items()},
}


@pytest.mark.slow
@pytest.mark.long
def test_agents_and_the_sweep_without_a_server_end_in_the_same_table(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    scripts = str(REPOSITORY / "scripts")
    words = ["${env}", "python", "${program}", "${args_no_hyphens}"]
    write_sweep(tmp_path / "tiny.yaml", program=f"{scripts}/joint_search.py", parameters=TINY, command=words)
    python = Path(sys.executable).parent
    with Loopback() as server:
        where: dict[str, Any] = {"cwd": tmp_path, "env": server.environment}
        where["env"] |= {"PATH": f"{python}:{os.environ['PATH']}"}
        agent = [str(python / "wandb"), "agent", f"local/jointsearch/{SWEEP}"]
        subprocess.run(
            [str(python / "wandb"), "sweep", "--project", "jointsearch", "tiny.yaml"],
            check=True,
            capture_output=True,
            **where,
        )
        assert len(server.queue) == 6
        killed = subprocess.Popen(
            agent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, **where
        )
        runs = tmp_path / "runs" / "sweep" / SWEEP
        wait_for(runs)
        [first] = runs.iterdir()
        wait_for(first / "search-seed0")
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
        subprocess.run(agent, check=True, capture_output=True, timeout=600, **where)
        assert server.unknown == []
        assert len(server.runs) == 6
        assert {run["exit_code"] for run in server.runs.values()} == {0}
        assert sorted(run["starts"] for run in server.runs.values()) == [1, 1, 1, 1, 1, 2]
        configs = [run["config"] for run in server.runs.values()]
        assert all(config["settings"]["birth"]["commit"] for config in configs)
    compared = subprocess.run(
        [sys.executable, f"{scripts}/compare.py", str(runs)], check=True, capture_output=True, text=True, **where
    ).stdout
    alone = [sys.executable, f"{scripts}/sweep.py", "tiny.yaml", "run=alone", "jobs=2"]
    printed = subprocess.run(alone, check=True, capture_output=True, text=True, **where).stdout
    table, _, _ = compared.partition("\n\n")  # below it stand seconds too
    assert sum(line.startswith("found (search=") for line in table.splitlines()) == 2
    assert table in printed


@pytest.mark.slow
@pytest.mark.long
def test_jobs_of_hydras_launcher_do_the_members(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install -e '.[dev]' brings it")
    parameters = {name: value for name, value in TINY.items() if name != "wandb"} | {"seeds": {"value": "[0]"}}
    write_sweep(tmp_path / "tiny.yaml", parameters=parameters)
    words = ["tiny.yaml", "run=alone", "launcher=submitit_local", "launcher.timeout_min=10"]
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "scripts" / "sweep.py"), *words],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )
    assert len(list((tmp_path / "alone").glob("search_*/member.json"))) == 2
    assert "found" in done.stdout
    assert list((tmp_path / "alone" / "launcher").rglob("*_log.out"))
