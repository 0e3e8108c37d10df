"""A trained network can be used without the training that made it."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from jointsearch import Grid, Recipe, create_network, load_network, load_splits, run_grid
from jointsearch.data.standard import normalize
from jointsearch.loops.grid import CellsSettings
from jointsearch.networks.trained import save_network
from search_spaces.errors import InputError
from search_spaces.plain_json import read_json
from tests.runs_bench import DIGITS

SHORT = Recipe(epochs=1, batch_size=50, precision="float32")


@pytest.mark.parametrize(("network", "genotype"), [("tiny_cnn", None), ("jointsearch_cells", "DARTS_V2")])
def test_it_predicts_as_it_did_when_it_was_tested(tmp_path: Path, network: str, genotype: str | None) -> None:
    grid = Grid(("none",), DIGITS, (3,), network, SHORT, genotype=genotype, cells=CellsSettings(4, 3))
    [result] = run_grid(grid, tmp_path)
    loaded = load_network(tmp_path / "none" / "seed3")
    test = load_splits(DIGITS, 3).test
    with torch.no_grad():
        predicted = loaded(normalize(test.images, DIGITS.standard)).argmax(1)  # type: ignore[union-attr]
    assert 100 * (predicted == test.labels).float().mean().item() == pytest.approx(result["test_accuracy_last"])
    told = read_json(tmp_path / "none" / "seed3" / "model.json", "model", 10**7, 12)
    assert told["classes"] == list("0123456789")
    assert told["mean"] == list(DIGITS.standard.mean)


def test_a_folder_without_a_trained_network_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no model\.safetensors; give the folder of a finished training"):
        load_network(tmp_path)


class Tied(nn.Module):
    """Two names for one weight, and a view of another."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.register_buffer("part", self.first.bias.detach()[:2])


def test_weights_that_share_memory_are_saved(tmp_path: Path) -> None:
    network = Tied()
    save_network(tmp_path, network, {})
    loaded = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert loaded.keys() == network.state_dict().keys()
    assert all(torch.equal(value, loaded[name]) for name, value in network.state_dict().items())


TOLD = {"architecture": "tiny_cnn", "model_args": {"num_classes": 2, "in_chans": 1}, "classes": ["a", "b"]}
DAMAGED: dict[str, Any] = {
    "cut off": (lambda content: content[:-9], TOLD),
    "no safetensors": (lambda content: b"0123456789", TOLD),
    "of another": (lambda content: content, TOLD | {"model_args": {"num_classes": 3, "in_chans": 1}}),
    "no classes": (lambda content: content, {"architecture": "tiny_cnn", "model_args": {}}),
    "no network": (lambda content: content, TOLD | {"architecture": 3}),
    "no arguments": (lambda content: content, TOLD | {"model_args": 3}),
    "odd arguments": (lambda content: content, TOLD | {"model_args": {"genotype": 3}}),
    "another place": (lambda content: content, TOLD | {"architecture": "hf-hub:someone/something"}),
    "another place within": (
        lambda content: content, TOLD | {"architecture": "jointsearch_small", "model_args": {"base": "hf-hub:a/b"}}
    ),
    "other weights": (lambda content: content, TOLD | {"model_args": {"checkpoint_path": "elsewhere.pth"}}),
    "a download": (lambda content: content, TOLD | {"model_args": {"pretrained": True}}),
    "a list": (lambda content: content, [1]),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_network_is_an_input_error(damage: str, tmp_path: Path) -> None:
    save_network(tmp_path, create_network("tiny_cnn", 2, 1, 8), TOLD)
    assert isinstance(load_network(tmp_path), nn.Module)
    spoil, told = DAMAGED[damage]
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(spoil(weights.read_bytes()))
    (tmp_path / "model.json").write_text(json.dumps(told))
    with pytest.raises(InputError, match=r"restore|did you mean|use wide|give"):
        load_network(tmp_path)
