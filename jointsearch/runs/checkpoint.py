"""Whole-run checkpoints: written atomically, verified by length and SHA-256, read back as plain data only.

A checkpoint is a folder `step_000000123` with tensors.safetensors, state.json (one row per entry of the state) and
manifest.json (what the other two must be, and where they were written). Beside the folders stand two one-line files,
`last` and `best`, that name one of them.
"""

import errno
import os
import random
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jointsearch.runs.plain_state import decode_state, encode_state
from jointsearch.runs.run_folder import replace_file, sync_folder
from jointsearch.runs.verified_folder import STATE, TENSORS, Damage, is_good, read_folder, with_manifest, write_folder
from search_spaces.errors import InputError

_STEP_FOLDER = re.compile(r"step_(\d{9,18})(\.replaced)?")
_TEMPORARY = re.compile(r"(step_\d{9,18}|last|best)\.tmp-\d+")


class CheckpointError(OSError):
    """A checkpoint could not be written (disk full, ...); the one before is intact. Scripts exit with code 74."""


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A verified checkpoint; `warnings` names damaged newer ones and a different torch version."""

    step: int
    state: dict[str, Any]
    path: Path
    warnings: tuple[str, ...]


# ---------------------------------------------------------------------------------------------------------- saving


def save_checkpoint(folder: Path, step: int, state: dict, best: bool = False) -> Path:
    """Write `state` (nested dict, list, tuple of tensors, numbers, strings, None) as `folder/step_<step>`.

    At every moment a crash leaves a loadable checkpoint. Keeps this one, the one before and the best.
    """
    if not 0 <= step < 10**18:
        raise ValueError(f"step is {step}; it counts from 0")
    files = with_manifest(dict(zip((TENSORS, STATE), encode_state(state), strict=True)), step, best)
    needed = sum(map(len, files.values()))
    target = folder / f"step_{step:09d}"
    temporary = folder / f"{target.name}.tmp-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_temporary(folder)
        _refuse_to_go_back(folder, step)
        if shutil.disk_usage(folder).free < 2 * needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_folder(temporary, files)
        _publish(temporary, target, step)
        _point(folder, "last", target.name)
        if best:
            _point(folder, "best", target.name)
        _remove_older(folder, target.name, step)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(
            f"cannot save checkpoint {target} ({error.strerror or error}): it needs {needed:,} bytes, and as much "
            "again to be safe; free some space or choose another folder, then resume from the checkpoint before it"
        ) from error
    return target


def _remove_temporary(folder: Path) -> None:
    for path in folder.iterdir():
        if _TEMPORARY.fullmatch(path.name):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _refuse_to_go_back(folder: Path, step: int) -> None:
    # load_checkpoint returns the newest good step, so a lower one would be written in vain.
    newer = [path for found, path in _candidates(folder) if found > step and is_good(path, found)]
    if newer:
        raise InputError(f"{newer[0]} is newer than step {step}; resume from it, or use another folder")


def _publish(temporary: Path, target: Path, step: int) -> None:
    # A rename cannot replace a folder that has files. An earlier save of the same step steps aside, under a name that
    # load_checkpoint also reads; a damaged one has nothing to keep.
    replaced = target.with_name(f"{target.name}.replaced")
    if target.exists() and is_good(target, step):
        if replaced.exists():
            shutil.rmtree(replaced)
        os.rename(target, replaced)
    elif target.exists():
        shutil.rmtree(target)
    os.rename(temporary, target)
    sync_folder(target.parent)


def _point(folder: Path, pointer: str, name: str) -> None:
    if _pointed(folder, pointer) != name:
        replace_file(folder / pointer, f"{name}\n".encode())


def _pointed(folder: Path, pointer: str) -> str | None:
    path = folder / pointer
    if not path.is_file():
        return None
    with path.open("rb") as stream:
        return stream.read(100).decode(errors="replace").strip()


def _remove_older(folder: Path, name: str, step: int) -> None:
    candidates = _candidates(folder)
    keep = {name, *[path.name for found, path in candidates if found < step][:1], _pointed(folder, "best")}
    for _, path in candidates:
        if path.name not in keep:
            shutil.rmtree(path)


# --------------------------------------------------------------------------------------------------------- loading


def load_checkpoint(folder: Path, allow_nonidentical: bool = False) -> LoadedCheckpoint | None:
    """The newest checkpoint in `folder` that verifies; None if there is none at all, InputError if all are damaged.

    Another thread count gives other bits, so it is an InputError unless `allow_nonidentical`.
    """
    if not folder.is_dir():
        return None
    # An old run may be read from where nothing can be written.
    writable = os.access(folder, os.W_OK)
    if writable:
        _remove_temporary(folder)
    damaged: list[str] = []
    for step, path in _candidates(folder):
        try:
            manifest, files = read_folder(path, step)
            state = _decode(files)
        except Damage as damage:
            damaged.append(f"checkpoint {path} is damaged ({damage})")
            continue
        older = [f"{text}; using an older one" for text in damaged]
        warnings = (*older, *_differences(path, manifest, allow_nonidentical))
        # A crash between the rename and a pointer would otherwise lose the best step for good.
        for pointer in ("last", "best") if manifest["best"] else ("last",):
            if writable:
                _point(folder, pointer, path.name)
        return LoadedCheckpoint(step, state, path, warnings)
    if damaged:
        raise InputError(f"{damaged[0]}, and no older one is good; restore {folder} from a copy, or start a new run")
    return None


def _candidates(folder: Path) -> list[tuple[int, Path]]:
    """Step folders, newest first; one that stepped aside comes after the one that replaced it."""
    found = []
    for path in folder.iterdir():
        match = _STEP_FOLDER.fullmatch(path.name)
        if match and path.is_dir() and not path.is_symlink():
            found.append((int(match[1]), match[2] is None, path))
    return [(step, path) for step, _, path in sorted(found, reverse=True)]


def _decode(files: dict[str, bytes]) -> dict[str, Any]:
    try:
        return decode_state(files[TENSORS], files[STATE])
    except InputError as error:
        raise Damage(str(error)) from None


def _differences(path: Path, manifest: dict[str, Any], allow_nonidentical: bool) -> list[str]:
    warnings = []
    if manifest["torch"] != str(torch.__version__):
        warnings.append(
            f"checkpoint {path} was written by torch {manifest['torch']}, this is {torch.__version__}; "
            "the run may not end bit-identical"
        )
    threads = torch.get_num_threads()
    if manifest["threads"] != threads:
        difference = f"checkpoint {path} was written with {manifest['threads']} torch threads, this run has {threads}"
        if not allow_nonidentical:
            raise InputError(
                f"{difference}, which changes the result's bits; set OMP_NUM_THREADS={manifest['threads']} or call "
                f"torch.set_num_threads({manifest['threads']}), or begin in another folder"
            )
        warnings.append(f"{difference}; the run may not end bit-identical")
    return warnings


# ------------------------------------------------------------------------------------------------------ generators


def generator_states(named: dict[str, torch.Generator]) -> dict[str, Any]:
    """Where every random generator stands: Python's, NumPy's and torch's global ones, and the named ones."""
    version, words, gauss = random.getstate()
    legacy: Any = np.random.get_state(legacy=False)  # noqa: NPY002  the libraries we call draw from this one
    # Not is_available(): a run that never used CUDA must not start it here.
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {
        "python": {"version": version, "words": torch.tensor(words), "gauss": gauss},
        "numpy": {
            "words": torch.from_numpy(legacy["state"]["key"].astype(np.int64)),
            "position": int(legacy["state"]["pos"]),
            "has_gauss": int(legacy["has_gauss"]),
            "gauss": float(legacy["gauss"]),
        },
        "torch": torch.get_rng_state(),
        "cuda": cuda,
        "named": {name: generator.get_state() for name, generator in named.items()},
    }


def restore_generator_states(state: dict[str, Any], named: dict[str, torch.Generator]) -> None:
    """Put every generator back where generator_states found it; InputError if this run has other generators."""
    devices = torch.cuda.device_count() if state["cuda"] else 0
    if state["named"].keys() != named.keys() or len(state["cuda"]) != devices:
        raise InputError(
            f"the checkpoint has the generators {sorted(state['named'])} and {len(state['cuda'])} CUDA devices, this "
            f"run has {sorted(named)} and {devices}; resume with the settings and on the machine type it began with"
        )
    for name, generator in named.items():
        if state["named"][name].shape != generator.get_state().shape:
            raise InputError(f"generator {name} is now on {generator.device}; resume on the device the run began with")
        generator.set_state(state["named"][name])
    python, legacy = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    words = legacy["words"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", words, legacy["position"], legacy["has_gauss"], legacy["gauss"]))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
