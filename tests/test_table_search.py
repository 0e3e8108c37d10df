"""A search by table in the loop: resumed it ends on the same bits, and measuring leaves no trace in what is trained."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from jointsearch.data.sets import DataSplits, ImageSet
from jointsearch.loops.journal import Interrupted
from jointsearch.loops.plan import Plan
from jointsearch.loops.recipe import Recipe
from jointsearch.loops.search import search
from jointsearch.protocols import Context, StepSearcher, TrainStep
from jointsearch.runs.checkpoint import load_checkpoint
from jointsearch.runs.plain_state import encode_state
from jointsearch.searchers.table import Table, Trials
from jointsearch.settings import as_plain
from tests.runs_bench import Stopping
from tests.table_bench import MOVED, some, table, trials


def searched(folder: Path, search_of: Table | Trials, stop_at: int | None = None) -> dict[str, Any]:
    """A search by the loop, 3 steps an epoch; a signal comes while step `stop_at` is done, steps of trials counted."""
    parts = [some(40, seed) for seed in (1, 2)]
    train, judges = (ImageSet(part.images, part.labels, ("a", "b")) for part in parts)
    recipe = Recipe(epochs=3, batch_size=16, precision="float32", drop_rate=0.2)
    start = search_of.policy_space.policy()
    plan = Plan(folder, "tiny_cnn", recipe, MOVED, 5, start, search=as_plain(search_of), save_seconds=1e6)

    def stopping(network: nn.Module, train_step: TrainStep, noise: torch.Generator) -> StepSearcher:
        return search_of.start(Context(network, Stopping(train_step, stop_at), MOVED, noise, recipe.epochs))

    return search(plan, DataSplits(train, judges, judges.subset(judges.labels[:0])), stopping)


def final_state(folder: Path) -> dict[str, Any]:
    loaded = load_checkpoint(folder / "checkpoints")
    assert loaded is not None
    return {key: value for key, value in loaded.state.items() if key != "seconds"}


OPS = ("Rotate", "Cutout", "Invert")
LOOPED = table(*OPS, levels=1, every=2, from_epoch=1, validation_batches=2)
TRIED = trials(*OPS, levels=1, trial_steps=4, validation_batches=2)
Undisturbed = tuple[Path, dict[str, Any], Table | Trials]


@pytest.fixture(scope="module", params=[LOOPED, TRIED], ids=["one_step", "many_steps"])
def undisturbed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, searched(folder, request.param), request.param


@pytest.mark.parametrize("place", range(3))
def test_interrupted_and_resumed_it_ends_on_the_same_bits(place: int, tmp_path: Path, undisturbed: Undisturbed) -> None:
    folder, expected, looped = undisturbed
    # While the weights are trained, and with trials of 4 rows x 4 steps, in the first, after it and in the second.
    stop_at = ((12, 21, 30) if looped is TRIED else (4, 5, 8))[place]
    with pytest.raises(Interrupted):
        searched(tmp_path, looped, stop_at)
    result = searched(tmp_path, looped)
    assert result | {"seconds": 0} == expected | {"seconds": 0}
    assert encode_state(final_state(tmp_path)) == encode_state(final_state(folder))


def test_measuring_leaves_no_trace_in_what_is_trained(tmp_path: Path, undisturbed: Undisturbed) -> None:
    searched(tmp_path, replace(LOOPED, from_epoch=100))
    unmeasured, measured = final_state(tmp_path), final_state(undisturbed[0])
    assert len(unmeasured["searcher"]["gains"]) == 0
    assert len(measured["searcher"]["gains"]) == (3 if undisturbed[2] is LOOPED else 2)
    assert encode_state(unmeasured["generators"]) == encode_state(measured["generators"])
    assert encode_state(unmeasured["trainer"]["optimizer"]) == encode_state(measured["trainer"]["optimizer"])
    for name, weight in measured["trainer"]["network"].items():
        # A recorded step averages the running variance in another order, which may move its last bit.
        rounding = 1e-6 if name.endswith("running_var") else 0.0
        torch.testing.assert_close(weight, unmeasured["trainer"]["network"][name], rtol=rounding, atol=0.0)


def test_the_cost_counts_every_step_and_every_measurement(undisturbed: Undisturbed) -> None:
    _, result, looped = undisturbed
    # Of 2 validation batches and 4 rows: gradient and rewards, or 4 training steps and the validation loss of each.
    # 9 steps, of which the table measures 4, 6 and 8, and trials the first of the last two epochs.
    measurements, cost = (3, 3 * 2 + 2 * 4) if looped is LOOPED else (2, 4 * (3 * 4 + 2))
    assert result["forward_equivalents"] == 9 * 3 + measurements * cost
    assert result["images_measured"] == (16 + 8 + 16 if looped is LOOPED else 16 + 16)
