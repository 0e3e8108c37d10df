"""What docs/kornia.md shows runs, and its table has every op and the function that each calls today."""

import re
import runpy
from pathlib import Path

import pytest
import torch

from jointsearch.benchmarks.contracts import op_arguments
from jointsearch.benchmarks.kornia_functions import COUNTERPARTS, uses
from search_spaces.augment.table import OPS
from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "kornia.md").read_text(encoding="utf-8")
ROWS = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")][2:]


def test_the_example_runs_and_its_magnitudes_have_a_gradient(tmp_path: Path) -> None:
    [example] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "example.py").write_text(example)
    before = torch.get_rng_state()
    found = runpy.run_path(str(tmp_path / "example.py"))
    torch.set_rng_state(before)  # kornia's own steps draw from it
    assert found["soft"].magnitude_logits.grad.any()
    assert found["images"].shape == (8, 3, 32, 32)
    assert found["masks"].shape == (8, 1, 32, 32)
    assert found["boxes"].shape == (8, 1, 4)


def test_the_table_has_every_op_in_order() -> None:
    assert [row[0] for row in ROWS] == list(OPS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_last_column_says_which_function_an_op_calls(row: list[str]) -> None:
    op, counterpart = OPS[row[0]], COUNTERPARTS[row[0]]
    assert row[1] == f"`{counterpart.name}`"
    assert (row[-1] == "kornia") == uses(op, counterpart.function, op_arguments(op, torch.rand(2, 3, 8, 8)))
    assert row[-1] == "kornia" or row[-1].startswith("ours: ")
    assert "no reason" not in row[-1]


def test_the_sentence_before_it_names_the_ops_that_call_kornia() -> None:
    [named] = re.findall(r"^(.*) call kornia's function", PAGE, re.MULTILINE)
    assert re.split(", | and ", named) == [row[0] for row in ROWS if row[-1] == "kornia"]
