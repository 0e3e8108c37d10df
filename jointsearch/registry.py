"""What user code adds: choices of the command line, by name. Ops are added by search_spaces.register_op."""

import hashlib
import importlib.util
import sys
from pathlib import Path

from jointsearch.settings import register
from search_spaces.errors import InputError
from search_spaces.plain_json import shown_path

choices: dict[str, list[str]] = {}  # of each group, the names that user code added


def register_choice(group: str, name: str, cls: type) -> type:
    """Make a settings class known as group=name: a searcher, an estimator or a dataset of user code.

    register_choice("searcher", "mine", MySearch) lets the command line say searcher=mine.
    """
    register(f"plugin:{group}:{name}", cls)
    if name not in choices.setdefault(group, []):
        choices[group].append(name)
    return cls


def load_plugin(path: str) -> None:
    """Run a Python file that the user named; it registers what it adds."""
    file = Path(path)
    if file.suffix != ".py" or not file.is_file():
        raise InputError(f"plugin {shown_path(file)} is not a Python file; give the path of one, as in plugins=[my.py]")
    name = f"jointsearch_plugin_{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise InputError(f"plugin {shown_path(file)} cannot be imported; give a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"plugin {shown_path(file)} failed ({reason}); repair it") from error
