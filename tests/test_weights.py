"""A trained network can be used without the training that made it."""

from pathlib import Path

import pytest
import torch

from jointsearch import Grid, Recipe, load_network, load_splits, run_grid
from jointsearch.data.standard import normalize
from jointsearch.loops.grid import CellsSettings
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
    told = read_json(tmp_path / "none" / "seed3" / "network.json", "network")
    assert told["classes"] == list("0123456789")
    assert told["mean"] == list(DIGITS.standard.mean)


def test_a_folder_without_a_trained_network_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no weights\.safetensors; give the folder of a finished training"):
        load_network(tmp_path)
