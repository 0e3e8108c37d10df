"""A checkpoint is whole or not there, comes back bit for bit, and never runs code."""

import errno
import hashlib
import json
import math
import os
import pickle
import random
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from jointsearch.runs import verified_folder
from jointsearch.runs.checkpoint import generator_states, load_checkpoint, restore_generator_states, save_checkpoint
from jointsearch.runs.plain_state import DTYPES, decode_state, encode_state
from jointsearch.runs.verified_folder import MANIFEST, STATE, TENSORS, with_manifest
from search_spaces.errors import InputError

FILES = (TENSORS, STATE, MANIFEST)


def state_of(step: int) -> dict[str, Any]:
    return {"step": step, "weights": torch.arange(6.0).reshape(2, 3) + step, "optimizer": {"state": {0: {"lr": 0.1}}}}


def assert_same(found: Any, wanted: Any) -> None:
    """Same nesting, same types, same bits."""
    if isinstance(wanted, Tensor):
        assert isinstance(found, Tensor)
        assert (found.dtype, found.shape, found.device.type) == (wanted.dtype, wanted.shape, "cpu")
        copies = [torch.empty(wanted.shape, dtype=wanted.dtype).copy_(value.detach()) for value in (found, wanted)]
        assert torch.equal(*(copy.reshape(-1).view(torch.uint8) for copy in copies))
    elif isinstance(wanted, dict):
        assert type(found) is dict
        assert [(type(key), key) for key in found] == [(type(key), key) for key in wanted]
        for key in wanted:
            assert_same(found[key], wanted[key])
    elif isinstance(wanted, list | tuple):
        assert type(found) is type(wanted)
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_same(one, other)
    elif isinstance(wanted, float):
        assert struct.pack("d", found) == struct.pack("d", wanted)
    else:
        assert (type(found), found) == (type(wanted), wanted)


@pytest.fixture
def two_steps(tmp_path: Path) -> Path:
    for step in (1, 2):
        save_checkpoint(tmp_path / "run", step, state_of(step))
    return tmp_path / "run"


def assert_falls_back_to_step_1(folder: Path) -> None:
    loaded = load_checkpoint(folder)
    assert loaded is not None
    assert loaded.step == 1
    assert_same(loaded.state, state_of(1))
    assert len(loaded.warnings) == 1
    assert str(folder / "step_000000002") in loaded.warnings[0]


# ------------------------------------------------------------------------------------------------------- round trip


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    shape = draw(st.sampled_from([(), (0,), (0, 3), (1,), (3,), (2, 3), (2, 1, 3)]))
    dtype = draw(st.sampled_from(sorted(DTYPES, key=str)))
    seed = draw(st.integers(0, 1000))
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).mul(5).to(dtype)
    change = draw(st.sampled_from(["none", "transposed", "strided", "expanded", "parameter"]))
    if change == "transposed":
        return tensor.movedim(0, -1) if tensor.dim() else tensor
    if change == "strided":
        return tensor[..., ::2] if tensor.dim() else tensor
    if change == "expanded":
        return tensor.unsqueeze(0).expand(3, *shape)
    return torch.nn.Parameter(tensor) if change == "parameter" and tensor.is_floating_point() else tensor


plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=())),
    tensors(),
)
keys = st.one_of(st.text(max_size=5), st.integers(-(2**63), 2**63))
nested = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.dictionaries(keys, inner, max_size=4), st.lists(inner, max_size=4), st.lists(inner, max_size=4).map(tuple)
    ),
    max_leaves=12,
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.dictionaries(keys, nested, max_size=5))
def test_every_state_of_plain_parts_comes_back_with_the_same_types_and_bits(state: dict) -> None:
    assert_same(decode_state(*encode_state(state)), state)


def test_tensors_that_share_storage_come_back_with_their_own_values(tmp_path: Path) -> None:
    base = torch.arange(12.0)
    imaginary = torch.complex(torch.zeros(3), torch.arange(3.0)).conj().imag  # a view that only pretends to be negated
    state = {"whole": base, "tied": base, "part": base[3:7], "column": base.view(3, 4)[:, 1], "negated": imaginary}
    save_checkpoint(tmp_path, 7, state)
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert_same(loaded.state, state)
    loaded.state["part"].zero_()
    assert_same(loaded.state["whole"], torch.arange(12.0))


