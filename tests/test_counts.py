"""The sizes that were promised: of the default command, of refusals, of interfaces, of scripts."""

import ast
import inspect
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from jointsearch import protocols
from jointsearch.commands import joint_search
from jointsearch.commands.command import COMMANDS, _module
from jointsearch.commands.help import rows
from jointsearch.compose import compose_words
from tests.conftest import REPOSITORY

MODES = {"joint", "policy", "architecture", "separate"}
# How draws are scored, jointly or one by one, which is another word of the papers.
OTHER_WORDS = {"scoring", "self.scoring"}
SOURCES = sorted((REPOSITORY / "jointsearch").rglob("*.py"))


def default_rows() -> list[Any]:
    return list(rows(joint_search.read(compose_words("joint_search", []))))


def test_the_default_command_shows_at_most_70_settings() -> None:
    names = [row.name for row in default_rows()]
    assert len(names) <= 70
    assert len(set(names)) == len(names)


def is_settings_class(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.ClassDef)
        and any("frozen=True" in ast.unparse(decorator) for decorator in node.decorator_list)
        and any(isinstance(part, ast.FunctionDef) and part.name == "__post_init__" for part in node.body)
    )


def refusing_lines(tree: ast.AST) -> set[int]:
    """The lines of `if ...: raise InputError(...)`."""
    blocks = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If)
        and any(isinstance(part, ast.Raise) and "InputError" in ast.unparse(part) for part in node.body)
    ]
    return {line for block in blocks for line in range(block.lineno, (block.body[-1].end_lineno or 0) + 1)}


def test_refusals_are_at_most_8_percent_of_the_settings_files() -> None:
    every = refusing = 0
    for path in SOURCES:
        tree = ast.parse(text := path.read_text())
        if any(is_settings_class(node) for node in ast.walk(tree)):
            every += len(text.splitlines())
            refusing += len(refusing_lines(tree))
    assert refusing
    assert refusing <= 0.08 * every


def test_refusals_are_counted_with_all_their_lines() -> None:
    text = "if a:\n    raise InputError(\n        'b'\n    )\nif c:\n    raise ValueError\nif d:\n    pass"
    assert refusing_lines(ast.parse(text)) == {1, 2, 3, 4}


def test_a_searcher_has_at_most_five_members() -> None:
    own = protocols.StepSearcher
    members = {*own.__annotations__, *(name for name, _ in inspect.getmembers(own, inspect.isfunction))}
    assert {"needs", "step", "found", "state", "restore"} == {name for name in members if name[0] != "_"}


def literals(side: ast.expr) -> set[Any]:
    """The values that are written down in one side of a comparison."""
    parts = side.elts if isinstance(side, ast.Tuple | ast.List | ast.Set) else [side]
    return {part.value for part in parts if isinstance(part, ast.Constant)}


def compared(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Comparisons with a word that says what is searched, written with == or in, or as a case of a match."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            words = {word for side in sides for word in literals(side)}
            if words & MODES and not OTHER_WORDS & {ast.unparse(side) for side in sides}:
                yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.match_case):
            words = {part.value for part in ast.walk(node.pattern) if isinstance(part, ast.Constant)}
            if words & MODES:
                yield node.pattern.lineno, ast.unparse(node.pattern)


def test_nothing_compares_the_words_that_say_what_is_searched() -> None:
    found = [(path.name, *one) for path in SOURCES for one in compared(ast.parse(path.read_text()))]
    assert not found


@pytest.mark.parametrize(
    "text", ["kind == 'joint'", "kind in ('policy', 'x')", "match kind:\n    case 'separate':\n        pass"]
)
def test_a_comparison_is_found_however_it_is_written(text: str) -> None:
    assert list(compared(ast.parse(text)))


@pytest.mark.parametrize("path", sorted((REPOSITORY / "scripts").glob("*.py")), ids=lambda path: path.stem)
def test_a_script_is_under_80_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 80


def settings_classes() -> list[type]:
    """Every class of settings that a command or a choice of a group has."""
    from jointsearch.compose import CONFIGS, content
    from jointsearch.settings import TARGET, target_class

    wholes = [content(path) for path in sorted(CONFIGS.glob("*/*.yaml"))]
    named = [whole.get("search", whole).get(TARGET) for whole in wholes if isinstance(whole.get("search", whole), dict)]
    found = [target_class(name) for name in sorted({name for name in named if name})]
    found += [_module(name).Settings for name in COMMANDS.values()]
    for cls in found:
        for item in fields(cls):
            default = item.default_factory() if callable(item.default_factory) else None
            if is_dataclass(default) and type(default) not in found:
                found.append(type(default))
    return found


def test_every_setting_has_a_line_of_help() -> None:
    classes = settings_classes()
    assert len(classes) > 25
    silent = {
        f"{cls.__name__}.{item.name}"
        for cls in classes
        for item in fields(cls)
        if not item.metadata.get("help") and item.name != "study"
    }
    assert not silent
