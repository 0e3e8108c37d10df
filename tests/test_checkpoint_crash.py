"""Whatever goes wrong while a checkpoint is written, a whole one can be loaded afterwards: the old one or the new."""

import errno
import os
import resource
import shutil
import warnings
from collections import namedtuple
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from jointsearch.runs.checkpoint import CheckpointError, LoadedCheckpoint, load_checkpoint, save_checkpoint
from search_spaces.errors import InputError

# Every call of a save that changes the disk.
SYSTEM_CALLS = ("mkdir", "open", "write", "fsync", "rename", "replace", "unlink", "rmdir")
LIMIT_BYTES = 5_000


def state_of(value: int) -> dict[str, Any]:
    return {"value": value, "weights": torch.full((2_000,), float(value))}


def loaded_from(folder: Path) -> LoadedCheckpoint:
    loaded = load_checkpoint(folder)
    assert loaded is not None
    assert torch.equal(loaded.state["weights"], torch.full((2_000,), float(loaded.state["value"])))
    assert not list(folder.glob("*.tmp-*"))
    assert (folder / "last").read_text().strip() == loaded.path.name
    return loaded


def steps_in(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step_")) for path in folder.glob("step_*"))


def in_child(action: Callable[[], object]) -> int:
    """The exit code of `action` in a forked process: 0 if it returns, 74 on CheckpointError, 99 on anything else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns about forking a process with threads
        child = os.fork()
    if child == 0:
        try:
            action()
            os._exit(0)
        except CheckpointError:
            os._exit(74)
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def fail_at(call: int, monkeypatch: pytest.MonkeyPatch, failure: Callable[[], Any]) -> list[str]:
    """Let `failure` happen instead of the numbered system call; a write is half done first. Returns the calls."""
    seen: list[str] = []

    def replacement(name: str) -> Callable:
        original = getattr(os, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            seen.append(name)
            if len(seen) - 1 == call:
                if name == "write":
                    original(arguments[0], arguments[1][: len(arguments[1]) // 2])
                failure()
            return original(*arguments, **options)

        return counted

    for name in SYSTEM_CALLS:
        monkeypatch.setattr(os, name, replacement(name))
    return seen


def disk_full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class PowerCut(BaseException):
    """Nothing in a save handles it, as nothing handles a power cut; cheaper than a process that ends."""


def power_cut() -> None:
    raise PowerCut


def save_new_step(folder: Path) -> Path:
    return save_checkpoint(folder, 3, state_of(30), best=True)


def save_same_step(folder: Path) -> Path:
    return save_checkpoint(folder, 2, state_of(30), best=True)


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A run folder with steps 1 and 2 (value 20)."""
    save_checkpoint(tmp_path / "template", 1, state_of(10))
    save_checkpoint(tmp_path / "template", 2, state_of(20))
    return tmp_path / "template"


@pytest.fixture
def only_step(template: Path) -> Path:
    """A run folder with step 2 alone."""
    shutil.rmtree(template / "step_000000001")
    return template


@pytest.mark.parametrize("save", [save_new_step, save_same_step])
@pytest.mark.parametrize("how", ["raises", "exits"])
def test_at_every_system_call_of_a_save_a_failure_leaves_the_old_or_the_new_state(
    save: Callable, how: str, only_step: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(call: int) -> tuple[list[str], Path]:
        folder = only_step.parent / f"{call}"
        shutil.copytree(only_step, folder)
        with monkeypatch.context() as patch:
            seen = fail_at(call, patch, disk_full if how == "raises" else lambda: os._exit(9))
            if call < 0:
                save(folder)
            elif how == "raises":
                with pytest.raises(CheckpointError, match=f"{folder}/step_.*needs [0-9,]+ bytes"):
                    save(folder)
            else:
                assert in_child(lambda: save(folder)) == 9
        return seen, folder

    calls, _ = run(-1)
    assert {"mkdir", "open", "write", "fsync", "rename", "replace"} <= set(calls)
    values = []
    # The first call is the mkdir of the folder itself, which may fail because the folder is there.
    for call in range(1, len(calls)):
        _, folder = run(call)
        steps = {path.name.removesuffix(".replaced") for path in folder.glob("step_*")}
        assert (folder / "last").read_text().strip() in steps, "`last` was moved before its step was there"
        loaded = loaded_from(folder)
        values.append(loaded.state["value"])
        assert loaded.warnings == ()
        assert (folder / "best").exists() == (values[-1] == 30)
        save(folder)
        assert loaded_from(folder).state["value"] == 30
    assert values == sorted(values), "the old state until one moment, the new one from then on"
    assert set(values) == {20, 30}


def test_a_damaged_checkpoint_is_replaced_while_the_one_it_had_replaced_is_the_only_good_one(
    only_step: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(only_step / "step_000000002", only_step / "step_000000002.replaced")
    (only_step / "step_000000002" / "state.json").write_text("[]")
    values = []
    for call in range(40):
        folder = only_step.parent / f"{call}"
        shutil.copytree(only_step, folder)
        with monkeypatch.context() as patch:
            fail_at(call, patch, power_cut)
            with suppress(PowerCut):
                save_same_step(folder)
        values.append(loaded_from(folder).state["value"])
    assert values == sorted(values)
    assert set(values) == {20, 30}


def test_files_then_folder_are_on_the_disk_before_the_step_appears(
    template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, rename, replace = os.fsync, os.rename, os.replace

    def record(name: str, original: Callable, shown: Callable[[Any], str]) -> None:
        def recorded(*arguments: Any) -> None:
            events.append(f"{name} {shown(arguments[0])}")
            original(*arguments)

        monkeypatch.setattr(os, name, recorded)

    record("fsync", fsync, lambda descriptor: Path(f"/proc/self/fd/{descriptor}").resolve().name.split(".tmp")[0])
    record("rename", rename, lambda path: path.name.split(".tmp")[0])
    record("replace", replace, lambda path: path.name.split(".tmp")[0])
    save_checkpoint(template, 3, state_of(30))
    files = ["fsync tensors.safetensors", "fsync state.json", "fsync manifest.json", "fsync step_000000003"]
    pointer = ["fsync last", "replace last", "fsync template"]
    assert events == [*files, "rename step_000000003", "fsync template", *pointer]


def test_a_disk_that_writes_something_else_is_noticed_while_the_old_checkpoint_is_there(
    template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, content: write(descriptor, bytes(len(content))))
        with pytest.raises(CheckpointError, match="reads back differently"):
            save_new_step(template)
    assert steps_in(template) == [1, 2]
    assert loaded_from(template).state["value"] == 20


def test_too_little_free_space_is_noticed_before_anything_is_written(
    template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 12_000, 12_000))
    calls = fail_at(-1, monkeypatch, disk_full)
    with pytest.raises(CheckpointError, match=r"step_000000003 \(No space left on device\): it needs [89],\d+ bytes"):
        save_new_step(template)
    assert not {"write", "rename"} & set(calls)
    assert loaded_from(template).state["value"] == 20


def test_a_file_size_limit_is_a_checkpoint_error_and_the_old_checkpoint_stays(template: Path) -> None:
    def save_with_limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, LIMIT_BYTES))
        save_new_step(template)

    assert in_child(save_with_limit) == 74
    assert not list(template.glob("*.tmp-*"))
    assert loaded_from(template).state["value"] == 20


def test_a_folder_below_a_file_is_a_checkpoint_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="Not a directory"):
        save_new_step(tmp_path / "file" / "run")


