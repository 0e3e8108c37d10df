"""A training that is killed anywhere ends with the same bits; what it reports is what it measured."""

import copy
import os
import random
import signal
import time
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch

from jointsearch.augmenters import with_policy
from jointsearch.data.datasets import Digits
from jointsearch.data.standard import normalize
from jointsearch.loops import journal
from jointsearch.loops.grid import Grid, run_grid
from jointsearch.loops.journal import Interrupted
from jointsearch.loops.recipe import Mixing, Recipe, Warmup
from jointsearch.loops.trainer import Trainer
from jointsearch.loops.training import Training
from jointsearch.protocols import Scores
from jointsearch.runs.checkpoint import load_checkpoint
from jointsearch.runs.track import read_metrics
from search_spaces.controls import resolve_policy
from search_spaces.errors import InputError
from search_spaces.policy import Policy
from search_spaces.schedule import PolicySchedule
from tests.forked import forkserver
from tests.kills import final_state, same, sleep_until, wait_for

# Everything that has a state of its own: averaging, mixing (NumPy's generator), dropout (torch's), clipping, warm-up.
RECIPE = Recipe(
    epochs=6,
    batch_size=50,
    drop_rate=0.2,
    label_smoothing=0.1,
    mixing=Mixing(mixup=0.2),
    ema_decay=0.9,
    clip_gradient=5.0,
    warmup=Warmup(epochs=1),
    evaluate_every=2,
)
DIGITS = Digits()
GRID = Grid(("autoaugment",), DIGITS, (3,), "wide_resnet16_1", RECIPE)
TRAINED = Path("autoaugment", "seed3")  # its only training
SMALL = Grid(("none",), DIGITS, (0,), "tiny_cnn", Recipe(epochs=2, batch_size=100, evaluate_every=1))


def train(folder: str, grid: Grid = GRID, save_seconds: float = 0.1) -> None:
    torch.set_num_threads(1)
    try:
        run_grid(grid, folder, save_seconds=save_seconds)
    except Interrupted as interrupted:
        os._exit(interrupted.exit_code)


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    return forkserver()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, processes: Any) -> tuple[dict[str, Any], float]:
    """How an undisturbed training ends, and the seconds from its folder to its result."""
    folder = tmp_path_factory.mktemp("undisturbed")
    child = processes.Process(target=train, args=(str(folder),))
    child.start()
    wait_for(folder / TRAINED / "settings.json")
    began = time.monotonic()
    child.join(120)
    assert child.exitcode == 0
    return final_state(folder), time.monotonic() - began


@pytest.fixture(scope="module")
def kills() -> list[tuple[bool, bool]]:
    """Of each killed training: whether it was killed before its result, and whether it had a checkpoint then."""
    return []


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(10))
def test_killed_at_a_random_moment_it_ends_with_the_same_bits(
    moment: int, tmp_path: Path, processes: Any, undisturbed: tuple[dict[str, Any], float], kills: list[Any]
) -> None:
    reference, seconds = undisturbed
    folder = tmp_path / TRAINED
    child = processes.Process(target=train, args=(str(tmp_path),))
    child.start()
    wait_for(folder / "settings.json")
    share = 0.9 * (moment + random.Random(moment).random()) / 10
    sleep_until(folder, share * RECIPE.epochs, seconds / RECIPE.epochs)
    child.kill()
    child.join(30)
    killed = child.exitcode == -signal.SIGKILL and not (folder / "result.json").exists()
    assert killed or (folder / "result.json").exists()
    kills.append((killed, killed and load_checkpoint(folder / "checkpoints") is not None))
    again = processes.Process(target=train, args=(str(tmp_path),))
    again.start()
    again.join(120)
    assert again.exitcode == 0
    assert same(final_state(tmp_path), reference)


@pytest.mark.slow
def test_most_of_the_killed_trainings_were_under_way_and_some_had_a_checkpoint(kills: list[tuple[bool, bool]]) -> None:
    if len(kills) < 10:
        pytest.skip("speaks of all ten kills above, and not all of them ran")
    assert sum(killed for killed, _ in kills) >= 7
    assert sum(resumed for _, resumed in kills) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends_with_its_code_and_resumes_the_same(
    number: signal.Signals, tmp_path: Path, processes: Any, undisturbed: tuple[dict[str, Any], float]
) -> None:
    child = processes.Process(target=train, args=(str(tmp_path), GRID, 1e6))
    child.start()
    folder = tmp_path / TRAINED
    wait_for(folder / "metrics.jsonl")
    os.kill(child.pid, number)
    child.join(30)
    assert child.exitcode == 128 + number
    assert not (folder / "result.json").exists()
    saved = load_checkpoint(folder / "checkpoints")
    assert saved is not None
    assert saved.step > 0
    train(str(tmp_path))
    assert same(final_state(tmp_path), undisturbed[0])


