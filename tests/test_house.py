"""The project's own rules, read from its source: layers, budgets, documentation. Nothing is imported to check it."""

import ast
import graphlib
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, project_files

PACKAGES = ("search_spaces", "jointsearch")
CONFIGS = [path for path in project_files(".yaml") if REPOSITORY / "jointsearch" / "configs" in path.parents]
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
Function = ast.FunctionDef | ast.AsyncFunctionDef

# What the modules of a folder may import of ours and of other people's; a folder that is not named may import anything.
FOUNDATION = {"search_spaces"} | {f"jointsearch.{name}" for name in ("settings", "protocols", "jobs", "data")}
MAY_IMPORT_OF_OURS: dict[str, set[str]] = {
    "search_spaces": {"search_spaces"},
    "jointsearch.estimators": {"jointsearch.estimators", "jointsearch.settings", "search_spaces.errors"},
    "jointsearch.distributed": {"jointsearch.distributed"},
    "jointsearch.through_step": {"jointsearch.through_step", "jointsearch.distributed"},
    "jointsearch.soft": {"search_spaces", "jointsearch.estimators", "jointsearch.soft"},
    "jointsearch.data": {"search_spaces", "jointsearch.settings", "jointsearch.data"},
    "jointsearch.runs": {"search_spaces", "jointsearch.settings", "jointsearch.distributed", "jointsearch.runs"},
    "jointsearch.sweeps": {"search_spaces", "jointsearch.runs", "jointsearch.sweeps"},
    "jointsearch.networks": {"search_spaces", "jointsearch.networks"}
    | {f"jointsearch.{name}" for name in ("settings", "data.objects", "soft", "runs")},
    "jointsearch.export": {"search_spaces", "jointsearch.soft", "jointsearch.estimators", "jointsearch.export"},
    "jointsearch.objectives": FOUNDATION
    | {f"jointsearch.{name}" for name in ("distributed", "through_step", "objectives")},
    "jointsearch.augmenters": FOUNDATION | {"jointsearch.front_end", "jointsearch.augmenters"},
    "jointsearch.metrics": FOUNDATION | {"jointsearch.metrics"},
    "jointsearch.searchers": FOUNDATION
    | {
        f"jointsearch.{name}"
        for name in ("distributed", "front_end", "estimators", "through_step", "soft", "augmenters", "searchers")
    },
}
MAY_IMPORT_OF_OTHERS: dict[str, set[str]] = {
    "search_spaces": {"torch", "kornia"},
    "jointsearch.estimators": {"torch"},
    "jointsearch.distributed": {"torch"},
    "jointsearch.through_step": {"torch"},
    "jointsearch.soft": {"torch"},
    "jointsearch.augmenters": {"torch"},
    "jointsearch.searchers": {"torch", "scipy", "optuna", "numpy"},
}
WHOLE_STUDIES = {f"jointsearch.{name}" for name in ("search_kinds", "study", "compose", "registry", "commands")}
MUST_NOT_IMPORT: dict[str, set[str]] = {
    "jointsearch.loops": {"jointsearch.searchers", "jointsearch.report"} | WHOLE_STUDIES,
    "jointsearch.report": WHOLE_STUDIES,
    "jointsearch.search_kinds": {f"jointsearch.{name}" for name in ("study", "compose", "commands", "report")},
    "jointsearch.study": {"jointsearch.compose", "jointsearch.registry", "jointsearch.commands"},
    "jointsearch.compose": {"jointsearch.commands"},
    "jointsearch.benchmarks": {"jointsearch.compose", "jointsearch.commands"},
    "jointsearch": {"scripts", "tests"},
    "search_spaces": {"scripts", "tests"},
    "scripts": {"tests"},
}
ONLY_IN = {"hydra": "jointsearch.compose", "tensorboard": "jointsearch.runs.boards", "omegaconf": "jointsearch.compose"}


@dataclass(frozen=True)
class Source:
    """One Python file: its path in the project and its text."""

    path: Path
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, str(self.path))

    @property
    def module(self) -> str:
        parts = self.path.with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def package(self) -> str:
        return self.module if self.path.name == "__init__.py" else self.module.rpartition(".")[0]

    def is_in(self, *folders: str) -> bool:
        return any(within(self.module, folder) for folder in folders)

    def functions(self) -> Iterator[Function]:
        return (node for node in ast.walk(self.tree) if isinstance(node, FUNCTIONS))


def within(module: str, folder: str) -> bool:
    return module == folder or module.startswith(folder + ".")


@dataclass(frozen=True)
class Import:
    """`from source import name`, or `import source` with no name."""

    source: str
    name: str | None
    line: int

    def target(self, modules: set[str]) -> str:
        """The module that is reached: `name` may be one itself, or something inside `source`."""
        inner = f"{self.source}.{self.name}"
        return inner if inner in modules else self.source


