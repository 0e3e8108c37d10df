"""Any policy file gives a policy, or a one-line error with file, place and remedy (R-51)."""

import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from search_spaces.errors import InputError
from search_spaces.policy import OpChoice, Policy, SubPolicy
from search_spaces.schedule import PolicySchedule, load_policy_or_schedule
from tests.malformed_policies import MALFORMED


def assert_one_line(path: Path, said: str) -> None:
    start = time.process_time()
    with pytest.raises(InputError) as error:
        load_policy_or_schedule(path)
    message = str(error.value)
    assert time.process_time() - start < 1
    assert str(path) in message
    assert said in message
    assert "\n" not in message
    assert len(message) < 600
    assert any(remedy in message for remedy in (";", "?")), "no remedy"


@pytest.mark.parametrize(("content", "said"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_file_gives_one_line_with_file_place_and_remedy(
    content: str | bytes, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert_one_line(path, said)
    assert [entry.name for entry in tmp_path.iterdir()] == ["bad.json"]


def test_what_is_no_readable_file_gives_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name, said in (
        ("missing", "is not there"),
        ("", "is a folder"),
        ("fifo", "not a regular file"),
        ("link", "not there"),
    ):
        assert_one_line(tmp_path / name, said)


def test_a_file_of_two_gigabytes_is_refused_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "huge.json"
    path.touch()
    os.truncate(path, 2 * 2**30)
    tracemalloc.start()
    assert_one_line(path, "more than 16,000,000 bytes")
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    "build",
    [
        lambda: OpChoice("Rotate", 0.5),
        lambda: OpChoice("Rotate", 0.5, float("nan")),
        lambda: OpChoice("Rotat", 0.5, 0.5),
        lambda: SubPolicy([OpChoice("Invert")]),
        lambda: SubPolicy((), float("inf")),
        lambda: SubPolicy((), float("nan")),
        lambda: Policy(()),
        lambda: Policy([SubPolicy()]),
        lambda: Policy((SubPolicy(()),), ""),
        lambda: PolicySchedule(()),
    ],
)
def test_a_wrong_value_cannot_be_built_in_python_either(build: Callable[[], object]) -> None:
    with pytest.raises(InputError, match=r";|\?|write"):
        build()