def test_a_finished_training_is_read_and_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run_grid(SMALL, tmp_path)
    monkeypatch.setattr(journal, "load_checkpoint", None)
    assert run_grid(SMALL, tmp_path) == first


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"recipe": Recipe(epochs=3, batch_size=100, evaluate_every=1)}, "recipe.epochs"),
        ({"network": "wide_resnet16_1"}, "network"),
        ({"dataset": replace(DIGITS, validation=700)}, "dataset.validation"),
    ],
)
def test_a_run_folder_of_other_settings_is_refused_by_name(change: dict[str, Any], named: str, tmp_path: Path) -> None:
    run_grid(SMALL, tmp_path)
    with pytest.raises(InputError, match=named):
        run_grid(replace(SMALL, **change), tmp_path)
    # Nor beside them, where no table could be made of both.
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=rf"was not trained alike .*{named} was .*, is "):
        run_grid(replace(SMALL, **change, policies=("random",), seeds=(5,)), tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_another_policy_file_of_the_same_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    resolve_policy("autoaugment").save(path)
    grid = replace(SMALL, policies=(str(path),))
    run_grid(grid, tmp_path / "run")
    resolve_policy("none").save(path)
    with pytest.raises(InputError, match="policy"):
        run_grid(grid, tmp_path / "run")


def test_another_thread_count_is_refused_before_training_goes_on(tmp_path: Path, processes: Any) -> None:
    run_grid(SMALL, tmp_path)
    (tmp_path / "none" / "seed0" / "result.json").unlink()
    torch.set_num_threads(2)
    try:
        with pytest.raises(InputError, match="thread"):
            run_grid(SMALL, tmp_path)
    finally:
        torch.set_num_threads(1)


def test_a_training_that_diverges_says_so(tmp_path: Path) -> None:
    recipe = Recipe(epochs=20, batch_size=100, learning_rate=100.0, weight_decay=1.0, precision="float32")
    with pytest.raises(InputError, match=r"diverged; lower recipe\.learning_rate"):
        run_grid(replace(SMALL, recipe=recipe), tmp_path)


def test_a_training_whose_statistics_overflow_under_a_finite_loss_says_so_too(tmp_path: Path) -> None:
    recipe = Recipe(epochs=4, batch_size=20, learning_rate=50.0, schedule="none", precision="float32")
    with pytest.raises(InputError, match=r"running_var.* diverged; lower recipe\.learning_rate \(now 50\)"):
        run_grid(replace(SMALL, recipe=recipe), tmp_path)


def test_the_test_set_is_looked_at_once_for_each_reported_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    evaluate = Training.evaluate

    def watched(training: Training, images: Any, thorough: bool = False) -> Scores | None:
        seen.append(images is training.test_images)
        return evaluate(training, images, thorough)

    monkeypatch.setattr(Training, "evaluate", watched)
    run_grid(SMALL, tmp_path)
    assert seen == [False, False, True, True]  # two validations, then last and selected


def scored(accuracy: float) -> Scores:
    return Scores({"loss": 1.0, "accuracy": accuracy}, main="accuracy")


def test_selected_is_the_first_epoch_of_the_best_validation_accuracy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([60.0, 80.0, 80.0, 70.0, 50.0, 55.0])
    monkeypatch.setattr(Training, "evaluate", lambda training, images, thorough=False: scored(next(scores)))
    recipe = Recipe(epochs=4, batch_size=100, evaluate_every=1)
    (result,) = run_grid(replace(SMALL, recipe=recipe), tmp_path)
    assert (result["selected_epoch"], result["validation_accuracy_selected"]) == (2, 80.0)
    assert (result["test_accuracy_last"], result["test_accuracy_selected"]) == (50.0, 55.0)


def test_selected_weights_are_those_of_the_selected_epoch(tmp_path: Path) -> None:
    recipe = Recipe(epochs=4, batch_size=100, evaluate_every=1, learning_rate=0.5)
    (result,) = run_grid(replace(SMALL, recipe=recipe), tmp_path)
    rows = read_metrics(tmp_path / "none" / "seed0" / "metrics.jsonl")
    accuracies = [row["validation_accuracy"] for row in rows if "validation_accuracy" in row]
    assert result["validation_accuracy_selected"] == max(accuracies)
    assert result["selected_epoch"] == 1 + accuracies.index(max(accuracies))


def weights_of(training: Training) -> dict[str, torch.Tensor]:
    return copy.deepcopy(training.trainer.network().state_dict())


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_the_selected_figure_is_measured_with_the_weights_of_the_selected_epoch(
    decay: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([80.0, 70.0, 60.0, 1.0, 2.0])
    seen: list[dict[str, torch.Tensor]] = []

    def evaluate(training: Training, images: Any, thorough: bool = False) -> Scores:
        seen.append(weights_of(training))
        return scored(next(scores))

    monkeypatch.setattr(Training, "evaluate", evaluate)
    recipe = Recipe(epochs=3, batch_size=100, evaluate_every=1, ema_decay=decay)
    (result,) = run_grid(replace(SMALL, recipe=recipe), tmp_path)
    first, _, third, last, selected = seen
    assert not same(first, third)
    assert same(last, third)
    assert same(selected, first)
    assert (result["test_accuracy_last"], result["test_accuracy_selected"]) == (1.0, 2.0)


def test_evaluation_has_no_dropout_and_no_batch_statistics_and_training_has_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate, step = Training.evaluate, Trainer.step
    in_training: list[bool] = []

    def compared(training: Training, part: Any, thorough: bool = False) -> Scores | None:
        before = weights_of(training)
        network = copy.deepcopy(training.trainer.network()).eval()
        batch = next(part.batches(torch.arange(len(part)), len(part)))
        with torch.no_grad():
            output = network(normalize(batch.images, training.plan.standard))
        scores = evaluate(training, part, thorough)
        assert scores is not None
        assert same(weights_of(training), before)  # in training mode it would have moved the running statistics
        accuracy = 100 * float((output.argmax(1) == batch.labels).double().mean())
        assert scores.values["accuracy"] == pytest.approx(accuracy)
        loss = float(torch.nn.functional.cross_entropy(output, batch.labels))
        assert scores.values["loss"] == pytest.approx(loss, rel=1e-4)
        return scores

    def watched(trainer: Trainer, *given: Any) -> torch.Tensor:
        in_training.append(all(module.training for module in trainer.trained.modules()))
        return step(trainer, *given)

    monkeypatch.setattr(Training, "evaluate", compared)
    monkeypatch.setattr(Trainer, "step", watched)
    recipe = Recipe(epochs=2, batch_size=100, evaluate_every=1, drop_rate=0.5, precision="float32")
    run_grid(replace(SMALL, recipe=recipe), tmp_path)
    assert in_training
    assert all(in_training)


def test_training_leaves_the_global_generators_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    random.seed(5)
    expected = (torch.rand(3), random.random())
    torch.manual_seed(5)
    random.seed(5)
    run_grid(replace(SMALL, recipe=Recipe(epochs=1, batch_size=100, mixing=Mixing(mixup=0.5))), tmp_path)
    assert torch.equal(torch.rand(3), expected[0])
    assert random.random() == expected[1]


def test_a_schedule_changes_the_policy_at_its_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = PolicySchedule(((0, resolve_policy("none")), (2, resolve_policy("autoaugment"))))
    path = tmp_path / "schedule.json"
    schedule.save(path)
    used: list[Policy] = []
    augment = with_policy.augment
    monkeypatch.setattr(
        with_policy, "augment", lambda images, policy, *rest: used.append(policy) or augment(images, policy, *rest)
    )
    recipe = Recipe(epochs=3, batch_size=300)
    run_grid(replace(SMALL, policies=(str(path),), recipe=recipe), tmp_path / "run")
    in_training = used[-3:]
    assert in_training == [schedule.spans[0][1], schedule.spans[0][1], schedule.spans[1][1]]


def test_a_new_process_is_not_needed_to_train_twice_the_same(tmp_path: Path) -> None:
    results = [run_grid(SMALL, tmp_path / name) for name in ("first", "second")]
    for result in results:
        result[0].pop("seconds")
    assert results[0] == results[1]
    first, second = (final_state(tmp_path / name) for name in ("first", "second"))
    assert same(first, second)
