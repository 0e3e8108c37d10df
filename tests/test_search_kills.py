"""A search that is killed anywhere ends with the same bits: of a policy, and of policy and cells together."""

import json
import os
import random
import signal
import time
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from jointsearch.estimators.reinforce import ReinforceSettings
from jointsearch.loops.journal import Interrupted
from jointsearch.loops.recipe import Recipe, Warmup
from jointsearch.networks.supernet import SupernetSettings
from jointsearch.runs.checkpoint import load_checkpoint
from jointsearch.search_kinds import Joint
from jointsearch.searchers.cell_learner import ArchitectureSettings
from jointsearch.searchers.rewards import Stabilize
from search_spaces.genotype import Genotype
from tests.forked import forkserver
from tests.kills import same, sleep_until, wait_for
from tests.runs_bench import DIGITS, QUICK, SEARCH, differentiable, run_searches, search_study

pytestmark = pytest.mark.slow

EPOCHS = 4
FEWER = replace(DIGITS, reduced=300)
STUDIES = {
    # Surrogates and their optimizer, shuffling, several draws and validation batches; 12 steps.
    "policy": search_study(
        differentiable(stabilize=Stabilize(draws_per_validation=2, validation_batches=2), shuffled=True),
        replace(QUICK, epochs=EPOCHS),
        dataset=FEWER,
    ),
    # Drawn paths, whose noise is a buffer, and the momentum of the architecture; 12 steps.
    "joint": search_study(
        search=Joint(
            searcher=differentiable(magnitude_gradient="none", estimator=ReinforceSettings()),
            architecture=ArchitectureSettings(learning_rate=0.05),
            supernet=SupernetSettings(space="small", channels=4, layers=3, variant="gdas"),
            search_recipe=replace(QUICK, epochs=EPOCHS),
        ),
        dataset=FEWER,
        select_epoch="best",
    ),
}
# Everything that has a state of its own: averaging, dropout, clipping, warm-up.
RECIPE = Recipe(
    epochs=EPOCHS,
    batch_size=50,
    ema_decay=0.9,
    clip_gradient=5.0,
    warmup=Warmup(1),
    precision="float32",
    evaluate_every=1,
)
RECIPES = {"policy": replace(RECIPE, drop_rate=0.2), "joint": RECIPE}


class Undisturbed(NamedTuple):
    """How an undisturbed search of a kind ends, and the seconds from its folder to its result."""

    kind: str
    state: dict[str, Any]
    seconds: float


def go(kind: str, folder: str, save_seconds: float = 0.1) -> None:
    torch.set_num_threads(1)
    try:
        run_searches(STUDIES[kind], folder, RECIPES[kind], save_seconds=save_seconds)
    except Interrupted as interrupted:
        os._exit(interrupted.exit_code)


def final_state(folder: Path) -> dict[str, Any]:
    loaded = load_checkpoint(folder / SEARCH / "checkpoints")
    assert loaded is not None
    result = json.loads((folder / SEARCH / "result.json").read_text())
    result.pop("seconds")
    kept = [path for path in (folder / SEARCH).iterdir() if path.suffix in (".json", ".jsonl")]
    files = {path.name: path.read_bytes() for path in kept if path.name not in ("birth.json", "result.json")}
    return files | {"result": result, "state": {key: loaded.state[key] for key in loaded.state if key != "seconds"}}


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    return forkserver()


@pytest.fixture(scope="module", params=STUDIES)
def undisturbed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, processes: Any
) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    child = processes.Process(target=go, args=(request.param, str(folder)))
    child.start()
    wait_for(folder / SEARCH / "settings.json")
    began = time.monotonic()
    child.join(120)
    assert child.exitcode == 0
    return Undisturbed(request.param, final_state(folder), time.monotonic() - began)


def test_the_checkpoint_holds_all_that_learns(undisturbed: Undisturbed) -> None:
    state = undisturbed.state["state"]
    policy, cells = state["searcher"]["policy"], state["searcher"]["cells"]
    assert int(policy["soft"]["visits"].sum()) == EPOCHS * 150 * (2 if undisturbed.kind == "policy" else 1)
    assert float(policy["soft"]["preference"].abs().max()) > 0.05
    assert policy["optimizer"]["state"]
    assert state["trainer"]["optimizer"]["state"]
    if undisturbed.kind == "policy":
        assert len(policy["estimator"]) == 10  # two surrogates of two layers, and the size of rewards
        assert float(policy["estimator"]["mean_square.sum"]) > 0
        assert policy["estimator"]["surrogates.0.output.weight"].any()  # 0 before it learns
        assert policy["control_optimizer"]["state"]
        assert cells is None
    else:
        assert cells["optimizer"]["state"]
        assert state["trainer"]["network"]["noise"].any()
        assert Genotype.from_json(undisturbed.state["genotype.json"].decode())


@pytest.fixture(scope="module")
def kills() -> list[tuple[str, bool, bool]]:
    """Of each killed search: its kind, whether it was killed before its result, and had a checkpoint then."""
    return []


@pytest.mark.parametrize("moment", range(10))
def test_killed_at_a_random_moment_it_ends_with_the_same_bits(
    moment: int, tmp_path: Path, processes: Any, undisturbed: Undisturbed, kills: list[Any]
) -> None:
    folder = tmp_path / SEARCH
    child = processes.Process(target=go, args=(undisturbed.kind, str(tmp_path)))
    child.start()
    wait_for(folder / "settings.json")
    sleep_until(folder, 0.9 * (moment + random.Random(moment).random()) / 10 * EPOCHS, undisturbed.seconds / EPOCHS)
    child.kill()
    child.join(30)
    killed = child.exitcode == -signal.SIGKILL and not (folder / "result.json").exists()
    assert killed or (folder / "result.json").exists()
    kills.append((undisturbed.kind, killed, killed and load_checkpoint(folder / "checkpoints") is not None))
    again = processes.Process(target=go, args=(undisturbed.kind, str(tmp_path)))
    again.start()
    again.join(120)
    assert again.exitcode == 0
    assert same(final_state(tmp_path), undisturbed.state)


@pytest.mark.parametrize("kind", STUDIES)
def test_most_of_the_killed_searches_were_under_way_and_some_had_a_checkpoint(
    kind: str, kills: list[tuple[str, bool, bool]]
) -> None:
    mine = [(killed, resumed) for killed_kind, killed, resumed in kills if killed_kind == kind]
    if len(mine) < 10:
        pytest.skip("speaks of all ten kills above, and not all of them ran")
    assert sum(killed for killed, _ in mine) >= 7
    assert sum(resumed for _, resumed in mine) >= 3


def test_a_signal_saves_and_ends_with_its_code_and_resumes_the_same(
    tmp_path: Path, processes: Any, undisturbed: Undisturbed
) -> None:
    child = processes.Process(target=go, args=(undisturbed.kind, str(tmp_path), 1e6))
    child.start()
    wait_for(tmp_path / SEARCH / "metrics.jsonl")
    os.kill(child.pid, signal.SIGTERM)
    child.join(30)
    assert child.exitcode == 143
    assert not (tmp_path / SEARCH / "result.json").exists()
    saved = load_checkpoint(tmp_path / SEARCH / "checkpoints")
    assert saved is not None
    assert 0 < saved.step < 12
    with (tmp_path / SEARCH / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 99}\n')  # as a kill between a line and its checkpoint leaves one
    go(undisturbed.kind, str(tmp_path))
    assert same(final_state(tmp_path), undisturbed.state)
