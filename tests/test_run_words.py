"""A run folder is enough: run=FOLDER alone goes on, and a policy may be named by the run that found it."""

import json
from pathlib import Path

import pytest

from jointsearch.commands.typed import with_kept
from jointsearch.runs.run_folder import write_json
from search_spaces.controls import named_policy
from search_spaces.errors import InputError
from search_spaces.policy import Policy
from tests.scripts_bench import refusal, run_script

QUICK = ["recipe.epochs=1", "seeds=[0]", "network=tiny_cnn", "controls=[none]", "recipe.batch_size=100"]
SEARCH = [
    *("search=policy", "searcher=random", "network=tiny_cnn", "seeds=[3]", "dataset.reduced=200"),
    *("search_recipe.epochs=1", "search_recipe.batch_size=50", "retrain=false", "device=cpu"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_run_folder_alone_goes_on_with_the_words_that_it_was_begun_with(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_script("retrain", *QUICK, "run=out") == 0
    assert "To continue after an interruption: python scripts/retrain.py run=out\n" in capsys.readouterr().out
    result = Path("out/none/seed0/result.json")
    before = json.loads(result.read_text())
    result.unlink()
    assert run_script("retrain", "run=out") == 0
    assert f"With the words of out/words.json: {' '.join(QUICK)} run=out\n" in capsys.readouterr().out
    assert json.loads(result.read_text()) | {"seconds": 0} == before | {"seconds": 0}
    assert sorted(path.name for path in Path("out").glob("*/")) == ["none", "trivialaugment"]


def test_a_word_beside_the_run_folder_that_does_not_agree_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_script("retrain", *QUICK, "run=out") == 0
    assert "recipe.epochs was 1, is 2" in refusal(capsys, "retrain", "run=out", "recipe.epochs=2")


def test_a_search_goes_on_by_its_folder_and_says_where_the_policy_lies(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_script("joint_search", *SEARCH, "run=out") == 0
    printed = capsys.readouterr().out
    assert "Found: out/search-seed3/policy.json\n" in printed
    assert "python scripts/show_policy.py out\n" in printed
    Path("out/search-seed3/result.json").unlink()
    assert run_script("joint_search", "run=out") == 0
    assert Path("out/search-seed3/result.json").is_file()


def begun(folder: str, command: str, *words: str, plugins: bool = False) -> None:
    Path(folder).mkdir(parents=True)
    write_json(Path(folder, "words.json"), {"command": command, "words": list(words), "plugins": plugins})


def test_a_typed_word_replaces_its_like_and_the_others_stay(folder: Path) -> None:
    begun("out", "joint_search", "dataset=shapes", "seeds=[0]", "budget=0.1")
    words, file = with_kept("joint_search", ["run=out", "seeds=[0,1]"])
    assert words == ["dataset=shapes", "budget=0.1", "run=out", "seeds=[0,1]"]
    assert file == "out/words.json"


def test_the_words_of_another_command_are_not_taken(folder: Path) -> None:
    begun("out", "joint_search", "dataset=shapes")
    assert with_kept("retrain", ["run=out"]) == (["run=out"], None)
    assert with_kept("report", ["run=out"]) == (["run=out"], None)
    assert with_kept("joint_search", ["run=elsewhere"]) == (["run=elsewhere"], None)


def test_trainings_within_the_run_of_a_search_have_words_of_their_own(folder: Path) -> None:
    begun("out", "joint_search", "dataset=shapes")
    begun("out/retrained", "retrain", "controls=[none]")
    assert with_kept("retrain", ["run=out"])[0] == ["controls=[none]", "run=out"]
    assert with_kept("joint_search", ["run=out"])[0] == ["dataset=shapes", "run=out"]
    # With a policy, run= is a folder for other trainings.
    assert with_kept("retrain", ["run=out", "policy=none"])[1] is None


def test_detectors_within_a_run_go_on_by_their_name_or_where_there_is_one(folder: Path) -> None:
    begun("out/detection/first", "detect", "dataset=bccd")
    assert with_kept("detect", ["run=out"])[0] == ["dataset=bccd", "run=out"]
    assert with_kept("detect", ["run=out", "dataset=shapes"])[1] is None  # others, in another folder
    begun("out/detection/second", "detect", "dataset=voc")
    assert with_kept("detect", ["run=out"])[1] is None
    assert with_kept("detect", ["run=out", "name=second"])[0] == ["dataset=voc", "run=out", "name=second"]


def test_a_run_folder_never_says_which_code_is_run(folder: Path) -> None:
    begun("out", "joint_search", "plugins=[out/evil.py]", "budget=0.1")
    assert with_kept("joint_search", ["run=out"])[0] == ["budget=0.1", "run=out"]
    begun("honest", "joint_search", "budget=0.1", plugins=True)
    with pytest.raises(InputError, match="was begun with plugins=; name them again"):
        with_kept("joint_search", ["run=honest"])
    assert with_kept("joint_search", ["run=honest", "plugins=[my.py]"])[0][0] == "budget=0.1"


def test_a_policy_is_named_by_the_run_that_found_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (5, 3):
        Path(f"out/search-seed{seed}").mkdir(parents=True)
        named_policy(f"random-s{seed}").save(f"out/search-seed{seed}/policy.json")
    assert run_script("show_policy", "out", "rows=1", "save=shown.json") == 0
    assert Path("out.png").is_file()
    assert Policy.load("shown.json") == named_policy("random-s3")  # of the first seed
    assert run_script("export_policy", "out/search-seed5") == 0
    assert run_script("export_policy", "policy=out", "format=albumentations") == 0
    Path("empty").mkdir()
    assert "empty holds no policy that a search found; give" in refusal(capsys, "export_policy", "empty")
