"""recipe.timm does what timm's train.py does under these names, and nothing where it is not set."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jointsearch import Digits, Grid, Recipe, compose_study, run_grid
from jointsearch.loops.recipe import Mixing, Timm, Warmup
from jointsearch.loops.trainer import Trainer
from jointsearch.randomness import own_global_randomness
from search_spaces.errors import InputError
from tests.scripts_bench import run_script

CPU = torch.device("cpu")
PLAIN: dict[str, Any] = {
    "epochs": 10,
    "optimizer": "momentum",
    "learning_rate": 0.5,
    "weight_decay": 0.0,
    "precision": "float32",
}


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with own_global_randomness(0):
        yield


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 5))


def trainer(steps: int = 2, timm: Timm | None = None, **fields: Any) -> Trainer:
    return Trainer(network(), Recipe(**{**PLAIN, **fields}, timm=timm), CPU, 5, steps)


def batch(count: int) -> tuple[Tensor, Tensor]:
    noise = torch.Generator().manual_seed(count)
    return torch.randn(count, 3, 8, 8, generator=noise), torch.randint(5, (count,), generator=noise)


# --- gradient accumulation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [64, 63, 3, 2])
@pytest.mark.parametrize("more", [{}, {"clip_gradient": 0.1}, {"ema_decay": 0.9}], ids=str)
def test_two_batches_of_32_make_the_step_of_one_of_64(count: int, more: dict[str, Any]) -> None:
    whole, parts = trainer(**more), trainer(timm=Timm(grad_accum_steps=2), **more)
    seen: list[int] = []
    parts.trained[0].register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    for done in range(3):
        losses = [made.step(*batch(count), done) for made in (whole, parts)]
        torch.testing.assert_close(losses[0], losses[1], atol=1e-6, rtol=0)
    assert seen[:2] == ([count - count // 2, count // 2] if count > 3 else [count, count])
    for here, there in zip(whole.network().parameters(), parts.network().parameters(), strict=True):
        torch.testing.assert_close(here, there, atol=1e-6, rtol=0)


def test_an_epoch_has_as_many_steps_as_images_of_whole_steps() -> None:
    recipe = Recipe(batch_size=32, timm=Timm(grad_accum_steps=2))
    assert [recipe.check_steps(images) for images in (2, 64, 65, 66, 128)] == [1, 1, 1, 2, 2]


def test_a_training_of_accumulated_steps_is_that_of_larger_batches(tmp_path: Path) -> None:
    digits, common = Digits(reduced=100, validation=0), {"epochs": 2, "precision": "float32", "evaluate_every": 1}
    grids = {
        "whole": Recipe(batch_size=20, **common),
        "parts": Recipe(batch_size=10, timm=Timm(grad_accum_steps=2), **common),
    }
    lines, results = {}, {}
    for name, recipe in grids.items():
        [results[name]] = run_grid(Grid(("none",), digits, (0,), "tiny_mlp", recipe), tmp_path / name)
        lines[name] = (tmp_path / name / "none/seed0/metrics.jsonl").read_text().count("\n")
    assert results["whole"]["images_trained"] == results["parts"]["images_trained"] == 200
    assert results["whole"]["test_accuracy_last"] == pytest.approx(results["parts"]["test_accuracy_last"], abs=0.3)
    assert lines["whole"] == lines["parts"]


# --- schedules --------------------------------------------------------------------------------------------------------


def rates(timm: Timm, steps: int = 3, **fields: Any) -> list[float]:
    """The learning rate before every step, and after the last."""
    made = trainer(steps, timm, **fields)
    found = [made.learning_rate()]
    for done in range(steps * made.recipe.epochs):
        made.schedule.step_update(done + 1)  # type: ignore[union-attr]
        found.append(made.learning_rate())
    return found


# The rate after a share of the training, by the formulas of timm's documentation: from 0.5 to 0.1.
CLOSED = {
    "cosine": (Timm(min_lr=0.1), lambda share: 0.1 + 0.2 * (1 + math.cos(math.pi * share))),
    "tanh": (Timm(sched="tanh", min_lr=0.1), lambda share: 0.1 + 0.2 * (1 - math.tanh(10 * share - 7))),
    "poly": (Timm(sched="poly", min_lr=0.1, decay_rate=2.0), lambda share: 0.1 + 0.4 * (1 - share) ** 2),
    "wsd": (Timm(sched="wsd", min_lr=0.1), lambda share: 0.5 - 0.4 * max(0, (share - 0.8) / 0.2) ** 0.5),
    "step": (Timm(sched="step", decay_epochs=4, decay_rate=0.2), lambda share: 0.5 * 0.2 ** (10 * share // 4)),
    "multistep": (
        Timm(sched="multistep", decay_milestones=(3, 7), decay_rate=0.5),
        lambda share: 0.5 * 0.5 ** ((10 * share >= 3) + (10 * share >= 7)),
    ),
    "constant": (Timm(sched="constant"), lambda share: 0.5),
}  # fmt: skip


@pytest.mark.parametrize("name", CLOSED)
def test_a_schedule_follows_its_closed_form_at_every_step(name: str) -> None:
    timm, form = CLOSED[name]
    expected = [form(step / 30) for step in range(30)]
    # The edges of timm's steps and phases lie a step beside those of real numbers.
    wrong = [step for step, (a, b) in enumerate(zip(rates(timm), expected, strict=False)) if abs(a - b) > 1e-6]
    assert len(wrong) <= 2, wrong


@pytest.mark.parametrize("name", ["cosine", "tanh", "poly", "wsd"])
def test_the_least_rate_is_reached_at_the_end(name: str) -> None:
    timm, _ = CLOSED[name]
    end = rates(timm, steps=100)[-1]
    assert end == pytest.approx(0.1, abs=2e-3)
    assert end >= 0.1


def test_a_warm_up_comes_before_timms_schedules_too() -> None:
    found = rates(Timm(sched="constant"), warmup=Warmup(5, 0.2))
    assert found[:15] == pytest.approx([0.5 * (0.2 + 0.8 * step / 15) for step in range(15)])
    assert found[15:] == pytest.approx([0.5] * 16)


# --- erasing ----------------------------------------------------------------------------------------------------------


def seen(made: Trainer, images: Tensor, labels: Tensor) -> Tensor:
    given: list[Tensor] = []
    made.trained[0].register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].clone()))
    made.step(images, labels, 0)
    return given[0]


@pytest.mark.parametrize("mode", ["pixel", "rand", "const"])
def test_rectangles_are_erased_as_timm_does_and_the_batch_stays_as_it_was(mode: str) -> None:
    images, labels = torch.full((200, 3, 8, 8), 9.0), torch.zeros(200, dtype=torch.long)
    found = seen(trainer(timm=Timm(reprob=0.5, remode=mode)), images, labels)
    assert torch.equal(images, torch.full((200, 3, 8, 8), 9.0))
    erased = (found != 9).any(1)  # (B, H, W)
    share = erased.any((1, 2)).float().mean()
    assert 0.4 < share < 0.6
    for mask in erased[erased.any((1, 2))]:
        rows, columns = mask.any(1), mask.any(0)
        assert torch.equal(mask, rows[:, None] & columns[None, :])  # one rectangle
        assert mask.float().mean() < 0.6
    values = found.permute(0, 2, 3, 1)[erased]  # (pixels, C): of unit variance around the mean color, which is 0
    if mode == "const":
        assert not values.any()
    else:
        assert abs(float(values.mean())) < 0.3
        assert 0.7 < float(values.std()) < 1.3


def test_several_rectangles_at_most_as_recount_says() -> None:
    images, labels = torch.full((300, 3, 8, 8), 9.0), torch.zeros(300, dtype=torch.long)
    found = seen(trainer(timm=Timm(reprob=1.0, recount=3, remode="const")), images, labels)
    masks = (found == 0).all(1)
    one = [torch.equal(mask, mask.any(1)[:, None] & mask.any(0)[None, :]) for mask in masks]
    assert 0.2 < sum(one) / len(one) < 0.8


def test_an_erasing_training_that_is_killed_ends_on_the_same_bits(tmp_path: Path) -> None:
    words = ["policy=none", "controls=[]", "network=tiny_cnn", "dataset.reduced=60", "seeds=[0]", "device=cpu"]
    words += ["recipe.epochs=3", "recipe.timm.reprob=0.5", "recipe.timm.grad_accum_steps=2", "save_seconds=0"]
    assert run_script("retrain", *words, f"run={tmp_path}/straight") == 0
    from jointsearch.loops.training import Training

    advance, count = Training._finish_epoch, []

    def stopping(training: Training) -> Any:
        count.append(1)
        if len(count) == 2:
            raise KeyboardInterrupt
        return advance(training)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "_finish_epoch", stopping)
        assert run_script("retrain", *words, f"run={tmp_path}/killed") == 130
    assert run_script("retrain", *words, f"run={tmp_path}/killed") == 0
    for name in ("metrics.jsonl", "model.safetensors"):
        here, there = (tmp_path / run / "none/seed0" / name for run in ("straight", "killed"))
        assert here.read_bytes() == there.read_bytes()


# --- binary cross entropy ---------------------------------------------------------------------------------------------


def by_hand(logits: Tensor, targets: Tensor) -> Tensor:
    p = logits.sigmoid()
    return -(targets * p.log() + (1 - targets) * (1 - p).log()).mean()


@pytest.mark.parametrize("threshold", [None, 0.2])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_binary_cross_entropy_is_that_of_every_class_by_hand(smoothing: float, threshold: float | None) -> None:
    made = trainer(timm=Timm(bce_loss=True, bce_target_thresh=threshold), label_smoothing=smoothing)
    images, labels = batch(6)
    targets = nn.functional.one_hot(labels, 5) * (1 - smoothing) + smoothing / 5
    if threshold is not None:
        targets = (targets > threshold).float()
    expected = by_hand(made.trained(images).detach(), targets)
    torch.testing.assert_close(made.step(images, labels, 0), expected)


def test_binary_cross_entropy_takes_blended_labels() -> None:
    made = trainer(timm=Timm(bce_loss=True), mixing=Mixing(mixup=1.0))
    given: list[Tensor] = []
    loss = made.objective.loss

    def watched(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        given.extend((network(images).detach(), labels))
        return loss(network, images, labels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made.objective, "loss", watched)
        found = made.step(*batch(6), 0)
    assert ((given[1] > 0) & (given[1] < 1)).any()
    torch.testing.assert_close(found, by_hand(*given))


# --- settings ---------------------------------------------------------------------------------------------------------

UNREAD: dict[str, tuple[dict[str, Any], str]] = {
    "min_lr": ({"timm": Timm(min_lr=0.1), "schedule": "step"}, r"timm\.min_lr would change nothing with schedule step"),
    "poly": ({"timm": Timm(sched="poly", decay_epochs=3)}, "decay_epochs would change nothing with schedule poly"),
    "remode": ({"timm": Timm(remode="const")}, "remode would change nothing .*reprob=0"),
    "threshold": ({"timm": Timm(bce_target_thresh=0.1)}, "bce_target_thresh would change nothing .*bce_loss=false"),
    "higher": ({"timm": Timm(min_lr=0.7)}, r"min_lr=0.7 is not below recipe\.learning_rate=0.5; lower it"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNREAD)
def test_what_would_change_nothing_is_refused(case: str) -> None:
    fields, message = UNREAD[case]
    with pytest.raises(InputError, match=message):
        Recipe(**{**PLAIN, **fields})


def test_a_budget_scales_its_epochs_too() -> None:
    words = ("search=policy", "recipe.timm.sched=multistep", "recipe.timm.decay_milestones=[20,40]")
    timm = compose_study(*words, budget=0.5).recipe.timm
    assert timm == Timm(sched="multistep", decay_milestones=(10, 20))
    assert Timm(sched="wsd", decay_epochs=0.2).scaled(0.5, "wsd").decay_epochs == 0.2
    assert Timm(sched="step", decay_epochs=30).scaled(0.5, "step").decay_epochs == 15
    for word in ("recipe.timm.reprob=0.25", "recipe.timm.grad_accum_steps=2", "recipe.timm.bce_loss=true"):
        assert compose_study(word, budget=0.1).recipe.timm == compose_study(word).recipe.timm
