"""No file of the project can be made to run what it reads: no eval, no pickle, no shell, no unsafe loader."""

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from tests.conftest import REPOSITORY, project_files

UNPICKLERS = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "shelve", "marshal", "joblib", "jsonpickle"}
BUILT_IN = {"eval", "exec", "compile", "__import__"}
NEVER = {
    "os.system": "shell",
    "os.popen": "shell",
    "subprocess.getoutput": "shell",
    "subprocess.getstatusoutput": "shell",
    "asyncio.create_subprocess_shell": "shell",
    "torch.hub.load": "hub",
    "torch.hub.load_state_dict_from_url": "hub",
    "hydra.utils.instantiate": "instantiate",
    "hydra.utils.call": "instantiate",
    "yaml.unsafe_load": "yaml",
    "yaml.unsafe_load_all": "yaml",
    "yaml.full_load": "yaml",
    "yaml.full_load_all": "yaml",
    "pandas.read_pickle": "pickle",
    "shutil.unpack_archive": "archive",
    "torchvision.datasets.utils.extract_archive": "archive",
    **{f"builtins.{name}": name for name in BUILT_IN},
}
# May be called when one keyword has the value that makes it safe.
SAFE_WHEN = {
    "torch.load": ("weights_only", {"True"}),
    "torch.serialization.load": ("weights_only", {"True"}),
    "yaml.load": ("Loader", {"yaml.SafeLoader", "yaml.CSafeLoader", "SafeLoader", "CSafeLoader"}),
    "yaml.load_all": ("Loader", {"yaml.SafeLoader", "yaml.CSafeLoader", "SafeLoader", "CSafeLoader"}),
}
# Keywords that are dangerous with any value but False, whatever is called.
NEVER_TRUE = {"shell": "shell", "allow_pickle": "pickle"}
EXTRACTING = {"extractall", "_extractall"}
# These carry out a Python file, wherever it lies.
CARRYING_OUT = {"exec_module", "load_module", "spec_from_file_location", "SourceFileLoader", "run_path", "run_module"}
PLUGINS = "jointsearch/registry.py"  # carries out the files that a user names on the command line

# Written so that these lines do not match themselves.
ABSOLUTE_PATH = re.compile(r"(?<![\w.-])/(?:work|home)/\w")
PACKAGE_INDEX = re.compile(r"https?:[/]{2}\S*(?:pypi|[/]simple\b)", re.IGNORECASE)

Finding = tuple[int, str]


def local_names(tree: ast.Module) -> dict[str, str]:
    """What each imported name stands for: `from os import system as s` gives {"s": "os.system"}."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                names[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom):
            names.update({alias.asname or alias.name: f"{node.module or ''}.{alias.name}" for alias in node.names})
    return names


def full_name(node: ast.expr, names: dict[str, str]) -> str:
    """`o.path.join` after `import os as o` -> "os.path.join"; empty for what is not a chain of names."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        before = full_name(node.value, names)
        return f"{before}.{node.attr}" if before else ""
    return ""


def unsafe_imports(tree: ast.Module) -> Iterator[Finding]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for module in modules:
            if set(module.split(".")) & UNPICKLERS:
                yield node.lineno, "pickle"


def unsafe_names(tree: ast.Module) -> Iterator[Finding]:
    """Mentioning is enough, called or not: `run = eval` is as good as a call."""
    names = local_names(tree)
    safely_called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call) and is_safe(node, names)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in BUILT_IN and node.id not in names:
            yield node.lineno, node.id
        if isinstance(node, ast.Attribute) and node.attr in EXTRACTING:
            yield node.lineno, "archive"
        named = full_name(node, names).rpartition(".")[2] if isinstance(node, ast.Name) else getattr(node, "attr", "")
        if named in CARRYING_OUT:
            yield node.lineno, "plugin"
        if isinstance(node, ast.Name | ast.Attribute):
            name = full_name(node, names)
            if name in NEVER:
                yield node.lineno, NEVER[name]
            if name in SAFE_WHEN and id(node) not in safely_called:
                yield node.lineno, name


def only_writes_pickles(tree: ast.Module) -> bool:
    """Whether pickle is imported by its own name and used for nothing but dump and dumps."""
    names = local_names(tree)
    writes = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute) and "dump" in node.attr}
    uses = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and names.get(node.id) == "pickle"]
    imported = {name for name in names.values() if set(name.split(".")) & UNPICKLERS}
    return imported == {"pickle"} and all(id(use) in writes for use in uses)


