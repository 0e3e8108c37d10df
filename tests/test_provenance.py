"""A birth certificate says how a figure was made, and nobody's folders."""

import sys

import pytest

from jointsearch.runs.provenance import birth_certificate, without_folders


@pytest.mark.parametrize(
    ("argument", "kept"),
    [
        ("dataset.path=/disk/me/photos/train.tar.gz", "dataset.path=train.tar.gz"),
        ("run=~/runs/mine", "run=mine"),
        ("run=runs/mine", "run=runs/mine"),
        ("policies=[/a/b/one.json,/c/two.json]", "policies=[one.json,two.json]"),
        ("/disk/me/policy.json", "policy.json"),
        ("dataset.standard.std=[0.25]", "dataset.standard.std=[0.25]"),
        ("seeds=[0,1]", "seeds=[0,1]"),
    ],
)
def test_an_argument_keeps_the_names_of_its_paths_only(argument: str, kept: str) -> None:
    assert without_folders(argument) == kept


def test_the_command_of_a_certificate_names_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/scripts/retrain.py", "run=/disk/me/runs/7", "seeds=[0]"])
    assert birth_certificate()["command"] == "retrain.py run=7 seeds=[0]"
