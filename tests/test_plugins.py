"""A user's own file adds ops, searchers and networks, in Python and where the command line names it."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from timm.models import _registry

from jointsearch import compose_study, register_choice, registry, settings
from jointsearch.compose import content
from jointsearch.loops.recipe import Recipe
from jointsearch.protocols import Needs
from jointsearch.search_kinds import PolicyOnly
from jointsearch.searchers.random import RandomSearcher
from jointsearch.study import Study, prepare
from search_spaces.augment import table
from search_spaces.augment.table import OPS
from search_spaces.controls import named_policy
from search_spaces.errors import InputError
from tests.conftest import REPOSITORY
from tests.runs_bench import DIGITS, differentiable
from tests.runs_bench import QUICK as QUICK_RECIPE
from tests.scripts_bench import refusal, run_script, search_alone
from tests.starts import run_all

PLUGIN = '''"""A searcher that counts its steps, an op, and a network."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from timm.models import register_model

from jointsearch import register_choice
from jointsearch.networks.tiny import three_stage_network
from jointsearch.protocols import Found, Needs, StepReport
from jointsearch.settings import bounded, check_fields
from search_spaces import AugOp, register_op
from search_spaces.policy import OpChoice, Policy, SubPolicy


@dataclass(frozen=True)
class Toy:
    """Returns one op, whose magnitude is the share of steps that were taken."""

    magnitude: float = bounded(0.5, 0.0, 1.0, help="of the op that is returned")

    def __post_init__(self):
        check_fields(self)

    def start(self, context):
        return ToySearcher(self, context)


class ToySearcher:
    needs = Needs(batches=0)

    def __init__(self, settings, context):
        self.settings, self.context, self.steps = settings, context, 0

    def step(self, train, validation, at):
        self.steps += 1
        return StepReport(self.context.train_step(train.images / 255, train.labels))

    def found(self):
        choice = OpChoice("Halve", 1.0, self.settings.magnitude)
        return Found(Policy((SubPolicy((choice,)),)), facts={"steps_counted": float(self.steps)})

    def state(self):
        return {"steps": self.steps}

    def restore(self, state):
        self.steps = state["steps"]


register_choice("searcher", "toy", Toy)
'''
OP = '''

def halve(images, amount):
    """Darken by up to one half."""
    return images * (1 - amount.view(-1, 1, 1, 1))


