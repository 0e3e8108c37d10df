"""What stands in the YAML files of `configs/`: which choices a command has, and what each of them sets."""

import re
from copy import deepcopy
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from jointsearch import registry
from jointsearch.registry import CONFIGS, built_in
from jointsearch.settings import TARGET, leaves, target_class

NOT_FOR_ALL = ("preset", "experiment", "dataset")  # groups of which a command has some choices only

# What a command wants of a data set, where that is not images with classes.
READS = {"detect": ("find_objects",), "check_data": ("find", "find_objects"), "report": ("find", "find_objects")}


@cache
def _read(path: Path) -> dict[str, Any]:
    """A YAML file of ours, read once; whoever changes it takes a copy."""
    read: Any = OmegaConf.to_container(OmegaConf.load(path))
    return read or {}


def content(path: Path) -> dict[str, Any]:
    """The settings of a YAML file, with those of the files that it is built on."""
    own = deepcopy(_read(path))
    bases = [entry for entry in own.pop("defaults", []) if isinstance(entry, str) and entry != "_self_"]
    return {key: value for base in bases for key, value in content(path.with_stem(base)).items()} | own


def chosen(path: Path) -> dict[str, str]:
    """The choices that a preset makes, also those of the files that it is built on."""
    found: dict[str, str] = {}
    for entry in _read(path).get("defaults", []):
        if isinstance(entry, dict):
            found |= {name.rpartition("/")[2].partition("@")[0]: value for name, value in entry.items()}
        elif entry != "_self_":
            found = chosen(path.with_stem(entry)) | found
    return found


def class_of(group: str, choice: str) -> type | None:
    """The settings class of a choice, where it has one of its own."""
    if choice in registry.choices.get(group, {}):
        return registry.choices[group][choice]
    whole = content(CONFIGS / group / f"{choice}.yaml")
    target = (whole.get(group) or whole).get(TARGET)
    return target_class(target) if target else None


def readers(name: str) -> str:
    """The choices of search and searcher that read a setting."""
    found = [
        f"{group}={choice}"
        for group in ("search", "searcher")
        for choice in built_in(group)
        if name in names_of(class_of(group, choice))
    ]
    return ", ".join(found)


def names_of(cls: Any) -> list[str]:
    """The fields of a settings class."""
    return [item.name for item in fields(cls)]


def used_groups(config_name: str) -> set[str]:
    """The groups that a command has."""
    return {name for name, _ in defaults_of(config_name)}


def may_be_null(config_name: str) -> set[str]:
    """The groups of a command of which nothing needs to be chosen."""
    return {name for name, value in defaults_of(config_name) if value is None}


def defaults_of(config_name: str) -> list[tuple[str, Any]]:
    """The groups of a command, each with what is chosen where the user says nothing."""
    whole = _read(CONFIGS / f"{config_name}.yaml")
    entries = [entry for entry in whole.get("defaults", []) if isinstance(entry, dict)]
    return [(name.split()[-1], value) for entry in entries for name, value in entry.items()]


def scripts_with(group: str) -> list[str]:
    """The commands that have a group."""
    return [path.stem for path in sorted(CONFIGS.glob("*.yaml")) if group in used_groups(path.stem)]


def fits(group: str, name: str, config_name: str) -> bool:
    """Whether a choice is meant for a command; a preset or experiment is, where its first line has that command."""
    if group == "dataset":
        needed = READS.get(config_name, ("find",))
        return any(hasattr(class_of(group, name), method) for method in needed)
    text = (CONFIGS / group / f"{name}.yaml").read_text(encoding="utf-8")
    first = re.search(r"^# python scripts/(\w+)[.]py", text, re.MULTILINE)
    return first is not None and first[1] == config_name


def offered(group: str, config_name: str) -> list[str]:
    """The choices of a group that a command has."""
    names = registry.groups().get(group, [])
    return [name for name in names if fits(group, name, config_name)] if group in NOT_FOR_ALL else names


def yaml_of(word: str) -> Path:
    """The file of a choice, group=name."""
    return CONFIGS / f"{word.replace('=', '/')}.yaml"


def brought_by(word: str, dataset: str | None) -> frozenset[str]:
    """The dotted names that a preset or experiment sets on a data set, and the groups that it chooses from."""
    files = yaml_of(word), yaml_of(f"specialized={word.partition('=')[2]}_{dataset}")
    there = [file for file in files if file.is_file()]
    return frozenset(name for file in there for name in [*(leaf for leaf, _ in leaves(content(file))), *chosen(file)])
