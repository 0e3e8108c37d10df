"""A search by table in the loop: resumed it ends on the same bits, and measuring leaves no trace in what is trained."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jointsearch.checkpoint import load_checkpoint
from jointsearch.data.sets import DataSplits, ImageSet
from jointsearch.loops.recipe import Recipe
from jointsearch.loops.resumable import Interrupted
from jointsearch.loops.search import search
from jointsearch.loops.trial import Trial
from jointsearch.plain_state import encode_state
from jointsearch.searchers.make import new_searcher
from jointsearch.searchers.table import TableSearch
from jointsearch.settings import as_plain
from tests.test_table_searcher import MOVED, settings, some


def searched(folder: Path, search_of: TableSearch, stop_at: int | None = None) -> dict[str, Any]:
    """A search by the loop, 3 steps an epoch; a signal comes while step `stop_at` is done."""
    parts = [some(40, seed) for seed in (1, 2)]
    train, judges = (ImageSet(part.images, part.labels, ("a", "b")) for part in parts)
    recipe = Recipe(epochs=3, batch_size=16, precision="float32", drop_rate=0.2)
    trial = Trial(
        folder, search_of.policy_space.policy(), "tiny_cnn", recipe, MOVED, 5, {}, as_plain(search_of), save_seconds=1e6
    )
    made = new_searcher(search_of, MOVED, 5)
    steps = []

    def stopping(network: nn.Module, train_step: Callable[[Tensor, Tensor], Tensor], noise: torch.Generator) -> Any:
        def step(images: Tensor, labels: Tensor) -> Tensor:
            steps.append(len(labels))
            if len(steps) == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            return train_step(images, labels)

        return made(network, step, noise)

    return search(trial, DataSplits(train, judges, judges.subset(judges.labels[:0])), stopping)


def final_state(folder: Path) -> dict[str, Any]:
    loaded = load_checkpoint(folder / "checkpoints")
    assert loaded is not None
    return {key: value for key, value in loaded.state.items() if key != "seconds"}


LOOPED = settings("Rotate", "Cutout", "Invert", levels=1, every=2, from_epoch=1, validation_batches=2)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, searched(folder, LOOPED)


@pytest.mark.parametrize("stop_at", [4, 5, 8])
def test_interrupted_and_resumed_it_ends_on_the_same_bits(
    stop_at: int, tmp_path: Path, undisturbed: tuple[Path, dict[str, Any]]
) -> None:
    with pytest.raises(Interrupted):
        searched(tmp_path, LOOPED, stop_at)
    result = searched(tmp_path, LOOPED)
    folder, expected = undisturbed
    assert result | {"seconds": 0} == expected | {"seconds": 0}
    assert encode_state(final_state(tmp_path)) == encode_state(final_state(folder))


def test_measuring_leaves_no_trace_in_what_is_trained(tmp_path: Path, undisturbed: tuple[Path, dict[str, Any]]) -> None:
    searched(tmp_path, replace(LOOPED, searcher=replace(LOOPED.searcher, from_epoch=100)))
    unmeasured, measured = final_state(tmp_path), final_state(undisturbed[0])
    assert len(unmeasured["searcher"]["gains"]) == 0
    assert len(measured["searcher"]["gains"]) == 3
    assert encode_state(unmeasured["generators"]) == encode_state(measured["generators"])
    assert encode_state(unmeasured["trainer"]["optimizer"]) == encode_state(measured["trainer"]["optimizer"])
    for name, weight in measured["trainer"]["network"].items():
        # A recorded step averages the running variance in another order, which may move its last bit.
        rounding = 1e-6 if name.endswith("running_var") else 0.0
        torch.testing.assert_close(weight, unmeasured["trainer"]["network"][name], rtol=rounding, atol=0.0)


def test_the_cost_counts_every_step_and_every_measurement(undisturbed: tuple[Path, dict[str, Any]]) -> None:
    result = undisturbed[1]
    # 9 steps of 3, and 3 measurements (steps 4, 6, 8) of 2 validation batches and 4 entries.
    assert result["forward_equivalents"] == 9 * 3 + 3 * (3 * 2 + 2 * 4)
    assert result["images_measured"] == 16 + 8 + 16
