"""A search by table in the loop: resumed it ends on the same bits, and measuring leaves no trace in what is trained."""

import os
import signal
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
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
from jointsearch.searchers.table_settings import TableSearch
from jointsearch.settings import as_plain
from jointsearch.train_step import TrainStep
from tests.test_table_searcher import MOVED, settings, some


@dataclass
class Stopping:
    """A training step that is killed in the middle of one of its calls."""

    train_step: TrainStep
    stop_at: int | None
    calls: int = 0

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.train_step(images, labels)

    def undone(self) -> AbstractContextManager[None]:
        return self.train_step.undone()


def searched(folder: Path, search_of: TableSearch, stop_at: int | None = None) -> dict[str, Any]:
    """A search by the loop, 3 steps an epoch; a signal comes while step `stop_at` is done, steps of trials counted."""
    parts = [some(40, seed) for seed in (1, 2)]
    train, judges = (ImageSet(part.images, part.labels, ("a", "b")) for part in parts)
    recipe = Recipe(epochs=3, batch_size=16, precision="float32", drop_rate=0.2)
    trial = Trial(
        folder, search_of.policy_space.policy(), "tiny_cnn", recipe, MOVED, 5, {}, as_plain(search_of), save_seconds=1e6
    )
    made = new_searcher(search_of, MOVED, 5, recipe.epochs)

    def stopping(network: nn.Module, train_step: TrainStep, noise: torch.Generator) -> Any:
        return made(network, Stopping(train_step, stop_at), noise)

    return search(trial, DataSplits(train, judges, judges.subset(judges.labels[:0])), stopping)


def final_state(folder: Path) -> dict[str, Any]:
    loaded = load_checkpoint(folder / "checkpoints")
    assert loaded is not None
    return {key: value for key, value in loaded.state.items() if key != "seconds"}


LOOPED = settings("Rotate", "Cutout", "Invert", levels=1, every=2, from_epoch=1, validation_batches=2)
TRIED = replace(LOOPED, searcher=replace(LOOPED.searcher, trial_steps=4))
Undisturbed = tuple[Path, dict[str, Any], TableSearch]


@pytest.fixture(scope="module", params=[LOOPED, TRIED], ids=["one_step", "many_steps"])
def undisturbed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, searched(folder, request.param), request.param


@pytest.mark.parametrize("place", range(3))
def test_interrupted_and_resumed_it_ends_on_the_same_bits(place: int, tmp_path: Path, undisturbed: Undisturbed) -> None:
    folder, expected, looped = undisturbed
    # While the weights are trained, and with trials of 4 rows x 4 steps, in the first, after it and in the second.
    stop_at = ((12, 21, 30) if looped.searcher.trial_steps else (4, 5, 8))[place]
    with pytest.raises(Interrupted):
        searched(tmp_path, looped, stop_at)
    result = searched(tmp_path, looped)
    assert result | {"seconds": 0} == expected | {"seconds": 0}
    assert encode_state(final_state(tmp_path)) == encode_state(final_state(folder))


def test_measuring_leaves_no_trace_in_what_is_trained(tmp_path: Path, undisturbed: Undisturbed) -> None:
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


def test_the_cost_counts_every_step_and_every_measurement(undisturbed: Undisturbed) -> None:
    _, result, looped = undisturbed
    # Of 2 validation batches and 4 rows: gradient and rewards, or 4 training steps and the validation loss of each.
    measurement = 3 * 2 + 2 * 4 if looped is LOOPED else 4 * (3 * 4 + 2)
    assert result["forward_equivalents"] == 9 * 3 + 3 * measurement  # 9 steps, of which 4, 6 and 8 are measured
    assert result["images_measured"] == 16 + 8 + 16