def is_safe(call: ast.Call, names: dict[str, str]) -> bool:
    keyword, values = SAFE_WHEN.get(full_name(call.func, names), ("", set()))
    return any(given.arg == keyword and ast.unparse(given.value) in values for given in call.keywords)


def unsafe_keywords(tree: ast.Module) -> Iterator[Finding]:
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in NEVER_TRUE and ast.unparse(node.value) != "False":
            yield node.value.lineno, NEVER_TRUE[node.arg]


def unsafe(text: str) -> list[Finding]:
    """Every (line, rule) in which a Python source could run what it is given."""
    tree = ast.parse(text)
    return sorted({*unsafe_imports(tree), *unsafe_names(tree), *unsafe_keywords(tree)})


def allowed() -> set[tuple[str, str]]:
    lines = (REPOSITORY / "tests" / "safety_allowed.txt").read_text().splitlines()
    rows = [line.split() for line in lines if line and not line.startswith("#")]
    return {(path, rule) for path, rule in rows}


@cache
def findings() -> dict[tuple[str, str], list[int]]:
    found: dict[tuple[str, str], list[int]] = {}
    for path in project_files(".py"):
        text = path.read_text()
        # A test may make the malicious file that the code it tests has to refuse.
        is_test = path.is_relative_to(REPOSITORY / "tests")
        is_attack = is_test and only_writes_pickles(ast.parse(text))
        for line, rule in unsafe(text):
            # And it may carry out the Python file that an export wrote.
            if (rule == "pickle" and is_attack) or (rule == "plugin" and is_test):
                continue
            found.setdefault((path.relative_to(REPOSITORY).as_posix(), rule), []).append(line)
    return found


def test_no_file_can_run_what_it_reads() -> None:
    assert not {place: lines for place, lines in findings().items() if place not in allowed()}


def test_every_exception_from_the_gate_is_still_needed() -> None:
    assert allowed() <= findings().keys()


def test_only_the_restricted_unpickler_and_the_plugins_of_the_command_line_are_excepted() -> None:
    exceptions = allowed() - {(PLUGINS, "plugin")}
    assert all(path.startswith("jointsearch/data/") and rule == "pickle" for path, rule in exceptions)
    assert len(exceptions) <= 1


def test_a_plugin_is_carried_out_only_where_words_of_a_command_line_are_read() -> None:
    callers = {
        path.relative_to(REPOSITORY).as_posix()
        for path in project_files(".py")
        if not path.is_relative_to(REPOSITORY / "tests")
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Attribute) and node.attr == "load_plugin")
        or (isinstance(node, ast.alias) and node.name == "load_plugin")
        or (isinstance(node, ast.Name) and node.id == "load_plugin")
    }
    # A helper process is told by its parent which ones that has carried out.
    assert callers == {"jointsearch/compose/words.py", "jointsearch/workers.py"}


@pytest.mark.parametrize(
    ("pattern", "what"),
    [(ABSOLUTE_PATH, "a path of one machine"), (PACKAGE_INDEX, "the address of a package index")],
    ids=["path", "index"],
)
def test_no_file_names(pattern: re.Pattern[str], what: str) -> None:
    found = []
    for path in project_files():
        for number, line in enumerate(path.read_bytes().decode("utf-8", "replace").splitlines(), start=1):
            if pattern.search(line):
                found.append(f"{path.relative_to(REPOSITORY)}:{number}")
    assert not found, f"{what} in {found}"


