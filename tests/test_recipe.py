"""Every number of a recipe does in training what its name says: closed forms of one step or a few."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jointsearch.data.datasets import Digits
from jointsearch.loops import recipe as recipe_module
from jointsearch.loops.grid import Grid, run_grid
from jointsearch.loops.recipe import Mixing, Recipe, Timm, Warmup
from jointsearch.loops.trainer import Trainer
from jointsearch.randomness import own_global_randomness
from search_spaces.errors import InputError

CPU = torch.device("cpu")
ONE_LABEL = torch.zeros(4, dtype=torch.long)
# Four images of two channels and one pixel; every first channel is 1, every second 2.
IMAGES = torch.tensor([1.0, 2.0]).expand(4, 2).reshape(4, 2, 1, 1)
PLAIN: dict[str, Any] = {
    "epochs": 1,
    "optimizer": "momentum",
    "learning_rate": 0.5,
    "timm": Timm(momentum=0.0),
    "weight_decay": 0.0,
    "schedule": "none",
    "precision": "float32",
}


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    # timm's mixing draws from NumPy's global generator.
    with own_global_randomness(0):
        yield


def linear(classes: int = 2, bias: tuple[float, ...] | None = None) -> nn.Module:
    """A linear classifier of two numbers with weight 0: its output is its bias."""
    layer = nn.Linear(2, classes)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    if bias is not None:
        layer.bias.data.copy_(torch.tensor(bias))
    return nn.Sequential(nn.Flatten(), layer)


def trainer(network: nn.Module | None = None, classes: int = 2, steps: int = 1, **fields: Any) -> Trainer:
    return Trainer(network or linear(classes), Recipe(**{**PLAIN, **fields}), CPU, classes, steps)


def weights(made: Trainer) -> tuple[Tensor, Tensor]:
    layer = made.trained[1]
    return layer.weight.detach().clone(), layer.bias.detach().clone()


# With weights 0 both classes have probability 1/2; for label 0 the gradient of the bias is (-1/2, 1/2), and that of the
# weights is the same times the pixels (1, 2).
BIAS_GRADIENT = torch.tensor([-0.5, 0.5])
WEIGHT_GRADIENT = torch.tensor([[-0.5, -1.0], [0.5, 1.0]])


def test_one_step_goes_against_the_gradient_by_the_learning_rate() -> None:
    made = trainer()
    assert float(made.step(IMAGES, ONE_LABEL, 0)) == pytest.approx(math.log(2))
    weight, bias = weights(made)
    torch.testing.assert_close(weight, -0.5 * WEIGHT_GRADIENT)
    torch.testing.assert_close(bias, -0.5 * BIAS_GRADIENT)


@pytest.mark.parametrize("smoothing", [0.0, 0.2, 0.9])
def test_label_smoothing_shares_its_part_among_all_classes(smoothing: float) -> None:
    made = trainer(linear(bias=(0.0, math.log(3))), label_smoothing=smoothing)  # probabilities 1/4 and 3/4
    right, wrong = 1 - smoothing / 2, smoothing / 2
    expected = -right * math.log(1 / 4) - wrong * math.log(3 / 4)
    assert float(made.step(IMAGES, ONE_LABEL, 0)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("decay", [0.2, 0.9])
def test_averaged_weights_follow_the_recursion_and_are_the_ones_evaluated(decay: float) -> None:
    made = trainer(ema_decay=decay)
    expected = None
    for done in range(5):
        made.step(IMAGES, ONE_LABEL, done)
        bias = weights(made)[1]
        # The decay begins at 0 and grows to its final value, as 1 - (1 + steps)^(-2/3).
        kept = min(decay, 1 - (1 + done) ** (-2 / 3))
        expected = bias if expected is None else kept * expected + (1 - kept) * bias
        averaged = made.network()
        assert averaged is not made.trained
        torch.testing.assert_close(averaged[1].bias.detach(), expected)
    assert not torch.equal(averaged[1].bias, bias)


def test_without_averaging_the_trained_network_is_the_one_evaluated() -> None:
    network = linear()
    assert trainer(network).network() is network


@pytest.mark.parametrize("limit", [0.0, 0.1, 1.0, 100.0])
def test_clipping_shortens_the_step_to_the_stated_length(limit: float) -> None:
    made = trainer(clip_gradient=limit)
    made.step(IMAGES, ONE_LABEL, 0)
    weight, bias = weights(made)
    whole = math.sqrt(2 * (0.5**2 + 1.0**2 + 0.5**2))  # 1.73: all weights and biases together
    expected = min(limit, whole) if limit else whole
    assert float(torch.cat([weight.flatten(), bias]).norm()) == pytest.approx(0.5 * expected, rel=1e-4)
    torch.testing.assert_close(weight, -0.5 * expected / whole * WEIGHT_GRADIENT, rtol=1e-4, atol=0)


def two_steps(**fields: Any) -> list[Tensor]:
    made = trainer(**fields)
    biases = [weights(made)[1]]
    for done in range(2):
        made.step(torch.zeros_like(IMAGES), ONE_LABEL, done)  # black images: only the bias learns
        biases.append(weights(made)[1])
    return biases


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(("optimizer", "nesterov"), [("sgd", True), ("momentum", False)])
def test_momentum_carries_the_last_gradient_on(optimizer: str, nesterov: bool, momentum: float) -> None:
    start, first, second = two_steps(optimizer=optimizer, timm=Timm(momentum=momentum))
    bias, carried = start, torch.zeros(2)
    for reached in (first, second):
        gradient = bias.softmax(0) - torch.tensor([1.0, 0.0])
        carried = momentum * carried + gradient
        bias = bias - 0.5 * (gradient + momentum * carried if nesterov else carried)
        torch.testing.assert_close(reached, bias)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_weight_decay_shrinks_the_weights_and_not_the_biases(decay: float) -> None:
    network = linear()
    network[1].weight.data.fill_(3.0)
    network[1].bias.data.fill_(3.0)
    made = trainer(network, weight_decay=decay)
    made.step(torch.zeros_like(IMAGES), ONE_LABEL, 0)
    weight, bias = weights(made)
    torch.testing.assert_close(weight, torch.full((2, 2), 3.0 * (1 - 0.5 * decay)))
    torch.testing.assert_close(bias, 3.0 - 0.5 * BIAS_GRADIENT)


# --- the learning rate of every step ----------------------------------------------------------------------------------


def learning_rates(steps: int, **fields: Any) -> list[float]:
    made = trainer(steps=steps, **fields)
    rates = []
    for done in range(steps * made.recipe.epochs):
        rates.append(made.optimizer.param_groups[0]["lr"])
        made.step(IMAGES, ONE_LABEL, done)
    return rates


def test_cosine_goes_from_the_learning_rate_to_zero_by_its_closed_form_at_every_step() -> None:
    expected = [0.5 * 0.5 * (1 + math.cos(math.pi * step / 12)) for step in range(12)]
    assert learning_rates(3, schedule="cosine", epochs=4) == pytest.approx(expected, rel=1e-9)


def test_cosine_may_end_at_a_thousandth() -> None:
    expected = [0.001 + 0.5 * (0.5 - 0.001) * (1 + math.cos(math.pi * step / 12)) for step in range(12)]
    assert learning_rates(3, schedule="cosine_to_0.001", epochs=4) == pytest.approx(expected, rel=1e-9)


def test_step_divides_by_ten_after_each_third_of_the_epochs() -> None:
    expected = [0.5] * 4 + [0.05] * 4 + [0.005] * 4
    assert learning_rates(2, schedule="step", epochs=6) == pytest.approx(expected, rel=1e-9)


def test_without_a_schedule_the_learning_rate_stays() -> None:
    assert learning_rates(2, schedule="none", epochs=3) == [0.5] * 6


@pytest.mark.parametrize(("share", "fields"), [(0.01, {}), (0.2, {"start": 0.2})])
@pytest.mark.parametrize("schedule", ["cosine", "step"])
def test_warmup_is_linear_from_its_share_of_the_learning_rate_by_itself_a_hundredth(
    schedule: str, share: float, fields: dict[str, float]
) -> None:
    after = {
        "cosine": [0.5 * 0.5 * (1 + math.cos(math.pi * step / 12)) for step in range(6, 12)],
        "step": [0.05, 0.05, 0.005, 0.005, 0.005, 0.005],
    }
    expected = [0.5 * (share + (1 - share) * step / 6) for step in range(6)] + after[schedule]
    rates = learning_rates(2, schedule=schedule, epochs=6, warmup=Warmup(3, **fields))
    assert rates == pytest.approx(expected, rel=1e-9)


def test_warmup_without_a_schedule_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"warmup has 2 of 100 epochs, with schedule=none; .* another schedule than none"
    ):
        Recipe(schedule="none", warmup=Warmup(2))


@pytest.mark.parametrize("warmup", [3, 4])
def test_warmup_as_long_as_the_training_is_refused(warmup: int) -> None:
    with pytest.raises(InputError, match=f"warmup has {warmup} of 3 epochs.*it needs fewer than recipe.epochs"):
        Recipe(epochs=3, warmup=Warmup(warmup))


def test_mixing_that_mixes_nothing_is_refused() -> None:
    with pytest.raises(InputError, match=r"mixup=0 and cutmix=0.*leave recipe\.mixing out"):
        Mixing(mixup=0.0, cutmix=0.0)


def test_a_continued_training_has_the_learning_rate_of_its_step() -> None:
    first = trainer(schedule="cosine", epochs=4, steps=3)
    for done in range(5):
        first.step(IMAGES, ONE_LABEL, done)
    second = trainer(schedule="cosine", epochs=4, steps=3)
    second.restore(first.state(), 5)
    expected = 0.5 * 0.5 * (1 + math.cos(math.pi * 5 / 12))
    assert second.optimizer.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-9)


# --- mixing -----------------------------------------------------------------------------------------------------------


def seen_by_the_network(made: Trainer, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    seen: list[tuple[Tensor, Tensor]] = []
    losses = made.objective.loss

    def watched(network: nn.Module, *given: Tensor) -> Tensor:
        seen.append(given)
        return losses(network, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made.objective, "loss", watched)
        made.step(images, labels, 0)
    return seen[0]


# Class k of four is an image of the one value k; timm mixes each image with its mirror place in the batch.
CLASSES = torch.tensor([0, 1, 2, 3, 1, 2])
FLAT = CLASSES.float().reshape(-1, 1, 1, 1).expand(6, 3, 8, 8)


def softened(share: Tensor, smoothing: float) -> Tensor:
    """Targets when `share` of every image is its own and the rest its partner's."""
    own = nn.functional.one_hot(CLASSES, 4) * (1 - smoothing) + smoothing / 4
    return share * own + (1 - share) * own.flip(0)


