"""What the documentation says is so: Python runs, commands compose, files exist, the step is the searcher's."""

import copy
import re
import runpy
import shlex
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from jointsearch import registry
from jointsearch.commands.command import COMMANDS, run
from jointsearch.compose import CONFIGS, compose_study
from jointsearch.data.standard import Standard
from jointsearch.objectives.cross_entropy import CrossEntropy
from jointsearch.protocols import Context, Moment, Objective
from jointsearch.searchers.differentiable import Differentiable
from search_spaces.augment.table import OPS
from search_spaces.controls import named_policy
from search_spaces.errors import InputError
from tests.conftest import REPOSITORY

STEP = REPOSITORY / "docs" / "how_a_step_works.md"
HABITS = REPOSITORY / "CONTRIBUTING.md"
PAGES = [REPOSITORY / "README.md", HABITS, REPOSITORY / "CHANGELOG.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}

# Folders of the project, as prose names them; what a run writes or a user has is not there.
FILES = r"`((?:search_spaces|jointsearch|results|scripts|tests|docs)/[\w/.]+|[A-Z]+\.md)`"
PLUGIN = "register_op(AugOp("  # a block with it is a file of its own, which commands load


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", TEXTS[page], re.DOTALL)


def run_block(block: str, names: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run a block after others, whose names it knows. Returns all names."""
    (folder / "block.py").write_text(block)
    return runpy.run_path(str(folder / "block.py"), names)


def commands(page: Path) -> list[str]:
    """What a page tells to type: lines of shell blocks, and code within a line that has arguments."""
    shell = "\n".join(re.findall(r"```bash\n(.*?)```", TEXTS[page], re.DOTALL)).replace("\\\n", " ")
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", TEXTS[page], flags=re.DOTALL))
    lines = [part.strip() for line in shell.splitlines() for part in line.split("&&")]
    found = [line.partition("  #")[0].strip() for line in [*lines, *inline]]
    start = rf"(python scripts/\w+\.py|jointsearch ({'|'.join(COMMANDS)}))( |$)"
    return [line for line in found if re.match(start, line)]


def words_of(command: str) -> tuple[str, list[str]]:
    """The module that carries a command out, and its words."""
    first, second, *words = [*shlex.split(command), "--help"]
    return (Path(second).stem if first == "python" else COMMANDS[second]), words


def commands_of_methods() -> list[str]:
    """In two pages presets and settings stand in tables, without the beginning of their command."""
    text = "\n".join(TEXTS[REPOSITORY / "docs" / name] for name in ("methods.md", "presets.md"))
    first = re.findall(r"^\| `([\w.]+=[^`]+)`", text, re.MULTILINE)
    of_policy = ("searcher.", "policy_space.")
    return [
        f"python scripts/joint_search.py {'searcher=differentiable ' * one.startswith(of_policy)}{one}" for one in first
    ]


COMMANDS_OF_PAGES = sorted({command for page in PAGES for command in commands(page)} | set(commands_of_methods()))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with what the pages assume: photos of two classes, a policy, and the plugin that they show."""
    folder = tmp_path_factory.mktemp("workplace")
    noise = torch.Generator().manual_seed(0)
    for kind in ("cat", "dog"):
        (folder / "photos" / kind).mkdir(parents=True)
        for place in range(20):
            pixels = torch.randint(256, (40, 40, 3), generator=noise, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(folder / "photos" / kind / f"{place}.png")
    named_policy("trivialaugment").save(folder / "policy.json")
    [plugin] = [block for page in PAGES for block in python_blocks(page) if PLUGIN in block]
    (folder / "my_parts.py").write_text(plugin)
    ops, choices = dict(OPS), copy.deepcopy(registry.choices)
    yield folder
    for held, before in ((OPS, ops), (registry.choices, choices)):  # what the plugin registered is forgotten
        held.clear()
        held.update(before)


@pytest.fixture
def workplace(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The prepared folder as the current one."""
    monkeypatch.chdir(prepared)
    return prepared


RUNNING = [page for page in PAGES if python_blocks(page) and page != HABITS]


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNING, ids=lambda page: page.name)
def test_the_python_of_a_page_runs_as_written(page: Path, workplace: Path) -> None:
    names: dict[str, Any] = {}
    for block in python_blocks(page):
        if PLUGIN not in block:
            names = run_block(block, names, workplace)


@pytest.mark.parametrize("command", COMMANDS_OF_PAGES)
def test_a_command_of_a_page_has_the_settings_that_it_names(
    command: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(*words_of(command))
    assert (code, capsys.readouterr().err) == (0, "")


def test_commands_are_found_where_pages_have_them() -> None:
    assert len(COMMANDS_OF_PAGES) > 40
    for name in COMMANDS:
        assert any(command.startswith(f"jointsearch {name}") for command in COMMANDS_OF_PAGES), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_files_of_a_page_exist(page: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", TEXTS[page]) if "://" not in link]
    missing = [link for link in links if not (page.parent / link).exists()]
    names = [name for name in re.findall(FILES, TEXTS[page]) if Path(name).stem != "mine"]  # that of the reader
    assert not missing + [name for name in names if not (REPOSITORY / name).exists()]


def test_the_examples_of_the_habits_stand_in_the_source() -> None:
    folders = ("jointsearch", "search_spaces", "tests")
    files = [path for folder in folders for path in sorted((REPOSITORY / folder).rglob("*.py"))]
    source = "\n".join(path.read_text(encoding="utf-8") for path in files)
    for block in python_blocks(HABITS):
        for line in block.splitlines():
            assert line.strip() in source, line


@dataclass(frozen=True)
class PlainStep:
    """A step of plain SGD."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    objective: Objective = field(default_factory=CrossEntropy)

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        loss = cross_entropy(self.network(images), labels)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    def undone(self) -> nullcontext[None]:
        return nullcontext()


def test_the_step_of_the_page_moves_everything_as_the_searcher_does(tmp_path: Path) -> None:
    parts, step = python_blocks(STEP)
    torch.manual_seed(7)
    page = run_block(parts, {}, tmp_path)
    network, policy, estimator = (copy.deepcopy(page[name]) for name in ("network", "policy", "estimator"))
    noise = page["noise"].clone_state()
    page = run_block(step, page, tmp_path)

    train_step = PlainStep(network, torch.optim.SGD(network.parameters(), lr=0.1))
    context = Context(network, train_step, Standard(mean=(0.0,), std=(1.0,)), noise, epochs=1)
    searcher = Differentiable().start(context)
    assert searcher.policy is not None
    searcher.policy.soft.load_state_dict(policy.state_dict())
    searcher.policy.estimator.load_state_dict(estimator.state_dict())
    report = searcher.step(page["train"], [page["validation"]], Moment(0, 0, 1, 1, 0.1))

    assert report.forward_equivalents == 10
    assert "| together | 10 |" in TEXTS[STEP]
    pairs = ((page["policy"], searcher.policy.soft), (page["network"], network))
    for ours, theirs in (*pairs, (page["estimator"], searcher.policy.estimator)):
        before = dict((policy if ours is page["policy"] else ours).named_parameters())
        for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            assert torch.equal(one, other), name
            assert ours is not page["policy"] or not torch.equal(one, before[name]), name
    assert torch.equal(noise.get_state(), page["noise"].get_state())


def test_the_step_of_the_page_has_at_most_forty_lines() -> None:
    lines = [line for block in python_blocks(STEP) for line in block.splitlines()]
    assert len([line for line in lines if line.strip() and not line.startswith("#")]) <= 40


METHODS = TEXTS[REPOSITORY / "docs" / "methods.md"]
FITS = [
    [re.findall(r"[a-z_]{3,}", cell) for cell in row.strip("| ").split(" | ")[:4]]
    for row in re.findall(
        r"^\| `[a-z_]+` \| .*\|$", METHODS.partition("## Which parts fit")[2].partition("\n## ")[0], re.MULTILINE
    )
]
SPACES = {"pairs", "trivialaugment", "start", "stages", "measured"}


def composes(*words: str) -> bool:
    try:
        compose_study(*words)
    except InputError:
        return False
    return True


def test_every_searcher_is_in_the_table_of_what_fits() -> None:
    assert {searcher for [searcher], *_ in FITS} == {path.stem for path in (CONFIGS / "searcher").glob("*.yaml")}


@pytest.mark.slow
@pytest.mark.parametrize(("searcher", "kinds", "spaces", "estimators"), FITS)
def test_what_the_table_says_fits_composes_and_nothing_else(
    searcher: list[str], kinds: list[str], spaces: list[str], estimators: list[str]
) -> None:
    chosen = f"searcher={searcher[0]}"
    assert {kind for kind in ("joint", "policy", "separate") if composes(f"search={kind}", chosen)} == set(kinds)
    if searcher == ["shuffled_reward"]:  # "as above"
        spaces = ["pairs", "trivialaugment", "start"]
    assert {one for one in SPACES if composes("search=policy", chosen, f"policy_space={one}")} == set(spaces)
    known = ("relax", "reinforce", "gumbel")
    assert {one for one in known if composes("search=policy", chosen, f"estimator={one}")} == set(estimators)
