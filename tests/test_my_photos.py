"""The walkthrough with one's own photos runs as written, from the check to a network in use, and needs no network."""

import csv
import json
import re
import shlex
import socket
import time
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


def draw_photos(folder: Path, count: int = 14) -> None:
    """Three classes of so many noisy photos each, told apart by color, upright and across."""
    noise = torch.Generator().manual_seed(0)
    for place, kind in enumerate(("apple", "sky", "tree")):
        (folder / kind).mkdir(parents=True)
        for number in range(count):
            pixels = torch.randint(120, (48, 40, 3) if number % 2 else (36, 48, 3), generator=noise, dtype=torch.uint8)
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
    for line in LINES[:-1]:  # the last is the search in earnest, which takes an hour
        first, command, *words = shlex.split(line)
        assert first == "jointsearch"
        assert run(COMMANDS[command], words) == 0, capsys.readouterr().err
        printed[command] = capsys.readouterr().out
    assert "42 images in 3 classes" in printed["check"]
    assert "0 errors" in printed["check"]
    assert (
        run("check_data", ["dataset=folder", "dataset.path=photos"]) == 2
    )  # as the page says: they have several sizes
    assert "set dataset.image_size" in "".join(capsys.readouterr())
    assert "Expected on" in printed["search"]
    assert "found" in printed["compare"]
    assert "trivialaugment" in printed["retrain"]
    made = ("policy.png", "my_policy.py", "network.onnx", "runs/photos/report.html", "predictions/classes.csv")
    assert [name for name in made if not (tmp_path / name).is_file()] == []
    with (tmp_path / "predictions" / "classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 42
    assert {row["class"] for row in rows} <= {"apple", "sky", "tree"}
    model = json.loads((tmp_path / "runs/photos/retrained/found/seed0/model.json").read_text())
    assert (model["classes"], model["image_size"]) == (["apple", "sky", "tree"], 32)


@pytest.mark.slow
@pytest.mark.usefixtures("no_network")
def test_a_joint_search_of_photos_and_its_report_need_no_network_and_the_page_is_made_in_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_photos(tmp_path / "photos", 40)
    monkeypatch.chdir(tmp_path)
    data = ["dataset=folder", "dataset.path=photos", "dataset.image_size=32", "dataset.validation=12"]
    sizes = [f"{of}.{size}" for of in ("supernet", "cells") for size in ("channels=4", "layers=3")]
    short = ["search_recipe.epochs=2", "recipe.epochs=1", "recipe.evaluate_every=1", "seeds=[0,1]", "threads=1"]
    assert run("joint_search", [*data, *sizes, *short, "run=mine"]) == 0
    page = tmp_path / "mine" / "report.html"
    page.unlink()
    before = time.process_time()
    assert run("report", ["mine"]) == 0
    assert time.process_time() - before < 10
    assert 100_000 < page.stat().st_size < 5_000_000


def test_a_refused_socket_is_noticed(no_network: None) -> None:
    with pytest.raises(AssertionError, match="a socket was opened"):
        socket.create_connection(("127.0.0.1", 9))