BAD = [
    ("eval('1')", "eval"),
    ("run = eval", "eval"),
    ("list(map(exec, lines))", "exec"),
    ("compile(text, 'file', 'exec')", "compile"),
    ("import builtins as b\nb.eval('1')", "eval"),
    ("__import__('os')", "__import__"),
    ("from builtins import exec as run\nrun('1')", "exec"),
    ("import pickle", "pickle"),
    ("from pickle import loads as l", "pickle"),
    ("def f():\n    import dill as d", "pickle"),
    ("import cloudpickle, marshal", "pickle"),
    ("from shelve import open", "pickle"),
    ("from six.moves import cPickle", "pickle"),
    ("from torch.serialization import pickle", "pickle"),
    ("import torch\ntorch.load(path)", "torch.load"),
    ("import torch as t\nt.load(path, weights_only=False)", "torch.load"),
    ("from torch import load\nload(path, weights_only=safe)", "torch.load"),
    ("import torch\nread = torch.load", "torch.load"),
    ("import torch\nfunctools.partial(torch.load, weights_only=True)", "torch.load"),
    ("import yaml\nyaml.load(text)", "yaml.load"),
    ("import yaml\nyaml.load(text, Loader=yaml.Loader)", "yaml.load"),
    ("from yaml import unsafe_load as safe_load\nsafe_load(text)", "yaml"),
    ("import subprocess\nsubprocess.run(line, shell=True)", "shell"),
    ("run(line, shell=bool(1))", "shell"),
    ("import os as o\no.system(line)", "shell"),
    ("from os import system\nsystem(line)", "shell"),
    ("archive.extractall(folder)", "archive"),
    ("from shutil import unpack_archive\nunpack_archive(path)", "archive"),
    ("import numpy as np\nnp.load(path, allow_pickle=True)", "pickle"),
    ("from torch import hub\nhub.load('a/b', 'c')", "hub"),
    ("import torch\ntorch.hub.load('a/b', 'c')", "hub"),
    ("from hydra.utils import instantiate\ninstantiate(config)", "instantiate"),
    ("import hydra\nhydra.utils.instantiate(config)", "instantiate"),
    ("from hydra import utils as u\nu.call(config)", "instantiate"),
    ("spec.loader.exec_module(module)", "plugin"),
    ("import importlib.util\nimportlib.util.spec_from_file_location(name, path)", "plugin"),
    ("import runpy\nrunpy.run_path(path)", "plugin"),
    ("from runpy import run_path\nrun_path(path)", "plugin"),
]


@pytest.mark.parametrize(("text", "rule"), BAD)
def test_the_gate_stops(text: str, rule: str) -> None:
    assert rule in {found for _, found in unsafe(text)}


@pytest.mark.parametrize(
    "text",
    [
        "model.eval()",
        "import re, torch\nre.compile('a'), torch.compile(model)",
        "from re import compile\ncompile('a')",
        "import torch\ntorch.load(path, weights_only=True)",
        "import yaml\nyaml.safe_load(text), yaml.load(text, Loader=yaml.SafeLoader)",
        "import numpy\nnumpy.load(path), numpy.load(path, allow_pickle=False)",
        "import json\njson.load(file)",
        "import subprocess\nsubprocess.run(['ls'], shell=False)",
        "archive.extractfile(member)",
        "'eval, exec and pickle in a text'",
    ],
)
def test_the_gate_lets_pass(text: str) -> None:
    assert not unsafe(text)


@pytest.mark.parametrize(
    ("text", "only_writes"),
    [
        ("import pickle\npickle.dumps(1)", True),
        ("import pickle as p\np.dump(1, file)", True),
        ("import pickle\npickle.dumps(1), pickle.loads(b'')", False),
        ("import pickle\nread = getattr(pickle, 'loads')", False),
        ("import pickle\nfrom pickle import loads", False),
        ("from pickle import dumps", False),
        ("import pickle, dill\npickle.dumps(1)", False),
    ],
)
def test_a_writer_of_pickles_is_told_from_a_reader(text: str, only_writes: bool) -> None:
    assert only_writes_pickles(ast.parse(text)) is only_writes


@pytest.mark.parametrize("text", ["see /" + "work/main", 'open("/' + 'home/me/file")', "path=/" + "home/a"])
def test_a_path_of_one_machine_is_seen(text: str) -> None:
    assert ABSOLUTE_PATH.search(text)


@pytest.mark.parametrize("text", ["a.com/" + "work/main", "homework/home", "./" + "home/me", "work/of/others"])
def test_a_path_inside_the_project_is_not_taken_for_one_of_a_machine(text: str) -> None:
    assert not ABSOLUTE_PATH.search(text)


@pytest.mark.parametrize(
    "text", ["http:/" + "/pypi.org/project", "https:/" + "/host:80/root/simple/", "HTTPS:/" + "/PyPI.x"]
)
def test_the_address_of_a_package_index_is_seen(text: str) -> None:
    assert PACKAGE_INDEX.search(text)


@pytest.mark.parametrize("text", ["https://arxiv.org/abs/1605.07146", "a simple/ plain pypi"])
def test_another_address_is_not_taken_for_a_package_index(text: str) -> None:
    assert not PACKAGE_INDEX.search(text)
