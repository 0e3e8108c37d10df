"""Reads policy files of every supported format: this project's, and published ones."""

from pathlib import Path
from typing import Any, Literal

from search_spaces.errors import InputError
from search_spaces.plain_json import read_json, shown, shown_path
from search_spaces.policy import FORMAT, policy_from_data
from search_spaces.readers.autoalbument import MAX_BYTES, MAX_DEPTH, policy_from_albumentations
from search_spaces.readers.conversion import ImportedPolicy
from search_spaces.readers.deepaa import read_deepaa
from search_spaces.readers.tuples import read_tuples
from search_spaces.schedule import SCHEDULE_FORMAT

FileFormat = Literal["ours", "tuples", "deepaa", "autoalbument"]
SUFFIXES = (".json", ".py", ".txt", ".npz")


def read_policy(path: Path | str, name: str | None = None, skip_unknown: bool = False) -> ImportedPolicy:
    """Read a policy file of any supported format, and list what could only be approximated.

    `name` chooses among the tables of a Python file; `skip_unknown` leaves out the ops that have no counterpart here.
    """
    found, data = recognized(path)
    if found == "tuples":
        return read_tuples(path, name, skip_unknown)
    if name is not None:
        raise InputError(f"policy file {shown_path(path)} holds one policy, but name is {shown(name)}; leave name out")
    if found == "deepaa":
        return read_deepaa(path, skip_unknown)
    where = f"policy file {shown_path(path)}"
    if found == "autoalbument":
        return policy_from_albumentations(data, where, Path(path).stem, skip_unknown)
    return ImportedPolicy(policy_from_data(data, where), ())


def recognized(path: Path | str) -> tuple[FileFormat, Any]:
    """The format of a file, by its suffix or for JSON by its content, and the parsed JSON."""
    suffix = Path(path).suffix.lower()
    if suffix == ".json":
        data = read_json(path, "policy", MAX_BYTES, MAX_DEPTH)
        if isinstance(data, list):
            return "tuples", data
        if isinstance(data, dict) and "transform" in data:
            return "autoalbument", data
        if isinstance(data, dict) and data.get("format") in (FORMAT, SCHEDULE_FORMAT):
            return "ours", data
        raise InputError(
            f"policy file {shown_path(path)} is {shown(data)}; wanted a policy (format: {FORMAT!r}), a "
            "pipeline of AutoAlbument (transform: ...) or a list of (op, probability, level) rows"
        )
    if suffix not in SUFFIXES:
        raise InputError(f"policy file {shown_path(path)} has the suffix {shown(suffix)}; wanted one of {SUFFIXES}")
    return ("deepaa" if suffix == ".npz" else "tuples"), None
