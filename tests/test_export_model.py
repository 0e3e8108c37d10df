"""A trained network, written for other programs, gives there what it gives here."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jointsearch import Digits, Grid, Recipe, load_network, run_grid
from jointsearch.commands import export_model as command
from jointsearch.data.standard import Standard, normalize
from jointsearch.export import model as exporting
from jointsearch.export.model import FORMATS, export_model
from jointsearch.loops.grid import CellsSettings
from jointsearch.networks.trained import read_description
from search_spaces.errors import InputError
from tests.scripts_bench import refusal, run_script

pytest.importorskip("onnx", reason="the extra onnx is not installed; CI has it by the extra dev")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed; CI has it by the extra dev")

# torch 2.15 calls TorchScript deprecated wherever it is used.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")

FEW = Digits(reduced=50, validation=0)
SHORT = Recipe(epochs=1, batch_size=50, precision="float32")
NETWORKS: dict[str, dict[str, Any]] = {
    "tiny_cnn": {"network": "tiny_cnn"},
    "test_vit": {"network": "test_vit"},
    "cells": {"network": "jointsearch_cells", "genotype": "DARTS_V2", "cells": CellsSettings(4, 3)},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a training of each network; a folder of cells cannot stand in one table with others."""
    folder = tmp_path_factory.mktemp("run")
    for name, network in NETWORKS.items():
        run_grid(Grid(("none",), FEW, (0,), recipe=SHORT, **network), folder / name)
    return folder


def by_onnxruntime(file: Path, images: Tensor) -> Tensor:
    runtime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed; CI has it by the extra dev")
    return torch.from_numpy(runtime.InferenceSession(str(file)).run(["logits"], {"images": images.numpy()})[0])


READERS: dict[str, Callable[[Path, Tensor], Tensor]] = {
    "onnx": by_onnxruntime,
    "torchscript": lambda file, images: torch.jit.load(str(file))(images),
    "exported": lambda file, images: torch.export.load(file).module()(images),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_vit", "cells"])
@pytest.mark.parametrize("format", FORMATS)
def test_the_file_takes_photos_from_0_to_1_and_gives_the_logits_of_the_network(
    format: str, name: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, folder = tmp_path / f"out{FORMATS[format][0]}", run / name / "none" / "seed0"
    assert run_script("export_model", str(folder), f"format={format}", f"out={file}") == 0
    assert "It takes images (B, 1, 8, 8) in [0, 1]; normalization is inside." in capsys.readouterr().out
    told = read_description(folder)
    for count in (1, 7):
        images = torch.rand(count, 1, 8, 8)
        with torch.no_grad():
            standard = Standard(mean=tuple(told["mean"]), std=tuple(told["std"]))
            expected = load_network(folder)(normalize(images, standard))
            torch.testing.assert_close(READERS[format](file, images), expected, atol=1e-4, rtol=0)


def test_the_file_holds_its_description(run: Path, tmp_path: Path) -> None:
    import onnx

    folder = run / "tiny_cnn" / "none" / "seed0"
    told = json.loads((folder / "model.json").read_text())
    network = load_network(folder)
    for name, (ending, *_) in FORMATS.items():
        export_model(network, told, tmp_path / f"a{ending}", name)
    extra = {"model.json": ""}
    torch.jit.load(str(tmp_path / "a.pt"), _extra_files=extra)
    assert json.loads(extra["model.json"]) == told
    torch.export.load(tmp_path / "a.pt2", extra_files=extra)
    assert json.loads(extra["model.json"]) == told
    [held] = onnx.load(str(tmp_path / "a.onnx")).metadata_props
    assert (held.key, json.loads(held.value)) == ("model.json", told)


def test_a_run_folder_stands_for_the_first_seed_of_its_best_row(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(run / "tiny_cnn")
    assert run_script("export_model", ".", "format=torchscript") == 0
    assert "none/seed0/model.pt: the network in none/seed0" in capsys.readouterr().out
    written = Path("none/seed0/model.pt").read_bytes()
    assert "is already there; give overwrite=true" in refusal(capsys, "export_model", ".", "format=torchscript")
    assert run_script("export_model", ".", "format=torchscript", "overwrite=true") == 0
    Path("none/seed0/model.pt").unlink()
    assert written


def test_onnxs_own_reference_reads_the_file_where_there_is_no_runtime(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run / "tiny_cnn" / "none" / "seed0"
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert export_model(load_network(folder), read_description(folder), tmp_path / "a.onnx", "onnx") <= 1e-4


class Growing(nn.Module):
    """Looks at the number of images in Python, which TorchScript takes for a constant."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :3] * float(len(images))


TOLD = {"network": "growing", "mean": [0.5], "std": [0.5], "channels": 1, "image_size": 4, "classes": ["a", "b", "c"]}


def test_a_file_that_differs_from_the_network_is_not_kept(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=r"the torchscript file differs from the network by .*; choose another format"):
        export_model(Growing(), TOLD, tmp_path / "a.pt", "torchscript")
    monkeypatch.setattr(exporting, "LARGEST_DIFFERENCE", -1.0)
    monkeypatch.chdir(tmp_path)
    folder = run / "tiny_cnn" / "none" / "seed0"
    assert "differs from the network" in refusal(capsys, "export_model", str(folder), "format=torchscript", "out=b.pt")


def test_what_is_missing_is_said(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "export_model needs run=" in refusal(capsys, "export_model")
    assert "holds no trained network" in refusal(capsys, "export_model", str(tmp_path))
    folder = str(run / "tiny_cnn" / "none" / "seed0")
    assert "cannot be written" in refusal(capsys, "export_model", folder, "format=torchscript", "out=missing/b.pt")
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert 'needs onnx; pip install "jointsearch[onnx]"' in refusal(capsys, "export_model", folder, "out=b.onnx")
    assert command.SUBJECT == "run"