register_op(AugOp("Halve", halve, 0.0, 0.5, gradient="pathwise"))
'''
NETWORK = """

@register_model
def my_cnn(pretrained=False, **options):
    kept = {name: value for name, value in options.items() if name in ("num_classes", "in_chans")}
    return three_stage_network(**kept)
"""
QUICK = [
    *("search=policy", "network=my_cnn", "seeds=[0]", "dataset.reduced=60", "search_recipe.epochs=1", "device=cpu"),
    *("recipe.epochs=1", "controls=[none]", "threads=1", "run=out"),
]


NOTEBOOK = """
from jointsearch import compose_study, run_study
study = compose_study("search=policy", "searcher=toy", "recipe.epochs=1", "search_recipe.epochs=1", "controls=[none]",
                      network="my_cnn", seeds=(0,), device="cpu")
result = run_study(study, "out")
assert result.policy.sub_policies[0].ops[0].op == "Halve"
"""
CHOOSES = [
    *("searcher=differentiable", "policy_space=pairs", "policy_space.ops=[Halve,Rotate,Invert]"),
    "policy_space.top=3",
]


def test_a_searcher_is_at_most_60_lines_and_an_op_at_most_15() -> None:
    assert len(PLUGIN.splitlines()) <= 60
    assert len(OP.splitlines()) <= 15


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, CompletedProcess[str]]]:
    """Searches in processes of their own, so that what a plugin adds is gone after each, with their folders."""
    scratch = tmp_path_factory.mktemp("plugins")
    script, notebook = str(REPOSITORY / "scripts" / "joint_search.py"), scratch / "notebook.py"
    notebook.write_text(PLUGIN + OP + NETWORK + NOTEBOOK)
    commands = {
        "toy": [script, *QUICK, "plugins=[my.py]", "searcher=toy", "searcher.magnitude=0.25"],
        "chooses": [script, *search_alone(*QUICK), "plugins=[my.py]", *CHOOSES],
        "refused": [script, *search_alone(*QUICK), *CHOOSES, "network=tiny_cnn"],
        "notebook": [str(notebook)],
    }
    folders = {name: scratch / name for name in commands}
    for folder in folders.values():
        folder.mkdir()
        (folder / "my.py").write_text(PLUGIN + OP + NETWORK)
    done = run_all([(folders[name], words) for name, words in commands.items()], REPOSITORY, scratch / "printed")
    return {name: (folders[name], one) for name, one in zip(commands, done, strict=True)}


@pytest.mark.slow
def test_a_plugin_adds_a_searcher_an_op_and_a_network_to_the_command_line(
    searched: dict[str, tuple[Path, CompletedProcess[str]]],
) -> None:
    folder, done = searched["toy"]
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / "out/search-seed0/policy.json").read_text())
    assert found["sub_policies"][0]["ops"][0]["op"] == "Halve"
    result = json.loads((folder / "out/search-seed0/result.json").read_text())
    assert result["steps_counted"] == result["steps"] == 1
    assert json.loads((folder / "out/found/seed0/settings.json").read_text())["network"] == "my_cnn"


@pytest.mark.slow
def test_an_op_of_a_plugin_is_among_those_that_a_search_chooses_from(
    searched: dict[str, tuple[Path, CompletedProcess[str]]],
) -> None:
    folder, done = searched["chooses"]
    assert done.returncode == 0, done.stderr
    assert "Halve" in (folder / "out/search-seed0/policy.json").read_text()
    _, refused = searched["refused"]
    assert refused.returncode == 2
    assert "Halve" in refused.stderr


@pytest.mark.slow
def test_what_a_plugin_adds_may_be_added_in_python_too(
    searched: dict[str, tuple[Path, CompletedProcess[str]]],
) -> None:
    _, done = searched["notebook"]
    assert done.returncode == 0, done.stderr


MARK = "from pathlib import Path\nPath('executed').touch()\n"


@pytest.mark.parametrize("name", ["policy.json", "run/search-seed0/settings.json"])
def test_a_plugin_that_a_file_names_is_never_executed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text(MARK)
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    policy = json.loads(named_policy("none").to_json()) if name == "policy.json" else {"dataset": {"name": "digits"}}
    path.write_text(json.dumps(policy | {"plugins": ["evil.py"], "_target_": "evil.Evil"}))
    if name != "policy.json":
        named_policy("none").save(path.with_name("policy.json"))
    words = [f"policy={name}"] if name == "policy.json" else ["run=run", "dataset.reduced=60"]
    run_script("retrain", *words, "controls=[]", "recipe.epochs=1", "network=tiny_cnn", "seeds=[0]")
    capsys.readouterr()
    run_script("report", "run")
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is not a Python file; give the path of one"),
        ("1 / 0", r"failed \(ZeroDivisionError: division by zero\); repair it"),
        ("import nowhere_at_all", r"failed \(ModuleNotFoundError: .*\); repair it"),
        ("def (", r"failed \(SyntaxError: .*\); repair it"),
        ("raise ValueError('one\\nand another line')", r"failed \(ValueError: one"),
        ("raise SystemExit(3)", r"failed \(SystemExit: 3\); repair it"),
    ],
    ids=["missing", "error", "import", "syntax", "lines", "exit"],
)
def test_a_missing_or_failing_plugin_is_one_line(
    content: str | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "mine.py").write_text(content)
    assert re.search(f"^error: plugin mine.py {words}", refusal(capsys, "joint_search", "plugins=[mine.py]"))


@dataclass(frozen=True)
class Settled:
    """Settings of a searcher that can be started."""

    ops: tuple[str, ...] = ()

    def start(self, context: object) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class Unstarted:
    """Settings of nothing."""

    ops: tuple[str, ...] = ()


class Plain:
    def start(self, context: object) -> None:
        raise NotImplementedError


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers is forgotten."""
    monkeypatch.setattr(registry, "choices", {})
    monkeypatch.setattr(settings, "registered", {})
    monkeypatch.setattr(table, "OPS", dict(OPS))
    yield
    if _registry._model_entrypoints.pop("my_cnn", None):
        _registry._clear_model_entries("my_cnn")


@pytest.mark.parametrize(
    ("group", "name", "cls", "said"),
    [
        ("searcher", "trials", Settled, "searcher=trials is there already; give yours another name"),
        ("searchr", "mine", Settled, "no group 'searchr' to add to; did you mean searcher"),
        ("preset", "mine", Settled, "no group 'preset' to add to"),
        ("searcher", "mine", Plain, "no dataclass; write @dataclass(frozen=True) before the class"),
        ("searcher", "mine", Settled(), "no dataclass"),
        ("searcher", "mine", Unstarted, "the class has no start; add it, as SearcherSettings says"),
        ("estimator", "mine", Settled, "the class has no draws, build; add it"),
        ("dataset", "mine", Settled, "the class has no name, standard, reduced, validation, test_share, find"),
    ],
)
def test_a_choice_that_could_not_be_used_is_refused_when_it_is_registered(
    group: str, name: str, cls: Any, said: str, clean: None
) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        register_choice(group, name, cls)
    assert not registry.choices
    assert not settings.registered


def test_a_choice_may_be_registered_once_more_as_a_cell_of_a_notebook_does(clean: None) -> None:
    for _ in range(2):
        assert register_choice("searcher", "mine", Settled) is Settled
    assert registry.groups()["searcher"].count("mine") == 1


def test_a_registered_choice_is_composed_by_its_name(clean: None) -> None:
    assert compose_study("search=policy") == compose_study("search=policy")
    register_choice("searcher", "registered_here", Settled)
    kind = compose_study("search=policy", "searcher=registered_here").search
    assert isinstance(kind, PolicyOnly)
    assert kind.searcher == Settled()


def test_built_in_choices_have_what_is_asked_of_those_of_users() -> None:
    for group in registry.INTERFACES:
        for name in registry.built_in(group):
            whole = content(registry.CONFIGS / group / f"{name}.yaml")
            target = whole.get(group, whole).get("_target_")
            assert target is None or not registry.interface_of(group, settings.target_class(target))[0], (
                group,
                name,
            )


def test_a_plugin_that_was_edited_is_run_again_and_one_that_was_not_is_left(clean: None, tmp_path: Path) -> None:
    file, text = tmp_path / "mine.py", PLUGIN + OP + NETWORK
    for magnitude in ("0.5", "0.7"):
        file.write_text(text.replace("bounded(0.5", f"bounded({magnitude}"))
        loaded = []
        for _ in range(2):
            registry.load_plugin(str(file))
            loaded.append(registry.choices["searcher"]["toy"])
        assert loaded[0] is loaded[1]
        made: Any = settings.build(loaded[0], {})
        assert made.magnitude == float(magnitude)
    assert list(tmp_path.iterdir()) == [file]


@dataclass(frozen=True)
class Failing:
    """Settings of a searcher with a mistake in one place."""

    where: str

    def start(self, context: object) -> Any:
        if self.where == "start":
            raise KeyError("start")
        return FailingSearcher(self.where)


class FailingSearcher(RandomSearcher):
    def __init__(self, where: str) -> None:
        self.where = where

    @property
    def needs(self) -> Needs:  # type: ignore[override]
        if self.where == "needs":
            raise KeyError("needs")
        return Needs(0)

    def step(self, train: Any, validation: Any, at: Any) -> Any:
        raise KeyError("step")


MEET = ["benchmark", "check_data", "export_model", "export_policy", "predict", "report", "retrain", "show_policy"]


@pytest.mark.parametrize("command", MEET)
def test_commands_that_meet_what_a_plugin_adds_take_plugins(
    command: str, clean: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    assert run_script(command, f"plugins=[{tmp_path / 'mine.py'}]", "--cfg") == 0
    assert "toy" in registry.choices["searcher"]


WRONG = {
    "start": (Failing("start"), "KeyError: 'start'"),
    "step": (Failing("step"), "KeyError: 'step'"),
    "needs": (Failing("needs"), "KeyError: 'needs'"),
}


@pytest.mark.parametrize("where", WRONG)
def test_a_mistake_in_a_searcher_of_user_code_is_told_with_its_place(where: str) -> None:
    settings, said = WRONG[where]
    study = Study(DIGITS, PolicyOnly(settings, "tiny_cnn", QUICK_RECIPE), retrain=False, device="cpu")
    with pytest.raises(InputError, match=rf"test_plugins\.py:\d+ failed in a search step \({said}\)") as caught:
        prepare(study, "run")
    assert isinstance(caught.value.__cause__, KeyError)
    line = int(re.findall(r"py:(\d+)", str(caught.value))[0])
    assert f'raise KeyError("{where}")' in Path(__file__).read_text().splitlines()[line - 1]


def test_a_network_that_takes_no_step_is_told_with_its_cause() -> None:
    search = PolicyOnly(differentiable(), "tiny_cnn", QUICK_RECIPE)
    study = Study(DIGITS, search, recipe=Recipe(optimizer="adahessian"), device="cpu")
    with pytest.raises(InputError, match=r"network=tiny_cnn with recipe.optimizer=adahessian cannot take a") as caught:
        prepare(study, "run")
    assert caught.value.__cause__ is not None