def imports(source: Source, tree: ast.AST | None = None) -> Iterator[Import]:
    for node in ast.walk(tree or source.tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, None, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = source.package.split(".")
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            yield from (Import(base, alias.name, node.lineno) for alias in node.names)


def reached(entry: Import) -> list[str]:
    return [entry.source, f"{entry.source}.{entry.name}"]


def breaks_a_layer(source: Source) -> Iterator[str]:
    for entry in imports(source):
        top = entry.source.partition(".")[0]
        for folder in filter(source.is_in, MAY_IMPORT_OF_OURS):
            own = top in (*PACKAGES, "scripts", "tests")
            if own and not any(within(name, ok) for name in reached(entry) for ok in MAY_IMPORT_OF_OURS[folder]):
                yield f"{entry.line}: {folder} must not know {entry.source}"
            elif not own and top not in MAY_IMPORT_OF_OTHERS.get(folder, {top}) | sys.stdlib_module_names:
                yield f"{entry.line}: {folder} must not need {top}"
        for folder in filter(source.is_in, MUST_NOT_IMPORT):
            if any(within(name, banned) for name in reached(entry) for banned in MUST_NOT_IMPORT[folder]):
                yield f"{entry.line}: {folder} must not import {entry.source}"
        if top in ONLY_IN and not source.is_in(ONLY_IN[top], "tests"):
            yield f"{entry.line}: {top} is imported in {ONLY_IN[top]} only"


def opens_wandb_elsewhere(source: Source) -> Iterator[str]:
    inside = {
        entry for function in source.functions() for entry in imports(source, function) if within(entry.source, "wandb")
    }
    for entry in imports(source):
        if within(entry.source, "wandb") and (source.module != "jointsearch.runs.boards" or entry not in inside):
            yield f"{entry.line}: wandb is imported in jointsearch/runs/boards.py only, and there inside functions"


def is_too_long(source: Source) -> Iterator[str]:
    lines = len(source.text.splitlines())
    limit = 400 if source.is_in("tests") else 300
    if lines > limit:
        yield f"1: {lines} lines, at most {limit}"
    limit = 80 if source.is_in("jointsearch.loops", "tests") else 50
    for function in source.functions():
        lines = (function.end_lineno or 0) - function.lineno + 1
        if lines > limit:
            yield f"{function.lineno}: {function.name} has {lines} lines, at most {limit}"


def arguments(function: Function) -> list[ast.arg]:
    every = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return [argument for argument in every if argument.arg not in ("self", "cls")]


def has_too_many_arguments(source: Source) -> Iterator[str]:
    if source.is_in("tests"):
        return
    for function in source.functions():
        limit = 10 if function.name == "__init__" else 6
        if len(arguments(function)) > limit:
            yield f"{function.lineno}: {function.name} has {len(arguments(function))} arguments, at most {limit}"


def hides_a_module(source: Source) -> Iterator[str]:
    """An __init__ that binds a module's name to something else; Hydra, and readers, then cannot find the module."""
    if source.path.name != "__init__.py":
        return
    siblings = {path.stem for path in (REPOSITORY / source.path.parent).glob("*.py")}
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.ImportFrom):
            continue
        origin = node.module or ""
        is_from_here = origin == source.module or (node.level == 1 and not origin)
        for bound in (alias.asname or alias.name for alias in node.names):
            if not is_from_here and bound in siblings | {origin.rpartition(".")[2]}:
                yield f"{node.lineno}: {bound} is also the name of a module"