@pytest.mark.parametrize("name", ["with space", "ünïcode 数据", "x" * 255])
def test_the_folder_may_have_any_name_and_be_relative(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    path = save_checkpoint(Path(name), 3, state_of(3))
    loaded = load_checkpoint(tmp_path / name)
    assert loaded is not None
    assert (loaded.path, (tmp_path / name / "last").read_text()) == (tmp_path / path, "step_000000003\n")


def test_training_resumed_from_disk_ends_with_the_same_bits(tmp_path: Path) -> None:
    def fresh() -> tuple[torch.nn.Module, torch.optim.Optimizer, torch.Generator]:
        noise = torch.Generator().manual_seed(5)
        model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
        with torch.no_grad():
            for weight in model.parameters():
                weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
        return model, torch.optim.Adam(model.parameters(), lr=0.1, amsgrad=True), noise

    def train(parts: tuple, steps: int) -> None:
        model, optimizer, noise = parts
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.randn(8, 4, generator=noise)).square().sum().backward()
            optimizer.step()

    unbroken = fresh()
    train(unbroken, 3)
    state = {"model": unbroken[0].state_dict(), "optimizer": unbroken[1].state_dict()}
    save_checkpoint(tmp_path, 3, {**state, "generators": generator_states({"noise": unbroken[2]})})
    train(unbroken, 3)
    resumed = fresh()
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    resumed[0].load_state_dict(loaded.state["model"])
    resumed[1].load_state_dict(loaded.state["optimizer"])
    restore_generator_states(loaded.state["generators"], {"noise": resumed[2]})
    train(resumed, 3)
    for part in (0, 1):
        assert_same(dict(resumed[part].state_dict()), dict(unbroken[part].state_dict()))


# ---------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "bad",
    [math.nan, -math.inf, torch.tensor([1, math.nan]), torch.tensor([1, math.inf], dtype=torch.bfloat16)],
    ids=str,
)
def test_a_state_that_is_not_finite_is_never_saved(bad: Any, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match=r"state\['model'\]\[1\]"):
        save_checkpoint(tmp_path, 1, {"model": [0.0, bad]})
    assert load_checkpoint(tmp_path) is None


@pytest.mark.parametrize(
    "bad",
    [
        np.float32(1),
        np.zeros(2),
        Path("x"),
        {1, 2},
        b"x",
        1j,
        2**64,
        torch.Size([1]),
        torch.zeros(2).to_sparse(),
        torch.zeros(2, dtype=torch.complex64),
        {1.5: "float key"},
        {True: "bool key"},
        print,
    ],
    ids=lambda bad: type(bad).__name__,
)
def test_anything_but_plain_parts_is_refused_by_the_name_of_its_entry(bad: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"^state\['model'\]\[1\] "):
        save_checkpoint(tmp_path, 1, {"model": [0, bad]})
    assert list(tmp_path.iterdir()) == []


class Gadget:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("name", [TENSORS, STATE])
@pytest.mark.parametrize("vouched", [False, True])
def test_a_pickle_renamed_into_place_is_refused_and_not_run(
    name: str, vouched: bool, two_steps: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(two_steps.parent)
    newest = two_steps / "step_000000002"
    files = {file: (newest / file).read_bytes() for file in (TENSORS, STATE)} | {name: pickle.dumps(Gadget())}
    for file, content in (with_manifest(files, 2, False) if vouched else files).items():
        (newest / file).write_bytes(content)
    assert_falls_back_to_step_1(two_steps)
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    "rows",
    [
        "",
        "[]",
        "{}",
        "null",
        "7",
        "[" * 100_000,
        '[[[], "dict"], [["a"], "value", NaN]]',
        '[[[], "list"]]',
        '[[[], "dict"], [["a"], "tensor"]]',
        '[[[], "dict"], [["a"], "code", 1]]',
        '[[[], "dict"], [["a"], ["dict"]]]',
        '[[[], "dict"], [["a"]]]',
        '[[[], "dict"], [[1.5], "dict"]]',
        '[[[], "dict"], [["a", "b"], "dict"]]',
        '[[[], "dict"], [["a"], "value", 1], [["a", 0], "value", 1]]',
        '[[["a"], "dict"], [[], "dict"]]',
        '[[[], "dict"], [[], "dict"]]',
    ],
    ids=lambda rows: rows[:50],
)
def test_rows_that_are_no_state_are_one_clean_error(rows: str) -> None:
    with pytest.raises(InputError):
        decode_state(safetensors.torch.save({}), rows.encode())


def test_a_tensor_that_no_row_names_is_an_error() -> None:
    with pytest.raises(InputError, match="do not describe one state"):
        decode_state(safetensors.torch.save({'["a"]': torch.zeros(1)}), b'[[[], "dict"]]')


# ------------------------------------------------------------------------------------------------------------ damage


