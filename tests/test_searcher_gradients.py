"""The gradient of a search step is the one that enumeration, numerical differences and brute force give."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from jointsearch.data.sets import Batch
from jointsearch.estimators.draw import EstimatorSettings
from jointsearch.estimators.exact import expected_reward
from jointsearch.estimators.reinforce import ReinforceSettings
from jointsearch.estimators.relax import RelaxSettings
from jointsearch.searchers.drawn_policy import Augmented
from jointsearch.searchers.policy_learner import DIRECT_STEEPNESS
from jointsearch.searchers.rewards import Rewards, Stabilize
from jointsearch.through_step.double_backward import double_backward
from jointsearch.through_step.record import StepRecord, record_step
from jointsearch.through_step.validation import validation_gradient
from search_spaces.augment.apply import apply_draw, draw_of
from search_spaces.augment.table import OPS
from search_spaces.policy import OpChoice, Policy, SubPolicy
from tests.search_bench import (
    CLASSES,
    ESTIMATORS,
    GUMBEL,
    STANDARD,
    STEP_SIZE,
    TELLING,
    Bench,
    Descent,
    batch_of,
    make,
    moment,
    noise,
    plain_network,
    seen_by_network,
)

JUDGE = batch_of(32, 9)
INPUTS = seen_by_network(JUDGE.images, torch.full((32,), 2), torch.zeros(32))
FIXED: dict[str, Any] = {"magnitude_gradient": "none"}


def rewards_at(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Rewards (B,) of a network without batch statistics whose weights stay, from the gradient of every image."""
    weights = {name: value.detach() for name, value in network.named_parameters()}

    def loss(weights: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return cross_entropy(functional_call(network, weights, (image[None],)), label[None])

    of_images = vmap(grad(loss), (None, 0, 0))
    slopes = {name: each.mean(0) for name, each in of_images(weights, INPUTS.to(images.dtype), JUDGE.labels).items()}
    each = of_images(weights, images, labels)
    return -STEP_SIZE * sum((each[name] * slopes[name]).flatten(1).sum(1) for name in weights)


def mean_rewards(network: nn.Module, train: Batch) -> Tensor:
    """(3, 2): of every sub-policy of TELLING when its op rests and when it acts."""
    count = len(train.labels)
    rows = []
    for place in range(3):
        row = []
        for acts in (0.0, 1.0):
            images = seen_by_network(train.images, torch.full((count,), place), torch.full((count,), acts))
            row.append(rewards_at(network, images, train.labels).mean())
        rows.append(torch.stack(row))
    return torch.stack(rows)


def exact_gradient(bench: Bench, table: Tensor) -> Tensor:
    soft = bench.soft
    parts = torch.autograd.grad(expected_reward(soft.logits(), table), [soft.preference, soft.probability_logits])
    return torch.cat([part.flatten() for part in parts])


@pytest.mark.parametrize(
    ("estimator", "options"),
    [
        *[(name, {}) for name in ESTIMATORS],
        ("leave_one_out", {"space": {"share": "ops"}}),
        ("relax", {"stabilize": Stabilize(start_share=0.3)}),
    ],
)
def test_the_mean_gradient_over_many_steps_is_that_of_the_enumerated_expectation(
    estimator: str, options: dict[str, Any]
) -> None:
    bench = make(trains=False, estimator=ESTIMATORS[estimator], **FIXED, **options)
    train = batch_of(128)
    exact = exact_gradient(bench, mean_rewards(bench.network, train))
    found = torch.stack([bench.gradient(train, JUDGE) for _ in range(100)]).double()
    errors = found.std(0) / len(found) ** 0.5
    learns = errors > 1e-9
    assert torch.equal(learns, exact.abs() > 1e-9)
    scores = (found.mean(0) - exact)[learns] / errors[learns]
    assert float(scores.abs().max()) < 4.5
    assert float((exact[learns] / errors[learns]).abs().max()) > 15  # enough steps to tell it from another gradient


def test_the_policy_moves_to_the_ops_after_whose_training_step_the_validation_loss_is_lower() -> None:
    train, after = batch_of(128), []
    for place in range(3):
        network = plain_network()
        Descent(network)(seen_by_network(train.images, torch.full((128,), place), torch.ones(128)), train.labels)
        after.append(float(cross_entropy(network(INPUTS), JUDGE.labels).detach()))
    bench = make(trains=False, **FIXED)
    bench.soft.learn_probability = False
    loss_before = torch.dot(torch.tensor(bench.facts["sub_policy_shares"]), torch.tensor(after))
    for _ in range(40):
        bench.step(train, JUDGE)
    shares = torch.tensor(bench.facts["sub_policy_shares"])
    assert torch.dot(shares, torch.tensor(after)) < loss_before - 1e-4
    assert int(shares.argmax()) == int(torch.tensor(after).argmin())
    assert int(shares.argmin()) == int(torch.tensor(after).argmax())


def smooth(count: int) -> Batch:
    """Images (B, 1, 8, 8) in double precision, far from black and white."""
    patches = torch.rand(count, 1, 3, 3, generator=noise(7), dtype=torch.float64)
    images = nn.functional.interpolate(patches, size=8, mode="bilinear") * 0.4 + 0.3
    return Batch(images, torch.arange(count) % CLASSES, torch.arange(count))


def magnitude_slope(bench: Bench, magnitude_logit: float) -> tuple[float, float]:
    """Mean reward and its gradient at a magnitude, always under the same noise."""
    bench.policy.noise.manual_seed(1)
    with torch.no_grad():
        bench.soft.magnitude_logits.fill_(magnitude_logit)
    bench.policy.optimizer = torch.optim.SGD(bench.soft.parameters(), lr=0.0)
    judge = Batch(JUDGE.images.double() / 255, JUDGE.labels, JUDGE.index)
    bench.step(smooth(32), judge)
    return float(bench.draws[-1][1][0].mean()), float(bench.soft.magnitude_logits.grad.sum())


@pytest.mark.parametrize("op", ["Rotate", "TranslateX", "Brightness"])
@pytest.mark.parametrize("epsilon", [0.01, 0.0])
def test_the_gradient_of_a_magnitude_is_the_slope_of_the_mean_reward(op: str, epsilon: float) -> None:
    start = Policy((SubPolicy((OpChoice(op, 0.7, 0.4),)),))
    bench = make(start, plain_network().double(), False, rewards=Rewards(epsilon=epsilon))
    _, slope = magnitude_slope(bench, -0.4)
    above, below = (magnitude_slope(bench, -0.4 + step)[0] for step in (1e-3, -1e-3))
    assert slope == pytest.approx((above - below) / 2e-3, rel=2e-2)
    assert abs(slope) > 1e-6


def test_as_published_a_magnitude_counts_as_added_to_every_pixel() -> None:
    start = Policy((SubPolicy((OpChoice("Brightness", 1.0, 0.4),)),))
    logit, slopes = -0.4, {}
    for name, settings, steepness in (
        ("pathwise", {"rewards": Rewards(epsilon=0.0)}, 1.0),
        ("paper", {"published": "paper"}, DIRECT_STEEPNESS),
    ):
        bench = make(start, plain_network().double(), False, **settings)
        slopes[name] = magnitude_slope(bench, logit / steepness)[1] / steepness  # at the same magnitude
    labels = smooth(32).labels
    shift = 1e-4 / 0.25  # in normalized pixels
    above, below = (
        float(rewards_at(bench.network, bench.received[0] + side * shift, labels).mean()) for side in (1, -1)
    )
    share = torch.tensor(logit).sigmoid()
    assert slopes["paper"] == pytest.approx((above - below) / 2e-4 * float(share * (1 - share)), rel=1e-3)
    assert slopes["paper"] != pytest.approx(slopes["pathwise"], rel=0.5)


def test_without_a_gradient_magnitudes_stay_those_of_the_start() -> None:
    bench = make(**FIXED)
    for _ in range(3):
        bench.step(batch_of(32), JUDGE)
    assert bench.soft.magnitude_logits.grad is None
    found = {choice.op: choice for sub_policy in bench.policy.policy().sub_policies for choice in sub_policy.ops}
    assert found["Solarize"].magnitude == 0.5
    assert found["Solarize"].probability != 0.5  # this is learned


@pytest.mark.parametrize(
    ("draws", "baseline"),
    # Several draws are centred on each other before RELAX sees them, a single one is not.
    [("batch", "none"), ("image", "leave_one_out")],
)
def test_seeing_both_losses_relax_is_reinforce_whatever_its_surrogate_says(draws: str, baseline: str) -> None:
    def gradient(published: str, estimator: EstimatorSettings, size: float = 0.0) -> Tensor:
        bench = make(trains=False, published=published, estimator=estimator, **FIXED)
        fill = torch.Generator().manual_seed(8)
        with torch.no_grad():
            for parameter in bench.policy.estimator.parameters():
                parameter.copy_(size * torch.randn(parameter.shape, generator=fill))
        found = bench.gradient(batch_of(32), JUDGE)
        found[3:] /= bench.soft.steepness  # of the acting logits, which move faster as published
        return found

    plain = gradient("no", ReinforceSettings("joint", baseline, draws))
    relax = RelaxSettings("joint", draws=draws)
    for size in (0.0, 0.1, 1.0):
        torch.testing.assert_close(gradient("paper", relax, size), plain, rtol=1e-4, atol=1e-5 * float(plain.norm()))
    assert float((gradient("no", relax, 0.1) - plain).norm()) > 0.1 * float(plain.norm())


def test_several_draws_for_a_validation_gradient_are_averaged() -> None:
    train = batch_of(32)
    several = make(trains=False, stabilize=Stabilize(draws_per_validation=3), rewards=Rewards(epsilon=0.0), **FIXED)
    together = several.gradient(train, JUDGE)
    assert [len(credits) for _, credits in several.draws] == [1, 1, 1]
    alone = make(trains=False, rewards=Rewards(epsilon=0.0), **FIXED)
    single = [alone.gradient(train, JUDGE) for _ in range(3)]  # goes through the same noise
    torch.testing.assert_close(together, torch.stack(single).mean(0))
    assert not torch.allclose(single[0], single[1])
    assert int(several.soft.visits.sum()) == 96


def test_several_validation_batches_are_averaged() -> None:
    judges = [batch_of(16, 9), batch_of(48, 10)]

    def gradient(*judges: Batch) -> Tensor:
        return make(trains=False, rewards=Rewards(epsilon=0.0), **FIXED).gradient(batch_of(32), *judges)

    expected = 0.25 * gradient(judges[0]) + 0.75 * gradient(judges[1])  # by their images
    torch.testing.assert_close(gradient(*judges), expected)


def drift(shuffled: bool, seed: int) -> float:
    # Ops that do nothing at magnitude 0, so that no reward can depend on which of them was drawn.
    ops = ("Rotate", "Brightness", "Contrast", "Color", "Sharpness", "TranslateX", "ShearY", "Cutout")
    start = Policy(tuple(SubPolicy((OpChoice(op, 0.5, 0.0),)) for op in ops))
    bench = make(start, shuffled=shuffled, **FIXED)
    bench.policy.noise.manual_seed(seed)
    for step in range(60):
        bench.step(batch_of(24, seed + step), batch_of(24, 900 + step), step_size=0.05)
    return float(bench.soft.preference.detach().square().mean())


@pytest.mark.slow
def test_among_ops_that_do_nothing_the_policy_drifts_as_it_does_on_shuffled_rewards() -> None:
    real, dealt = (sum(drift(shuffled, 100 * seed) for seed in range(5)) for shuffled in (False, True))
    assert 0.25 < real / dealt < 4  # squares: a factor of 2
    assert real / 5 < 0.02  # 60 steps of .02 in one direction would come to 1.44; it is .003


def test_the_gradient_of_the_weights_of_sub_policies_is_that_of_the_blend_of_all_their_images() -> None:
    start = Policy((*TELLING.sub_policies, SubPolicy((OpChoice("Rotate", 0.5, 0.6), OpChoice("Brightness", 0.5, 0.3)))))
    bench = make(start, plain_network().double(), False, rewards=Rewards(epsilon=0.0), estimator=GUMBEL["gumbel"])
    searcher, train = bench.searcher, smooth(16)
    batch = searcher.drawn.augmented(train)
    record, direction = recorded_at(bench, batch)
    objective, credits, _ = searcher.outcome(record, direction, batch, moment(), {})
    (found,) = torch.autograd.grad(objective, bench.soft.preference, retain_graph=True)
    acts = batch.draw.all_acts.detach()
    blend = sum(
        batch.draw.weights[:, place].view(-1, 1, 1, 1) * under(bench, batch, place, acts[:, place])
        for place in range(4)
    )
    value = double_backward(record.live(), direction, (blend - 0.5) / 0.25, batch.labels, STEP_SIZE).mean()
    torch.testing.assert_close(value.detach(), credits.mean(), rtol=1e-6, atol=1e-9, check_dtype=False)
    (expected,) = torch.autograd.grad(value, bench.soft.preference)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
    assert float(expected.std()) > 1e-5


def under(bench: Bench, batch: Augmented, place: int, acts: Tensor) -> Tensor:
    """All images under one sub-policy, with the directions of the draw."""
    soft, count = bench.soft, len(batch.labels)
    op = torch.where(acts > 0, soft.op[place], -1)
    draw = draw_of(
        torch.full((count,), place), op, soft.magnitudes().detach()[place].expand(count, -1), torch.rand(8, count)
    )
    return apply_draw(batch.pixels, type(draw)(*draw_fields(draw, batch)))


def draw_fields(draw: Any, batch: Augmented) -> tuple[Tensor, ...]:
    return draw.sub_policy, draw.op, draw.magnitude, batch.ops.sign, batch.ops.position, batch.ops.partner


def recorded_at(bench: Bench, batch: Augmented) -> tuple[StepRecord, dict[str, Tensor]]:
    with record_step(bench.network) as record:
        bench.searcher.context.train_step(batch.images.detach(), batch.labels)
    judge = (JUDGE.images.double() / 255 - STANDARD.mean[0]) / STANDARD.std[0]
    return record, validation_gradient(bench.network, [(judge, JUDGE.labels)])


def test_a_gumbel_step_moves_everything_that_is_learned() -> None:
    bench = make(trains=False, estimator=GUMBEL["gumbel"])
    gradient = bench.gradient(batch_of(64), JUDGE)
    assert (gradient[:5] != 0).all()  # three shares and two acting logits; the last op does not exist
    assert float(gradient[:3].sum()) == pytest.approx(0, abs=1e-6)  # shares add up to 1 whatever the preferences
    magnitude = bench.soft.magnitude_logits.grad
    assert [name for name, slope in zip(("Invert", "Solarize", "none"), magnitude, strict=True) if slope != 0] == [
        "Solarize"
    ]
    assert OPS["Invert"].has_magnitude is False
