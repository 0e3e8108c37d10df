"""--help is printed from a table, without torch: the table is current, and says what the settings themselves say."""

import os
import subprocess
import sys

import pytest

import jointsearch
import search_spaces
from jointsearch.commands.command import COMMANDS, _module
from jointsearch.commands.help import choices_of, help_text
from jointsearch.commands.help_table import as_text
from jointsearch.commands.quick_help import NEEDS_MORE, TABLE, quick_help
from search_spaces.errors import InputError
from tests.conftest import REPOSITORY
from tests.test_scripts import settings_of

COMBINED = [
    ("joint_search", "search=policy searcher=differentiable estimator=gumbel network=resnet18"),
    ("joint_search", "search=policy searcher=trials dataset=folder dataset.path=photos/mine"),
    ("joint_search", "search=separate dataset=shapes searcher.stabilize.validation_batches=3 seeds=[4,5]"),
    ("joint_search", "dataset=folder dataset.standard.cutout=8 recipe.warmup.epochs=3"),
    ("retrain", "recipe=full recipe.mixing.cutmix=1.0 controls=[none] dataset.reduced=100 network=null"),
    ("detect", "detector=mask_rcnn dataset=coco dataset.path=coco2017"),
    ("report", "run=runs/x dataset=null"),
    ("benchmark", "task=ops rounds=3"),
]


def slow_help(name: str, *words: str) -> str:
    """The help of settings that were built."""
    return help_text(name, settings_of(name, *words), _module(name).MOST_USED, words)


def test_the_table_is_current() -> None:
    assert TABLE.read_text() == as_text(), "run python -m jointsearch.commands.help_table"


@pytest.mark.parametrize("name", sorted(COMMANDS.values()))
def test_the_table_gives_the_help_of_the_settings_for_every_choice(name: str) -> None:
    assert quick_help(name, []) == slow_help(name)
    words = [f"{group}={one}" for group, names in choices_of(name).items() for one in names if group not in NEEDS_MORE]
    for word in words:
        try:
            built = slow_help(name, word)
        except InputError:  # as of searcher=trials beside search=joint
            continue
        assert quick_help(name, [word]) == built, word


@pytest.mark.parametrize(("name", "words"), COMBINED)
def test_words_are_combined_as_the_settings_combine_them(name: str, words: str) -> None:
    if "run=" not in words:
        assert quick_help(name, words.split()) == slow_help(name, *words.split())
    else:
        assert quick_help(name, words.split()) is None


def test_the_help_of_a_choice_has_its_comment_and_its_settings() -> None:
    told = quick_help("retrain", ["dataset=folder"])
    assert told is not None
    assert "Class folders <class>/<image>, in a folder, .tar, .tar.gz or .zip" in told
    assert "dataset.image_size=null" in told
    assert "dataset.image_size" not in (quick_help("retrain", []) or "")


@pytest.mark.parametrize(
    "words",
    [
        "plugins=[my.py]",
        "preset=kashima2021",
        "nonsense=1",
        "dataset=nonsense",
        "recipe.epochs='3'",
        "recipe=3",
        "recipe.mixing.cutmix=1",
    ],
)
def test_what_the_table_does_not_say_is_left_to_the_settings(words: str) -> None:
    assert quick_help("retrain", words.split()) is None


def test_a_choice_that_the_search_does_not_read_is_left_to_the_refusal() -> None:
    assert quick_help("joint_search", ["search=architecture", "estimator=relax"]) is None


@pytest.mark.parametrize("words", [["retrain", "dataset=folder", "--help"], ["search", "search=policy", "-h"], []])
def test_help_imports_no_torch(words: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['jointsearch', *{words}]\n"
        "from jointsearch.commands.command import entry_point\n"
        "code = entry_point()\n"
        "heavy = {'torch', 'numpy', 'hydra', 'omegaconf'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else code)"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "jointsearch" in done.stdout


@pytest.mark.parametrize("package", [jointsearch, search_spaces])
def test_what_a_package_offers_is_there_when_it_is_asked_for(package: object) -> None:
    names = vars(package)["__all__"]
    assert sorted(vars(package)["_PLACES"]) == sorted(names)
    assert all(getattr(package, name) is not None for name in names)
    assert set(names) <= set(dir(package))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        getattr(package, "nothing")  # noqa: B009