@pytest.mark.parametrize("name", FILES)
def test_a_bit_flipped_anywhere_is_found_200_times_of_200(name: str, two_steps: Path) -> None:
    file = two_steps / "step_000000002" / name
    content = file.read_bytes()
    chance = random.Random(name)
    for _ in range(200):
        place, bit = chance.randrange(len(content)), chance.randrange(8)
        file.write_bytes(content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :])
        assert_falls_back_to_step_1(two_steps)
    file.write_bytes(content)
    loaded = load_checkpoint(two_steps)
    assert loaded is not None
    assert (loaded.step, loaded.warnings) == (2, ())


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("fraction", [0, 0.01, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_found(name: str, fraction: float, two_steps: Path) -> None:
    file = two_steps / "step_000000002" / name
    os.truncate(file, int(file.stat().st_size * fraction))
    assert_falls_back_to_step_1(two_steps)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_or_linked_file_is_found(name: str, two_steps: Path) -> None:
    file = two_steps / "step_000000002" / name
    aside = file.rename(two_steps / name)
    assert_falls_back_to_step_1(two_steps)
    file.symlink_to(aside)
    assert_falls_back_to_step_1(two_steps)


def test_an_extra_file_or_a_renamed_step_is_found(two_steps: Path) -> None:
    extra = two_steps / "step_000000002" / "model.pt"
    extra.touch()
    assert_falls_back_to_step_1(two_steps)
    extra.unlink()
    shutil.rmtree(two_steps / "step_000000002")
    shutil.copytree(two_steps / "step_000000001", two_steps / "step_000000002")
    assert_falls_back_to_step_1(two_steps)


def test_a_disk_that_cannot_read_a_file_is_damage_like_any_other(two_steps: Path, monkeypatch: Any) -> None:
    original = Path.read_bytes

    def read(path: Path) -> bytes:
        if path == two_steps / "step_000000002" / TENSORS:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return original(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    assert_falls_back_to_step_1(two_steps)


@pytest.mark.parametrize(
    "change",
    [{"best": "yes"}, {"threads": None}, {"step": "2"}, {"files": []}, {"schema_version": 0}, {"extra": 1}],
    ids=str,
)
def test_a_manifest_of_other_fields_is_refused_even_with_a_right_digest(change: dict, two_steps: Path) -> None:
    path = two_steps / "step_000000002" / MANIFEST
    manifest = json.loads(path.read_text())["manifest"] | change
    digest = hashlib.sha256(json.dumps(manifest).encode()).hexdigest()
    path.write_text(json.dumps({"manifest": manifest, "sha256": digest}, indent=2) + "\n")
    assert_falls_back_to_step_1(two_steps)


def test_a_future_schema_version_is_an_error_that_names_both_versions(two_steps: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(verified_folder, "SCHEMA_VERSION", 8)
    save_checkpoint(two_steps, 3, state_of(3))
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"step_000000003 has schema version 8, .* up to 1; .*newer"):
        load_checkpoint(two_steps)


def test_nothing_is_none_and_only_damage_is_an_error(two_steps: Path) -> None:
    assert load_checkpoint(two_steps / "absent") is None
    for step in two_steps.glob("step_*"):
        (step / STATE).write_text("[]")
    with pytest.raises(InputError, match=r"step_000000002 is damaged \(state.json .*restore"):
        load_checkpoint(two_steps)


def test_another_thread_count_is_an_error_unless_allowed(two_steps: Path, monkeypatch: Any) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    with pytest.raises(InputError, match=f"OMP_NUM_THREADS={threads} .*set_num_threads"):
        load_checkpoint(two_steps)
    loaded = load_checkpoint(two_steps, allow_nonidentical=True)
    assert loaded is not None
    assert loaded.step == 2
    assert "threads" in loaded.warnings[0]


def test_another_torch_version_is_a_warning(two_steps: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    loaded = load_checkpoint(two_steps)
    assert loaded is not None
    assert "9.9.9" in loaded.warnings[0]


# -------------------------------------------------------------------------------------------------------- generators


def draws(noise: torch.Generator) -> list[float]:
    """One draw of each: Python's gauss and NumPy's normal keep a second value back, which is state as well."""
    ours = [random.random(), random.gauss(0, 1), torch.rand(()).item(), torch.rand((), generator=noise).item()]
    return [*ours, np.random.rand(), np.random.normal()]  # noqa: NPY002  the global generator is the one under test


def test_every_generator_draws_on_from_where_it_was_saved(tmp_path: Path) -> None:
    before = generator_states({})
    noise = torch.Generator().manual_seed(9)
    draws(noise)
    save_checkpoint(tmp_path, 1, generator_states({"noise": noise}))
    wanted = draws(noise) + draws(noise)
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    fresh = torch.Generator()
    restore_generator_states(loaded.state, {"noise": fresh})
    assert draws(fresh) + draws(fresh) == wanted
    restore_generator_states(before, {})


def test_other_generators_than_the_saved_ones_are_an_error() -> None:
    state = generator_states({"noise": torch.Generator()})
    with pytest.raises(InputError, match=r"\['noise'\].* \['order'\]"):
        restore_generator_states(state, {"order": torch.Generator()})
    state["named"]["noise"] = state["named"]["noise"][:16]  # as long as the state of a CUDA generator
    with pytest.raises(InputError, match="generator noise is now on cpu"):
        restore_generator_states(state, {"noise": torch.Generator()})
