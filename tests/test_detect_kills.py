"""A detector's training that is killed anywhere ends with the same bits."""

import json
import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from jointsearch.data.object_sets import ObjectSplits
from jointsearch.data.object_shapes import DrawnSource, draw_pictures
from jointsearch.data.shapes import CLASSES
from jointsearch.data.standard import Standard
from jointsearch.loops.backbones import Backbone
from jointsearch.loops.detect import DetectionGrid, run_detection
from jointsearch.loops.recipe import Recipe
from jointsearch.networks.detectors import MaskRcnn
from jointsearch.runs.checkpoint import load_checkpoint
from tests.forked import forkserver
from tests.kills import same, sleep_until, wait_for

pytestmark = pytest.mark.slow

EPOCHS = 4
ROW = Path("scratch+trivialaugment/seed3")


@dataclass(frozen=True)
class FewShapes:
    """24 drawn images for training and 6 for testing."""

    name: str = "few_shapes"
    reduced: int | None = None
    standard: Standard = field(default_factory=lambda: Standard(flip=True))

    def find_objects(self, masks: bool) -> ObjectSplits:
        pictures = draw_pictures(30, masks, torch.Generator().manual_seed(0))
        return ObjectSplits({"train": DrawnSource(pictures[:24]), "test": DrawnSource(pictures[24:])}, CLASSES)


# Regions are drawn from the global generator; the policy from ours; averaging and momentum have a state.
GRID = DetectionGrid(
    {"scratch": {3: Backbone.fresh("tiny_cnn")}},
    FewShapes(),
    MaskRcnn(channels=8, regions=8),
    Recipe(EPOCHS, 8, learning_rate=0.01, ema_decay=0.9, clip_gradient=5.0, precision="float32"),
    ("trivialaugment",),
)


def go(folder: str) -> None:
    torch.set_num_threads(1)
    run_detection(GRID, folder, save_seconds=0.1)


def final_state(folder: Path) -> dict[str, Any]:
    loaded = load_checkpoint(folder / ROW / "checkpoints")
    assert loaded is not None
    result = json.loads((folder / ROW / "result.json").read_text())
    result.pop("seconds")
    names = ("metrics.jsonl", "predictions.json", "settings.json", "model.safetensors")
    files = {name: (folder / ROW / name).read_bytes() for name in names}
    return files | {"result": result, "state": {key: loaded.state[key] for key in loaded.state if key != "seconds"}}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], float]:
    """How it ends when nothing comes between, and the seconds from its folder to its result."""
    folder = tmp_path_factory.mktemp("undisturbed")
    child = forkserver().Process(target=go, args=(str(folder),))
    child.start()
    wait_for(folder / ROW / "settings.json")
    began = time.monotonic()
    child.join(120)
    assert child.exitcode == 0
    return final_state(folder), time.monotonic() - began


@pytest.mark.parametrize("moment", range(10))
def test_killed_at_a_random_moment_it_ends_with_the_same_bits(
    moment: int, tmp_path: Path, undisturbed: tuple[dict[str, Any], float]
) -> None:
    wanted, seconds = undisturbed
    child = forkserver().Process(target=go, args=(str(tmp_path),))
    child.start()
    wait_for(tmp_path / ROW / "settings.json")
    sleep_until(tmp_path / ROW, 0.9 * (moment + random.Random(moment).random()) / 10 * EPOCHS, seconds / EPOCHS)
    child.kill()
    child.join(30)
    assert child.exitcode == -signal.SIGKILL or (tmp_path / ROW / "result.json").exists()
    again = forkserver().Process(target=go, args=(str(tmp_path),))
    again.start()
    again.join(120)
    assert again.exitcode == 0
    assert same(final_state(tmp_path), wanted)