def pixels_to_classes() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_mixup_blends_images_and_targets_by_the_same_share(smoothing: float) -> None:
    made = trainer(pixels_to_classes(), classes=4, mixing=Mixing(mixup=1.0), label_smoothing=smoothing)
    images, targets = seen_by_the_network(made, FLAT.clone(), CLASSES)
    share = images[0, 0, 0, 0] / (0 - 2) + 1  # value 0 mixed with value 2
    assert 0.001 < share < 0.999
    torch.testing.assert_close(images, share * FLAT + (1 - share) * FLAT.flip(0))
    torch.testing.assert_close(targets, softened(share, smoothing), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cutmix_pastes_a_box_and_shares_the_targets_by_its_area(smoothing: float) -> None:
    made = trainer(pixels_to_classes(), classes=4, mixing=Mixing(0.0, cutmix=1.0), label_smoothing=smoothing)
    for _ in range(20):  # a box may be empty
        images, targets = seen_by_the_network(made, FLAT.clone(), CLASSES)
        kept = images[0] == 0
        share = kept.float().mean()
        if 0 < share < 1:
            break
    assert 0 < share < 1
    assert torch.equal(images, torch.where(kept, FLAT, FLAT.flip(0)))
    torch.testing.assert_close(targets, softened(share, smoothing), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mixing", [Mixing(mixup=1.0), Mixing(0.0, cutmix=1.0)], ids=["mixup", "cutmix"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_an_odd_batch_is_not_mixed_and_keeps_its_label_smoothing(smoothing: float, mixing: Mixing) -> None:
    made = trainer(pixels_to_classes(), classes=4, label_smoothing=smoothing, mixing=mixing)
    images, targets = seen_by_the_network(made, FLAT[:5].clone(), CLASSES[:5])
    assert torch.equal(images, FLAT[:5])
    expected = torch.full((5, 4), smoothing / 4)
    expected[torch.arange(5), CLASSES[:5]] = 1 - smoothing + smoothing / 4
    torch.testing.assert_close(targets, expected)


def test_without_mixing_images_and_labels_arrive_as_they_are() -> None:
    images, targets = seen_by_the_network(trainer(pixels_to_classes(), classes=4), FLAT.clone(), CLASSES)
    assert torch.equal(images, FLAT)
    assert torch.equal(targets, CLASSES)


# --- precision, dropout, steps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "hardware", "expected"),
    [
        ("bf16", False, torch.bfloat16),
        ("float32", True, torch.float32),
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float32),
    ],
)
def test_the_network_computes_in_the_stated_precision(
    precision: str, hardware: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe_module, "_multiplies_bf16", lambda device: hardware)
    network = linear()
    computed = []
    network[1].register_forward_hook(lambda layer, given, output: computed.append(output.dtype))
    made = trainer(network, precision=precision)
    made.step(IMAGES, ONE_LABEL, 0)
    assert computed == [expected]
    assert network[1].weight.dtype == torch.float32


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_the_drop_rate_reaches_the_network_that_is_trained(
    rate: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = set()

    def recorded(made: Trainer, images: Tensor, labels: Tensor, done: int) -> Tensor:
        modules = made.trained.modules()
        rates.update(module.p for module in modules if isinstance(module, nn.Dropout))
        return step(made, images, labels, done)

    step = Trainer.step
    monkeypatch.setattr(Trainer, "step", recorded)
    digits = Digits(validation=0, reduced=360)
    run_grid(Grid(("none",), digits, (0,), "tiny_cnn", Recipe(**{**PLAIN, "drop_rate": rate})), tmp_path)
    assert max(rates) == rate  # the classifier's own dropout stays 0


@pytest.mark.parametrize(
    ("images", "expected"), [(2, 1), (49, 1), (50, 1), (51, 1), (52, 2), (100, 2), (101, 2), (149, 3), (150, 3)]
)
def test_an_epoch_has_its_whole_batches_and_the_rest_if_it_is_more_than_one_image(images: int, expected: int) -> None:
    assert Recipe(batch_size=50).check_steps(images) == expected


@pytest.mark.parametrize("images", [0, 1])
def test_too_few_images_for_a_batch_are_refused(images: int) -> None:
    with pytest.raises(InputError, match=f"{images} training image"):
        Recipe(batch_size=50).check_steps(images)


def test_two_steps_takes_the_rate_to_a_tenth_after_8_and_11_of_12_epochs() -> None:
    made = trainer(steps=100, epochs=12, schedule="two_steps", learning_rate=0.02)
    rates = {}
    for done in (1, 790, 802, 1090, 1102, 1199):
        made.schedule.step_update(done)  # type: ignore[union-attr]
        rates[done] = made.learning_rate()
    wanted = {1: 0.02, 790: 0.02, 802: 0.002, 1090: 0.002, 1102: 0.0002, 1199: 0.0002}
    assert rates == pytest.approx(wanted)


def test_a_warm_up_may_be_shorter_than_an_epoch() -> None:
    made = trainer(steps=100, epochs=12, schedule="two_steps", learning_rate=0.02, warmup=Warmup(0.07, 0.001))
    rates = [made.learning_rate()]
    for done in (3, 7, 50):
        made.schedule.step_update(done)  # type: ignore[union-attr]
        rates.append(made.learning_rate())
    assert rates[0] == pytest.approx(0.00002)
    assert 0.00002 < rates[1] < 0.02
    assert rates[2:] == pytest.approx([0.02, 0.02])
