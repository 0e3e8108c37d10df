"""One checkpoint folder: the files of one step and a manifest that vouches for every byte of them."""

import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

from jointsearch.runs.run_folder import sync_folder, write_new_file
from search_spaces.errors import InputError
from search_spaces.plain_json import read_json

SCHEMA_VERSION = 1
TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
MANIFEST_FIELDS = {
    "schema_version": int,
    "step": int,
    "best": bool,
    "torch": str,
    "python": str,
    "threads": int,
    "files": dict,
}


class Damage(ValueError):
    """Why a checkpoint folder cannot be trusted."""


def with_manifest(files: dict[str, bytes], step: int, best: bool) -> dict[str, bytes]:
    """The files and the manifest that describes them, the manifest last."""
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "step": step,
        "best": best,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "files": {name: _fingerprint(content) for name, content in files.items()},
    }
    return {**files, MANIFEST: _manifest_bytes(manifest)}


def _fingerprint(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _manifest_bytes(manifest: dict[str, Any]) -> bytes:
    # The manifest carries its own digest: a flipped bit in it must not pass for another thread count or version.
    digest = hashlib.sha256(json.dumps(manifest).encode()).hexdigest()
    return (json.dumps({"manifest": manifest, "sha256": digest}, indent=2) + "\n").encode()


def write_folder(folder: Path, files: dict[str, bytes]) -> None:
    """Make the folder with these files, in their order, and return when all of it is on the disk and reads back."""
    os.mkdir(folder)
    for name, content in files.items():
        write_new_file(folder / name, content)
    sync_folder(folder)
    if any((folder / name).read_bytes() != content for name, content in files.items()):
        raise OSError("what was written reads back differently")


def read_folder(folder: Path, step: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The manifest and the bytes of the files it vouches for; Damage says what is wrong."""
    try:
        return _read_folder(folder, step)
    except OSError as error:
        # A bad sector is read as an input/output error: damage like any other, and an older step may be whole.
        raise Damage(str(error.strerror)) from None


def _read_folder(folder: Path, step: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    wanted = {TENSORS, STATE, MANIFEST}
    present = {entry.name: entry.is_file(follow_symlinks=False) for entry in os.scandir(folder)}
    if present.keys() != wanted or not all(present.values()):
        raise Damage(f"it holds {sorted(present)[:5]!a}, wanted the files {sorted(wanted)}")
    manifest = _read_manifest(folder / MANIFEST)
    if manifest["step"] != step:
        raise Damage(f"its manifest is of step {manifest['step']}")
    files = {name: (folder / name).read_bytes() for name in (TENSORS, STATE)}
    for name, content in files.items():
        if manifest["files"].get(name) != _fingerprint(content):
            raise Damage(f"{name} has not the length or SHA-256 of its manifest")
    return manifest, files


def is_good(folder: Path, step: int) -> bool:
    """Whether the folder is a whole checkpoint of this step."""
    try:
        read_folder(folder, step)
    except Damage:
        return False
    return True


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path, "checkpoint manifest")
    except InputError as error:
        raise Damage(str(error)) from None
    manifest = content.get("manifest") if isinstance(content, dict) else None
    if not isinstance(manifest, dict) or path.read_bytes() != _manifest_bytes(manifest):
        raise Damage(f"{MANIFEST} does not match its own SHA-256")
    version = manifest.get("schema_version")
    if type(version) is int and version > SCHEMA_VERSION:
        raise InputError(
            f"checkpoint {path.parent} has schema version {version}, this program reads up to {SCHEMA_VERSION}; "
            "resume it with the newer jointsearch that wrote it"
        )
    if version != SCHEMA_VERSION or {key: type(value) for key, value in manifest.items()} != MANIFEST_FIELDS:
        raise Damage(f"{MANIFEST} is not of schema version {SCHEMA_VERSION}")
    return manifest
