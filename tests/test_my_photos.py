"""The walkthrough with one's own photos runs as written, from the check to a network in use, and needs no network."""

import csv
import json
import re
import shlex
import socket
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from PIL import Image

from jointsearch.commands.command import COMMANDS, run
from tests.conftest import REPOSITORY

PAGE = REPOSITORY / "docs" / "my_photos.md"
LINES = [
    line
    for block in re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    for line in block.splitlines()
]


def draw_photos(folder: Path) -> None:
    """Three classes of 14 noisy photos each, told apart by color; higher than wide."""
    noise = torch.Generator().manual_seed(0)
    for place, kind in enumerate(("apple", "sky", "tree")):
        (folder / kind).mkdir(parents=True)
        for number in range(14):
            pixels = torch.randint(120, (48, 40, 3), generator=noise, dtype=torch.uint8)
            pixels[..., place] += 100
            Image.fromarray(pixels.numpy()).save(folder / kind / f"{number}.jpg")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way to another machine raises."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a socket was opened")

    for name in ("connect", "connect_ex", "sendto", "bind"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)


@pytest.mark.slow
@pytest.mark.usefixtures("no_network")
def test_every_command_of_the_page_runs_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed; pip install -e '.[dev]'")
    draw_photos(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    printed = {}
    for line in LINES:
        first, command, *words = shlex.split(line)
        assert first == "jointsearch"
        assert run(COMMANDS[command], words) == 0, capsys.readouterr().err
        printed[command] = capsys.readouterr().out
    assert "42 images in 3 classes" in printed["check"]
    assert "Expected on" in printed["search"]
    assert "found" in printed["compare"]
    assert "trivialaugment" in printed["retrain"]
    made = ("policy.png", "my_policy.py", "network.onnx", "runs/photos/report.html", "classes/classes.csv")
    assert [name for name in made if not (tmp_path / name).is_file()] == []
    with (tmp_path / "classes" / "classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 42
    assert {row["class"] for row in rows} <= {"apple", "sky", "tree"}
    model = json.loads((tmp_path / "runs/photos/found/seed0/model.json").read_text())
    assert (model["classes"], model["image_size"]) == (["apple", "sky", "tree"], 32)


def test_a_refused_socket_is_noticed(no_network: None) -> None:
    with pytest.raises(AssertionError, match="a socket was opened"):
        socket.create_connection(("127.0.0.1", 9))
