"""Bad policies and bad images, given on the command line: one line with the remedy, exit code 2, nothing written."""

from pathlib import Path

import pytest

from tests.images_bench import BAD, WHOLE
from tests.malformed_policies import MALFORMED
from tests.scripts_bench import refusal

FOLDER = ["dataset=folder", "dataset.workers=0", "dataset.validation=null", "dataset.test_share=0.5"]


@pytest.mark.parametrize(("content", "said"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_policy_is_refused(
    content: str | bytes,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.json").write_bytes(content.encode() if isinstance(content, str) else content)
    printed = refusal(capsys, "retrain", "policy=mine.json", "run=out")
    assert "mine.json" in printed
    assert said in printed


@pytest.mark.parametrize("name", BAD)
def test_a_bad_image_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for label in ("cat", "dog"):
        for number in range(4):
            path = tmp_path / "set" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(WHOLE["png"])
    data, words = BAD[name]
    (tmp_path / "set" / "dog" / "bad.jpg").write_bytes(data)
    printed = refusal(capsys, "retrain", *FOLDER, "dataset.path=set", "run=out")
    assert "bad.jpg " in printed
    assert words in printed
