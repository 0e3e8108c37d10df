"""A search step credits what it applied, with rewards that are right, and leaves alone what it must not touch."""

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from jointsearch.compose import compose_study
from jointsearch.data.sets import AnySet, ImageSet, StreamSet
from jointsearch.data.standard import Standard, normalize
from jointsearch.estimators.gumbel import GumbelSettings
from jointsearch.estimators.reinforce import ReinforceSettings
from jointsearch.estimators.relax import RelaxSettings
from jointsearch.networks.create import create_network
from jointsearch.searchers import policy_learner
from jointsearch.searchers.credit import dealt, scaled
from jointsearch.searchers.differentiable import Differentiable
from jointsearch.searchers.rewards import Rewards, Stabilize
from jointsearch.through_step.double_backward import double_backward
from jointsearch.through_step.record import record_step
from jointsearch.through_step.validation import validation_gradient
from tests.kills import same
from tests.search_bench import (
    CLASSES,
    ESTIMATORS,
    GUMBEL,
    STANDARD,
    STEP_SIZE,
    Bench,
    Descent,
    batch_of,
    make,
    moment,
    noise,
    patterned,
    plain_network,
    seen_by_network,
    smooth_network,
)


class Rows:
    """Where a stream set reads from."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def read(self, row: int) -> Tensor:
        return self.images[row]


@pytest.mark.parametrize("workers", [None, 0, 2])
def test_the_credited_draw_is_the_applied_one_for_every_image(workers: int | None) -> None:
    pixels, labels = patterned(96, 0)
    names, order = ("a", "b", "c", "d"), torch.randperm(96, generator=noise())
    train: AnySet = ImageSet(pixels, labels, names)
    if workers is not None:
        train = StreamSet(Rows(pixels), torch.arange(96), labels, names, (1, 8, 8), workers)
    bench = make(standard=Standard(cutout=3))
    for batch in train.batches(order, 32):
        bench.step(batch, batch_of(16, 9))
    seen: Counter[tuple[int, int]] = Counter()
    for index, received, (draw, credits) in zip(order.split(32), bench.received, bench.draws, strict=True):
        expected = seen_by_network(pixels[index], draw.sub_policy, draw.acts)
        cut = received == 0
        assert cut.flatten(1).sum(1).max() <= 9
        torch.testing.assert_close(received, torch.where(cut, 0.0, expected))
        assert len(credits) == 1
        seen.update(zip(draw.sub_policy.tolist(), draw.acts.flatten().int().tolist(), strict=True))
    assert set(seen) == {(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)}


@pytest.mark.parametrize("epsilon", [0.01, 0.0])
@pytest.mark.parametrize("estimator", ["leave_one_out", "relax_joint"])
def test_the_credit_of_an_image_is_its_reward_by_double_backward(estimator: str, epsilon: float) -> None:
    network = smooth_network()
    twin = copy.deepcopy(network)
    bench = make(network=network, rewards=Rewards(epsilon=epsilon), estimator=ESTIMATORS[estimator])
    train, judge, dropped = batch_of(32), batch_of(24, 9), torch.get_rng_state()
    bench.step(train, judge)
    (received,), ((_, (credits,)),) = bench.received, bench.draws
    torch.set_rng_state(dropped)
    with record_step(twin) as record:
        Descent(twin)(received, train.labels)
    assert all(map(torch.equal, twin.state_dict().values(), network.state_dict().values()))
    direction = validation_gradient(twin, [(normalize(judge.images, STANDARD), judge.labels)])
    expected = double_backward(record.live(), direction, received, train.labels, STEP_SIZE)
    assert float((credits - expected).abs().max()) <= 2e-2 * float(expected.abs().max())
    assert torch.corrcoef(torch.stack([credits, expected]))[0, 1] > 0.999


def test_validation_images_reach_the_network_as_they_are_and_once() -> None:
    bench = make(standard=Standard(crop_padding=2, flip=True, cutout=3))
    seen: list[Tensor] = []
    bench.network.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
    judges = [batch_of(12, 9), batch_of(20, 10)]
    bench.step(batch_of(32), *judges)
    for judge in judges:
        expected = (judge.images / 255 - 0.5) / 0.25
        assert sum(images.shape == expected.shape and torch.allclose(images, expected) for images in seen) == 1


def test_the_validation_gradient_leaves_no_trace() -> None:
    torch.manual_seed(0)
    network = create_network("tiny_cnn", CLASSES, 1, 8, 0.5)
    network.get_submodule("stage2").eval()
    images, labels = patterned(16, 0)
    before, flags = copy.deepcopy(network.state_dict()), [module.training for module in network.modules()]
    drawn = torch.get_rng_state()
    gradient = validation_gradient(network, [(normalize(images, STANDARD), labels)])
    assert set(gradient) == {name for name, _ in network.named_parameters()}
    assert same(dict(network.state_dict()), dict(before))
    assert [module.training for module in network.modules()] == flags
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_validation_gradient_of_several_batches_is_that_of_one_large_batch_without_dropout() -> None:
    network = plain_network().append(nn.Dropout(0.5))
    images, labels = patterned(30, 0)
    inputs = normalize(images, STANDARD)
    parts = zip(inputs.split([6, 16, 8]), labels.split([6, 16, 8]), strict=True)
    gradient = validation_gradient(network, list(parts))
    expected = torch.autograd.grad(cross_entropy(network[:-1](inputs), labels), list(network.parameters()))
    for found, wanted in zip(gradient.values(), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_batch_normalization_judges_by_the_statistics_of_each_validation_batch() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, CLASSES))
    images, labels = patterned(16, 0)
    inputs = normalize(images, STANDARD)
    first, second = (validation_gradient(network, [(values, labels)]) for values in (inputs, 3 * inputs + 1))
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-5)  # it undoes any scale and shift


class Products(TorchDispatchMode):
    """Counts the matrix products of the layer from MIDDLE to MIDDLE, whatever asks for them."""

    done = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            self.done += sorted((*args[-2].shape, args[-1].shape[1])) == sorted((BATCH, MIDDLE, MIDDLE))
        return made


BATCH, MIDDLE = 16, 24


@pytest.mark.parametrize(
    ("searcher", "estimator"),
    [
        ({}, "leave_one_out"),
        ({"published": "paper"}, "leave_one_out"),
        ({"magnitude_gradient": "none"}, "relax_joint"),
        ({"stabilize": Stabilize(draws_per_validation=3)}, "leave_one_out"),
        ({"stabilize": Stabilize(draws_per_validation=2), "magnitude_gradient": "none"}, "ema"),
        ({"stabilize": Stabilize(validation_batches=3)}, "relax"),
        ({"from_epoch": 1}, "leave_one_out"),
        ({"magnitude_gradient": "none"}, "gumbel"),
        ({"rewards": Rewards(epsilon=0.0)}, "leave_one_out"),
        ({"rewards": Rewards(epsilon=0.0), "stabilize": Stabilize(draws_per_validation=2)}, "leave_one_out"),
    ],
)
def test_a_step_costs_what_it_says(searcher: dict[str, Any], estimator: str) -> None:
    layers = nn.Linear(64, MIDDLE), nn.Tanh(), nn.Linear(MIDDLE, MIDDLE), nn.Tanh(), nn.Linear(MIDDLE, CLASSES)
    network = nn.Sequential(nn.Flatten(), *layers)
    bench = make(network=network, estimator=(ESTIMATORS | GUMBEL)[estimator], **searcher)
    for epoch in (0, 1):
        wanted = bench.searcher.needs.batches if bench.searcher.needs.wanted(moment(epoch)) else 0
        judges = [batch_of(BATCH, 9 + n) for n in range(wanted)]
        with Products() as products:
            report = bench.step(batch_of(BATCH), *judges, epoch=epoch)
        # A layer in the middle: forward, to its input and to its weight are one product each.
        assert products.done == report.forward_equivalents


def test_until_its_first_epoch_weights_train_under_the_start_and_nothing_is_learned() -> None:
    bench = make(from_epoch=2, estimator=ESTIMATORS["relax"])
    before, weights = bench.learned(), copy.deepcopy(bench.network.state_dict())
    for epoch in (0, 1):
        assert not bench.searcher.needs.wanted(moment(epoch))
        report = bench.step(batch_of(16), epoch=epoch)
        assert report.skipped is False
        assert report.loss > 0
    assert same(bench.learned(), before)
    assert not bench.soft.visits.any()  # nothing was tried
    assert not torch.equal(bench.network[1].weight, weights["1.weight"])
    draw, credits = bench.draws[0]
    pixels = batch_of(16).images
    torch.testing.assert_close(bench.received[0], seen_by_network(pixels, draw.sub_policy, draw.acts))
    assert not credits
    assert bench.searcher.needs.wanted(moment(2))
    bench.step(batch_of(16), batch_of(16, 9), epoch=2)
    assert not same(bench.learned(), before)


@pytest.mark.parametrize("estimator", [*ESTIMATORS, *GUMBEL])
@pytest.mark.parametrize("magnitude_gradient", ["pathwise", "none"])
def test_a_reward_that_is_no_number_changes_nothing_and_is_counted(estimator: str, magnitude_gradient: str) -> None:
    bench = make(magnitude_gradient=magnitude_gradient, estimator=(ESTIMATORS | GUMBEL)[estimator])
    check_that_no_number_changes_nothing(bench)


@pytest.mark.parametrize("scale", ["loss", "rank"])
def test_a_scaled_reward_that_is_no_number_changes_nothing_either(scale: str) -> None:
    check_that_no_number_changes_nothing(make(magnitude_gradient="none", stabilize=Stabilize(reward_scale=scale)))


def check_that_no_number_changes_nothing(bench: Bench) -> None:
    assert bench.step(batch_of(16), batch_of(16, 9)).skipped is False  # so that there are momenta
    before = bench.learned()
    with torch.no_grad():
        bench.network[-1].bias.fill_(torch.nan)
    assert bench.step(batch_of(16), batch_of(16, 9)).skipped is True
    assert same(bench.learned(), before)


@pytest.mark.parametrize(
    ("estimator", "scale"), [("leave_one_out", "none"), ("none", "none"), ("gumbel", "none"), ("leave_one_out", "loss")]
)
def test_a_validation_loss_without_a_slope_changes_nothing(estimator: str, scale: str) -> None:
    bench = make(stabilize=Stabilize(reward_scale=scale), trains=False, estimator=(ESTIMATORS | GUMBEL)[estimator])
    bench.step(batch_of(16), batch_of(16, 9))
    before = bench.learned()["policy"]["soft"]
    with torch.no_grad():
        bench.network[-1].weight.zero_()
        bench.network[-1].bias.copy_(torch.tensor([200.0, 0, 0, 0]))  # sure of class 0, and of nothing else
    judge = batch_of(16, 9)
    bench.step(batch_of(16), replace(judge, labels=torch.zeros_like(judge.labels)))
    assert same(bench.learned()["policy"]["soft"], before)


@pytest.mark.parametrize("share", ["none", "ops"])
def test_a_bonus_on_the_entropy_draws_a_policy_back_to_its_start_and_nothing_else_moves_it(share: str) -> None:
    def divergences(bonus: float, first: float) -> tuple[float, float]:
        bench = make(stabilize=Stabilize(entropy_bonus=bonus), space={"share": share})
        soft = bench.soft  # whose sub-policies do not begin alike: .5, .25 and .25
        with torch.no_grad():
            soft.preference[..., soft.op[0, 0] if share == "ops" else 0] += first
        before = float(soft.divergence().detach())
        for _ in range(20):
            bench.step(batch_of(16), batch_of(16, 9), step_size=0.0)  # no step, no reward
        return before, float(soft.divergence().detach())

    before, after = divergences(0.0, 3.0)
    assert before == after > 0.1
    before, after = divergences(0.1, 3.0)
    assert 0 < after < 0.8 * before
    assert divergences(0.1, 0.0) == (0.0, 0.0)


def test_what_is_kept_of_the_start_bounds_every_share_from_below() -> None:
    bench = make(stabilize=Stabilize(start_share=0.5), learning_rate=1.0, magnitude_gradient="none")
    for _ in range(25):
        bench.step(batch_of(32), batch_of(16, 9))
    shares = torch.tensor(bench.facts["sub_policy_shares"])
    start = torch.tensor([0.5, 0.25, 0.25])
    assert (shares >= 0.5 * start - 1e-6).all()
    assert float((shares - start).abs().max()) > 0.1  # it has learned, and was held


def test_shuffled_rewards_are_the_same_ones_dealt_to_other_images() -> None:
    real, control = (make(shuffled=shuffled, magnitude_gradient="none") for shuffled in (False, True))
    for bench in (real, control):
        bench.step(batch_of(64), batch_of(16, 9))
    (drawn, (rewards,)), (again, (credits,)) = real.draws[0], control.draws[0]
    assert torch.equal(drawn.sub_policy, again.sub_policy)
    assert torch.equal(rewards.sort().values, credits.sort().values)
    assert int((rewards != credits).sum()) > 48
    assert torch.equal(dealt(64, noise(4)), dealt(64, noise(4)))


def test_scaled_rewards_by_hand() -> None:
    rewards, losses = torch.tensor([0.5, -1.0, 2.0, 0.25]), torch.tensor([2.0, 0.5, 0.001, 1.0])
    assert torch.equal(scaled(rewards, losses, "none"), rewards)
    torch.testing.assert_close(scaled(rewards, losses, "loss"), torch.tensor([0.25, -2.0, 40.0, 0.25]))
    torch.testing.assert_close(scaled(rewards, None, "rank"), torch.tensor([1 / 3, -1.0, 1.0, -1 / 3]))


def test_equal_rewards_share_a_rank_and_no_number_has_none() -> None:
    torch.testing.assert_close(scaled(torch.tensor([3.0, 7.0, 7.0]), None, "rank"), torch.tensor([-1.0, 0.5, 0.5]))
    assert torch.equal(scaled(torch.zeros(5), None, "rank"), torch.zeros(5))  # equal rewards say nothing
    assert float(scaled(torch.ones(1), None, "rank")) == 0.0
    assert scaled(torch.tensor([1.0, torch.nan]), None, "rank").isnan().any()


@pytest.mark.parametrize("scale", ["loss", "rank"])
def test_the_estimator_gets_the_scaled_rewards(scale: str) -> None:
    plain, bench = (make(stabilize=Stabilize(reward_scale=name), magnitude_gradient="none") for name in ("none", scale))
    for each in (plain, bench):
        each.step(batch_of(32), batch_of(16, 9))
    (_, (rewards,)), (_, (credits,)) = plain.draws[0], bench.draws[0]
    losses = cross_entropy(plain_network()(plain.received[0]), batch_of(32).labels, reduction="none").detach()
    torch.testing.assert_close(credits, scaled(rewards, losses, scale), rtol=1e-3, atol=1e-6)


def test_visits_count_draws_and_shares_add_up() -> None:
    bench = make()
    for _ in range(3):
        bench.step(batch_of(32), batch_of(16, 9))
    counted = torch.stack([draw.sub_policy.bincount(minlength=3) for draw, _ in bench.draws]).sum(0)
    assert torch.equal(bench.soft.visits, counted)
    assert int(counted.sum()) == 96
    facts = bench.facts
    assert facts["visits_mean"] == 32.0
    assert facts["visits_least"] == int(counted.min())
    assert facts["sub_policy_visits"] == counted.tolist()
    shares = torch.tensor(facts["sub_policy_shares"])
    assert float(shares.sum()) == pytest.approx(1.0, abs=1e-6)
    gained = shares.log() - bench.soft.start_logits
    assert facts["sub_policy_preferences"] == pytest.approx(gained.tolist(), abs=1e-5)
    act = bench.soft.probability_logits.detach().sigmoid().flatten()
    assert facts["share/Invert"] == pytest.approx(float(shares[0] * act[0]), abs=1e-5)
    assert facts["share/Solarize"] == pytest.approx(float(shares[1] * act[1]), abs=1e-5)
    assert facts["idle_share"] == pytest.approx(1 - facts["share/Invert"] - facts["share/Solarize"], abs=1e-5)
    assert {key for key in facts if key.startswith("share/")} == {"share/Invert", "share/Solarize"}


def test_one_draw_for_a_batch_serves_all_images_and_is_credited_their_mean() -> None:
    alone = make(trains=False)
    together = make(trains=False, estimator=ReinforceSettings(draws="batch", baseline="ema"))
    train, judge = batch_of(32), batch_of(16, 9)
    for _ in range(8):
        together.step(train, judge)
    assert int(together.soft.visits.sum()) == 8
    for received, (draw, (credits,)) in zip(together.received, together.draws, strict=True):
        assert draw.sub_policy.shape == credits.shape == (1,)
        place, acts = draw.sub_policy.expand(32), draw.acts.expand(32, -1)
        torch.testing.assert_close(received, seen_by_network(train.images, place, acts))
    with record_step(alone.network) as record:
        Descent(alone.network, 0.0)(received, train.labels)
    direction = validation_gradient(alone.network, [(normalize(judge.images, STANDARD), judge.labels)])
    expected = double_backward(record.live(), direction, received, train.labels, STEP_SIZE).mean()
    assert float(credits) == pytest.approx(float(expected), rel=1e-2)


def test_a_searcher_or_an_op_that_is_unknown_is_answered_with_the_nearest() -> None:
    study = compose_study("search=policy", "searcher=differentiable")
    assert study.search.stages()[0].searcher(None, 0) == Differentiable()
    with pytest.raises(ValueError, match="did you mean differentiable"):
        compose_study("search=policy", "searcher=diferentiable")
    with pytest.raises(ValueError, match="did you mean Rotate"):
        compose_study("search=policy", "searcher=random", "searcher.ops=[Rotat,Invert]")


@pytest.mark.parametrize("estimator", [RelaxSettings(temperature=0.2), GumbelSettings(temperature=0.2)])
def test_a_search_has_the_temperature_and_the_optimizer_of_its_settings(
    estimator: RelaxSettings | GumbelSettings,
) -> None:
    policy = make(learning_rate=0.07, estimator=estimator).policy
    assert policy.estimator.temperature == 0.2
    assert [policy.optimizer.defaults[name] for name in ("lr", "betas")] == [0.07, (0.5, 0.999)]


def test_gumbel_learns_the_shares_alone() -> None:
    bench = make(magnitude_gradient="none", estimator=GUMBEL["gumbel"])
    bench.soft.learn_probability = False
    bench.step(batch_of(32), batch_of(16, 9))
    assert float(bench.soft.preference.detach().abs().max()) > 0


def test_under_shuffled_rewards_magnitudes_learn_noise_too() -> None:
    slopes = []
    for shuffled in (False, True):
        bench = make(trains=False, shuffled=shuffled)
        bench.step(batch_of(64), batch_of(16, 9))
        slopes.append(bench.soft.magnitude_logits.grad.clone())
    assert not torch.allclose(*slopes)


def test_gradients_of_magnitudes_are_dealt_as_rewards_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def slope(shuffled: bool, deal: Callable[[Tensor], Tensor]) -> Tensor:
        monkeypatch.setattr(policy_learner, "dealt", lambda batch, noise: deal(torch.arange(batch)))
        bench = make(trains=False, shuffled=shuffled)
        bench.step(batch_of(64), batch_of(16, 9))
        return bench.soft.magnitude_logits.grad.clone()

    real = slope(False, lambda images: images)
    torch.testing.assert_close(slope(True, lambda images: images), real)
    assert not torch.allclose(slope(True, lambda images: images.roll(1)), real)


def test_a_running_baseline_follows_the_rewards() -> None:
    bench = make(trains=False, estimator=ESTIMATORS["ema"])
    bench.step(batch_of(32), batch_of(16, 9))
    ((_, (credits,)),) = bench.draws
    assert float(bench.policy.estimator.running.sum) == pytest.approx(0.1 * float(credits.mean()), rel=1e-5)
