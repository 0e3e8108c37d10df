"""The commands of a sweep: the file that `wandb sweep` reads, every combination of its values."""

import itertools
import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from search_spaces.errors import InputError, nearest
from search_spaces.plain_json import shown, shown_path

LONGEST_NAME = 150


@dataclass(frozen=True)
class Member:
    """One command."""

    name: str  # of its folder: the words in which members differ
    words: tuple[str, ...]  # name=value


@dataclass(frozen=True)
class Sweep:
    """A sweep file, and words that replace or join its own."""

    program: str  # the file name of the script without its ending
    values: dict[str, list[str]]  # of each parameter, in the order of the file
    more: dict[str, str] = field(default_factory=dict)

    @cached_property
    def members(self) -> tuple[Member, ...]:
        """Every combination."""
        return _members(self.values, self.more)

    def replaced(self, *words: str) -> "Sweep":
        """With words that replace its values, as dataset=digits; others go to every command, and name no folder."""
        return replace(self, more=self.more | _replacing(words))


def read_sweep(path: Path | str) -> Sweep:
    """Read a sweep file of W&B; only `method: grid` needs no server."""
    path = Path(path)
    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{shown_path(path)} cannot be read ({error.strerror}); give the file of a sweep") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{shown_path(path)} is no YAML ({reason}); give the file of a sweep") from None
    wanted = ("program", "method", "parameters")
    if not isinstance(told, dict) or (missing := [name for name in wanted if not told.get(name)]):
        lacks = ", ".join(missing) if isinstance(told, dict) else "a mapping"
        raise InputError(f"{shown_path(path)} has no {lacks}; a sweep file names {', '.join(wanted)}")
    if told["method"] != "grid":
        raise InputError(
            f"{shown_path(path)} has method: {shown(told['method'])}, and what to try next is decided by the server "
            "there; use `wandb sweep` and `wandb agent`, or method: grid"
        )
    values = {str(name): _values(str(name), entry, path) for name, entry in _parameters(told, path).items()}
    sweep = Sweep(Path(str(told["program"])).stem, values)
    _ = sweep.members  # is refused here where two would share a folder
    return sweep


def _parameters(told: dict[str, Any], path: Path) -> dict[Any, Any]:
    parameters = told["parameters"]
    if not isinstance(parameters, dict):
        raise InputError(f"{shown_path(path)} has parameters {shown(parameters)}; give name: {{values: [...]}}")
    return parameters


def _values(name: str, entry: Any, path: Path) -> list[str]:
    """The values of a parameter, as words of a command line hold them."""
    one = isinstance(entry, dict) and set(entry) == {"value"}
    found = [entry["value"]] if one else entry.get("values") if isinstance(entry, dict) else None
    if not isinstance(found, list) or not found or (set(entry) - {"value", "values"}):
        raise InputError(
            f"{shown_path(path)} has parameter {shown(name)}: {shown(entry)}; give value: or values: [...]"
        )
    return [str(value) for value in found]  # as W&B writes them into a command


def _replacing(words: tuple[str, ...]) -> dict[str, str]:
    wrong = next((word for word in words if "=" not in word), None)
    if wrong is not None:
        raise InputError(f"also={wrong} is no setting; {nearest(wrong, ['budget=0.5'])}")
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def _members(values: dict[str, list[str]], more: dict[str, str]) -> tuple[Member, ...]:
    """Every combination; the first parameter changes slowest."""
    values = {name: [more[name]] if name in more else several for name, several in values.items()}
    varied = [name for name, several in values.items() if len(several) > 1]
    found = []
    for chosen in itertools.product(*values.values()):
        words = dict(zip(values, chosen, strict=True))
        name = folder_name([f"{key}={words[key]}" for key in varied or words])
        found.append(Member(name, tuple(f"{key}={value}" for key, value in {**words, **more}.items())))
    names = [member.name for member in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"two members of the sweep would share the folder {twice}; name each value once")
    return tuple(found)


def folder_name(words: list[str]) -> str:
    """Words as the name of a folder that needs no quotes: preset_joint-seeds_0 of preset=joint and seeds=[0]."""
    return re.sub(r"[^\w.@-]+", "", "-".join(words).replace("=", "_"))[:LONGEST_NAME]