def test_the_last_two_and_the_best_are_kept(tmp_path: Path) -> None:
    for step in (5, 999_999_998, 999_999_999, 1_000_000_000, 1_000_000_001):
        save_checkpoint(tmp_path, step, state_of(step % 10**6), best=step == 999_999_998)
    assert steps_in(tmp_path) == [999_999_998, 1_000_000_000, 1_000_000_001]
    assert (tmp_path / "best").read_text() == "step_999999998\n"
    assert loaded_from(tmp_path).step == 1_000_000_001


def test_the_same_step_saved_again_holds_the_new_state(template: Path) -> None:
    for value in (31, 32, 33):
        save_checkpoint(template, 2, state_of(value))
        assert loaded_from(template).state["value"] == value
    assert steps_in(template) == [1, 2]


def test_a_lower_step_is_refused_while_a_newer_one_is_good(template: Path) -> None:
    with pytest.raises(InputError, match=r"step_000000002 is newer than step 1"):
        save_checkpoint(template, 1, state_of(5))
    (template / "step_000000002" / "state.json").unlink()
    save_checkpoint(template, 1, state_of(5))
    assert steps_in(template) == [1]
    with pytest.raises(ValueError, match="counts from 0"):
        save_checkpoint(template, -1, state_of(5))


def test_links_planted_in_the_folder_are_replaced_and_never_followed(template: Path) -> None:
    secret = template.parent / "secret"
    secret.mkdir()
    (secret / "passwords").write_text("mine")
    for name in ("last", "best"):
        (template / name).unlink(missing_ok=True)
        (template / name).symlink_to(secret / "passwords")
        (template / f"{name}.tmp-{os.getpid()}").symlink_to(secret / "passwords")
    (template / f"step_000000003.tmp-{os.getpid()}").symlink_to(secret)
    (template / "step_000000009").symlink_to(secret)
    save_new_step(template)
    assert [(path.name, path.read_text()) for path in secret.iterdir()] == [("passwords", "mine")]
    assert loaded_from(template).step == 3
    assert not (template / "best").is_symlink()


def test_what_others_put_beside_the_checkpoints_stays(template: Path) -> None:
    (template / "notes.tmp-1").write_text("mine")
    (template / "step_000000001 copy").mkdir()
    save_new_step(template)
    assert load_checkpoint(template) is not None
    assert {"notes.tmp-1", "step_000000001 copy"} < {path.name for path in template.iterdir()}


def test_files_honour_the_umask(template: Path) -> None:
    before = os.umask(0o077)
    try:
        path = save_new_step(template)
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in path.iterdir()} == {0o600}
    assert path.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_written_can_still_be_read(template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stray = template / "step_000000003.tmp-1"
    stray.mkdir()
    (template / "last").unlink()
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    loaded = load_checkpoint(template)
    assert loaded is not None
    assert loaded.step == 2
    assert stray.exists()
    assert not (template / "last").exists()
