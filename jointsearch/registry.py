"""The choices of every group: those of our YAML files, and what user code adds. Ops are added by register_op."""

import hashlib
import importlib.util
import sys
import warnings
from dataclasses import is_dataclass
from functools import cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Protocol

from jointsearch.data.datasets import DataSettings
from jointsearch.data.object_datasets import ObjectSettings
from jointsearch.estimators.draw import EstimatorSettings
from jointsearch.jobs import PopulationSettings
from jointsearch.protocols import SearcherSettings
from jointsearch.search_kinds import SearchKind
from jointsearch.settings import lacks, register
from search_spaces.errors import InputError, nearest
from search_spaces.plain_json import shown_path
from search_spaces.policy import Policy

PLUGIN_MODULE = "jointsearch_plugin_"  # begins the names of modules that were read from plugins

CONFIGS = Path(__file__).resolve().parent / "configs"
SWEEPS = CONFIGS / "sweep"  # files for `wandb sweep`, and no group of choices


class PolicySpace(Protocol):
    """What a searcher searches; one of user code may read more of it."""

    def policy(self) -> Policy:
        """The starting policy."""


choices: dict[str, dict[str, type]] = {}  # of each group, what user code added, by name

# The groups that user code may add to, and the interface of what stands there, or those of which it has one.
INTERFACES: dict[str, tuple[type, ...]] = {
    "dataset": (DataSettings, ObjectSettings),
    "estimator": (EstimatorSettings,),
    "policy_space": (PolicySpace,),
    "search": (SearchKind,),
    "searcher": (SearcherSettings, PopulationSettings),
}


def groups() -> dict[str, list[str]]:
    """Every group of choices, with those that user code added."""
    found = {path.name: built_in(path.name) for path in CONFIGS.iterdir() if path.is_dir() and path != SWEEPS}
    return {name: [*members, *choices.get(name, [])] for name, members in sorted(found.items())}


@cache
def built_in(group: str) -> tuple[str, ...]:
    """The choices of a group that come with the project."""
    return tuple(sorted(file.stem for file in (CONFIGS / group).glob("*.yaml")))


def register_choice(group: str, name: str, cls: type) -> type:
    """Make a settings class known as group=name: a searcher, an estimator or a dataset of user code.

    register_choice("searcher", "mine", MySearch) lets the command line say searcher=mine.
    """
    call = f"register_choice({group!r}, {name!r}, {getattr(cls, '__name__', cls)})"
    if group not in INTERFACES:
        raise InputError(f"{call}: there is no group {group!r} to add to; {nearest(group, INTERFACES)}")
    if name in built_in(group):
        raise InputError(f"{call}: {group}={name} is there already; give yours another name")
    if not (isinstance(cls, type) and is_dataclass(cls)):
        raise InputError(f"{call}: its settings are no dataclass; write @dataclass(frozen=True) before the class")
    missing, interface = interface_of(group, cls)
    if missing:
        raise InputError(f"{call}: the class has no {', '.join(missing)}; add it, as {interface.__name__} says")
    register(f"plugin:{group}:{name}", cls)
    choices.setdefault(group, {})[name] = cls
    return cls


def interface_of(group: str, cls: type) -> tuple[list[str], type]:
    """The interface of a group that a class has, else the first one; and what it lacks of it."""
    interfaces = INTERFACES[group]
    interface = next((one for one in interfaces if not lacks(cls, one)), interfaces[0])
    return lacks(cls, interface), interface


class FromSource(SourceFileLoader):
    """Reads the source alone: what Python compiled before may be of a file that was edited within the same second."""

    def get_code(self, fullname: str) -> CodeType:
        """The code of the file as it is now; nothing is written beside it."""
        return self.source_to_code(self.get_data(self.path), self.path)


def load_plugin(path: str) -> None:
    """Run a Python file that the user named; it registers what it adds. One that was edited since is run again."""
    file = Path(path)
    if file.suffix != ".py" or not file.is_file():
        raise InputError(f"plugin {shown_path(file)} is not a Python file; give the path of one, as in plugins=[my.py]")
    name = f"{PLUGIN_MODULE}{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:12]}"
    content = file.read_bytes()
    before = sys.modules.get(name)
    if before is not None and vars(before).get("__content__") == content:
        return
    spec = importlib.util.spec_from_file_location(name, file, loader=FromSource(name, str(file)))
    if spec is None or spec.loader is None:
        raise InputError(f"plugin {shown_path(file)} cannot be imported; give a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with warnings.catch_warnings():
            if before is not None:  # timm's, about networks that the file registers once more
                warnings.filterwarnings("ignore", "Overwriting .* in registry")
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"plugin {shown_path(file)} failed ({reason}); repair it") from error
    vars(module)["__content__"] = content