def public_functions(source: Source) -> Iterator[Function]:
    bodies = [source.tree.body]
    bodies += [node.body for node in source.tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_"]
    for node in (node for body in bodies for node in body):
        if isinstance(node, FUNCTIONS) and (not node.name.startswith("_") or node.name == "__init__"):
            yield node


def is_undocumented(source: Source) -> Iterator[str]:
    for function in [] if source.is_in("tests") else public_functions(source):
        is_overload = any(ast.unparse(decorator).endswith("overload") for decorator in function.decorator_list)
        if function.name != "__init__" and not is_overload and not ast.get_docstring(function):
            yield f"{function.lineno}: {function.name} has no docstring"


def is_untyped(source: Source) -> Iterator[str]:
    for function in [] if source.is_in("tests") else public_functions(source):
        stars = [star for star in (function.args.vararg, function.args.kwarg) if star]
        missing = [argument.arg for argument in arguments(function) + stars if argument.annotation is None]
        missing += ["return"] if function.returns is None else []
        if missing:
            yield f"{function.lineno}: {function.name} has no type for {', '.join(missing)}"


def only_for_types(source: Source) -> set[Import]:
    """What is imported for a type checker alone, and never when the module runs."""
    blocks = [node for node in source.tree.body if isinstance(node, ast.If)]
    return {entry for block in blocks if ast.unparse(block.test) == "TYPE_CHECKING" for entry in imports(source, block)}


def cycle(sources: list[Source]) -> list[str]:
    """Modules that import each other in a ring when they run, or nothing."""
    modules = {source.module for source in sources}
    graph = {
        source.module: {entry.target(modules) for entry in {*imports(source)} - only_for_types(source)} & modules
        for source in sources
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def command_is_missing(text: str) -> bool:
    """Whether a YAML file does not open with a comment that holds the command that uses it."""
    lines = [line for line in text.splitlines() if not re.match(r"#\s*@package", line)]
    return not (lines and re.match(r"#.*\b(python|torchrun|wandb|pytest)\s", lines[0]))


PER_FILE = [
    breaks_a_layer,
    opens_wandb_elsewhere,
    is_too_long,
    has_too_many_arguments,
    hides_a_module,
    is_undocumented,
    is_untyped,
]


@cache
def project_sources() -> list[Source]:
    return [Source(path.relative_to(REPOSITORY), path.read_text()) for path in project_files(".py")]


@pytest.mark.parametrize("check", PER_FILE, ids=lambda check: check.__name__)
def test_no_file(check: Callable[[Source], Iterator[str]]) -> None:
    found = [f"{source.path}:{problem}" for source in project_sources() for problem in check(source)]
    assert not found, "\n" + "\n".join(found)


def test_every_package_is_read() -> None:
    modules = {source.module for source in project_sources()}
    assert {"search_spaces", "search_spaces.errors", "jointsearch.networks.create", "tests.test_house"} <= modules


def test_modules_do_not_import_each_other_in_a_ring() -> None:
    assert not cycle(project_sources())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_config_opens_with_the_command_that_uses_it(path: Path) -> None:
    assert not command_is_missing(path.read_text()), f"{path.relative_to(REPOSITORY)}: line 1 holds no command"


LONG_FUNCTION = "def f() -> None:\n" + "    x = 1\n" * 50
BAD = [
    (breaks_a_layer, "search_spaces/a.py", "import numpy"),
    (breaks_a_layer, "search_spaces/a.py", "from jointsearch import track"),
    (breaks_a_layer, "search_spaces/deep/a.py", "def f():\n    import timm.data"),
    (breaks_a_layer, "jointsearch/estimators/a.py", "from search_spaces.policy import Policy"),
    (breaks_a_layer, "jointsearch/through_step/a.py", "from ..estimators import gumbel"),
    (breaks_a_layer, "jointsearch/soft/a.py", "from jointsearch.data.sets import Batch"),
    (breaks_a_layer, "jointsearch/loops/retrain.py", "from jointsearch.searchers.dada import Dada"),
    (breaks_a_layer, "jointsearch/loops/retrain.py", "from jointsearch import searchers"),
    (breaks_a_layer, "jointsearch/loops/retrain.py", "from .. import searchers"),
    (breaks_a_layer, "jointsearch/estimators/a.py", "from search_spaces import policy"),
    (breaks_a_layer, "jointsearch/loops/retrain.py", "from jointsearch.search_kinds import Joint"),
    (breaks_a_layer, "jointsearch/searchers/a.py", "from jointsearch.loops.training import Training"),
    (breaks_a_layer, "jointsearch/searchers/a.py", "from jointsearch.networks import create"),
    (breaks_a_layer, "jointsearch/objectives/a.py", "from jointsearch.searchers.table import Table"),
    (breaks_a_layer, "jointsearch/augmenters/a.py", "import timm.data"),
    (breaks_a_layer, "jointsearch/metrics/a.py", "from jointsearch.loops import evaluate"),
    (breaks_a_layer, "jointsearch/runs/a.py", "from jointsearch.report.page import write_report"),
    (breaks_a_layer, "jointsearch/data/a.py", "from jointsearch.registry import choices"),
    (breaks_a_layer, "jointsearch/study.py", "from jointsearch.commands.help import rows"),
    (breaks_a_layer, "jointsearch/compose/words.py", "from jointsearch.commands import help"),
    (breaks_a_layer, "jointsearch/runs/track.py", "from omegaconf import DictConfig"),
    (breaks_a_layer, "jointsearch/data/sets.py", "import hydra.utils"),
    (breaks_a_layer, "jointsearch/commands/command.py", "from hydra import compose"),
    (breaks_a_layer, "search_spaces/a.py", "import omegaconf"),
    (breaks_a_layer, "scripts/retrain.py", "import hydra"),
    (breaks_a_layer, "scripts/retrain.py", "from tests.conftest import images"),
    (opens_wandb_elsewhere, "scripts/retrain.py", "import wandb"),
    (opens_wandb_elsewhere, "jointsearch/runs/boards.py", "from wandb import init"),
    (opens_wandb_elsewhere, "jointsearch/loops/a.py", "def f():\n    import wandb.sdk"),
    (is_too_long, "jointsearch/a.py", "x = 1\n" * 301),
    (is_too_long, "tests/a.py", "x = 1\n" * 401),
    (is_too_long, "jointsearch/a.py", LONG_FUNCTION),
    (is_too_long, "jointsearch/a.py", LONG_FUNCTION.replace("def", "async def")),
    (is_too_long, "jointsearch/loops/a.py", LONG_FUNCTION + "    x = 1\n" * 30),
    (has_too_many_arguments, "scripts/a.py", "def f(a, b, c, d, /, e, *, g, h): ..."),
    (has_too_many_arguments, "scripts/a.py", "class A:\n    def __init__(self, a, b, c, d, e, f, g, h, i, j, k): ..."),
    (hides_a_module, "jointsearch/networks/__init__.py", "from jointsearch.networks.create import create"),
    (hides_a_module, "jointsearch/networks/__init__.py", "from timm.models import build as create"),
    (hides_a_module, "jointsearch/networks/__init__.py", "from .create import create"),
    (is_undocumented, "jointsearch/a.py", "def f() -> None: ..."),
    (is_undocumented, "jointsearch/a.py", "class A:\n    def f(self) -> None: ..."),
    (is_untyped, "jointsearch/a.py", "def f(x) -> None: ..."),
    (is_untyped, "jointsearch/a.py", "def f(x: int): ..."),
    (is_untyped, "jointsearch/a.py", "class A:\n    def __init__(self, *x) -> None: ..."),
]


@pytest.mark.parametrize(("check", "path", "text"), BAD)
def test_a_check_finds_what_it_looks_for(check: Callable[[Source], Iterator[str]], path: str, text: str) -> None:
    assert list(check(Source(Path(path), text)))


GOOD = [
    (
        "search_spaces/a.py",
        "import math\nimport torch.nn\nfrom kornia import enhance\nfrom search_spaces import errors",
    ),
    ("search_spaces/augment/a.py", "from .op import AugOp\nfrom ..errors import InputError"),
    ("jointsearch/soft/a.py", "from jointsearch.estimators import gumbel\nfrom jointsearch import estimators"),
    ("jointsearch/runs/boards.py", "def _open() -> None:\n    import wandb"),
    ("jointsearch/networks/__init__.py", "from jointsearch.networks import create, tiny\nfrom . import wide_resnet"),
    ("jointsearch/loops/a.py", 'def f() -> None:\n    """Loop."""\n' + "    x = 1\n" * 78),
    ("jointsearch/estimators/a.py", "from jointsearch.settings import setting\nfrom search_spaces import errors"),
    ("jointsearch/searchers/a.py", "from jointsearch.protocols import Needs\nfrom jointsearch.data.sets import Batch"),
    ("jointsearch/compose/words.py", "import hydra\nfrom omegaconf import OmegaConf"),
    ("scripts/retrain.py", "from jointsearch.searchers import dada"),
]


@pytest.mark.parametrize(("path", "text"), GOOD)
def test_no_check_minds_what_is_right(path: str, text: str) -> None:
    assert not [problem for check in PER_FILE for problem in check(Source(Path(path), text))]


def test_a_ring_of_imports_is_found_however_it_is_written() -> None:
    ring = ["import jointsearch.b", "from jointsearch import c", "def f():\n    from .a import g"]
    sources = [Source(Path(f"jointsearch/{name}.py"), text) for name, text in zip("abc", ring, strict=True)]
    assert set(cycle(sources)) == {"jointsearch.a", "jointsearch.b", "jointsearch.c"}
    assert not cycle(sources[:2])
    for_types = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from jointsearch.a import A"
    assert not cycle([*sources[:2], Source(Path("jointsearch/c.py"), for_types)])


@pytest.mark.parametrize("text", ["", "a: 1", "# digits\na: 1", "a: 1\n# python scripts/retrain.py"])
def test_a_config_without_a_command_is_found(text: str) -> None:
    assert command_is_missing(text)


@pytest.mark.parametrize("first", ["", "# @package _global_\n"])
def test_a_command_in_the_first_comment_is_enough(first: str) -> None:
    assert not command_is_missing(first + "# python scripts/retrain.py dataset=digits\na: 1")
