"""The table of gains against hand arithmetic, and what the policy made of it keeps and drops."""

import copy
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from jointsearch.compose import compose_study
from jointsearch.data.sets import Batch
from jointsearch.data.standard import ORDERS
from jointsearch.front_end import augment
from jointsearch.protocols import PLAIN_STEP
from jointsearch.searchers.gains import OneStep
from jointsearch.searchers.spaces import Start
from jointsearch.searchers.table import Table, TableSearcher, Trials
from jointsearch.searchers.table_entries import table_entries
from jointsearch.soft.policy import SoftPolicy
from jointsearch.through_step.double_backward import double_backward
from jointsearch.through_step.record import record_step
from search_spaces.augment.table import DADA_OPS
from search_spaces.controls import resolve_policy
from search_spaces.errors import InputError
from search_spaces.policy import OpChoice, Policy
from tests.search_bench import moment
from tests.table_bench import (
    MOVED,
    PLANTED,
    convolutional,
    glyphs,
    linear,
    normalized,
    of_table,
    policy_of,
    received,
    restored,
    run,
    searcher_of,
    some,
    table,
    trials,
)


def test_a_gain_is_what_training_on_an_image_takes_off_the_validation_loss() -> None:
    network, train, judges = linear(), some(6, 1), [some(10, 2), some(10, 3)]
    before = copy.deepcopy(network)
    searcher = searcher_of(table("Invert", "HorizontalFlip", start="none"), network)
    run(searcher, [train], judges)

    judged = cross_entropy(
        network(normalized(torch.cat([one.images for one in judges]))), torch.cat([one.labels for one in judges])
    )
    direction = torch.autograd.grad(judged, list(network.parameters()))

    def gain(image: Tensor, label: Tensor) -> Tensor:
        loss = cross_entropy(before(normalized(image.unsqueeze(0))), label.unsqueeze(0))
        slopes = torch.autograd.grad(loss, list(before.parameters()))
        return 0.1 * torch.stack([(v * slope).sum() for v, slope in zip(direction, slopes, strict=True)]).sum()

    changed = {"identity": train.images, "Invert": 255 - train.images, "HorizontalFlip": train.images.flip(-1)}
    for op, images in changed.items():
        expected = statistics.fmean(float(gain(*pair)) for pair in zip(images, train.labels, strict=True))
        assert of_table(searcher, op)["gain"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("scale", ["none", "loss", "rank"])
def test_with_batch_statistics_and_dropout_gains_are_those_of_the_exact_way(scale: str) -> None:
    network, train = convolutional(), some(6, 1)
    searcher = searcher_of(table("Rotate", "Cutout", levels=2, reward_scale=scale), network, standard=MOVED)
    with record_step(network) as record:
        searcher.context.train_step(normalized(train.images), train.labels)
    direction = {name: torch.randn_like(weight) for name, weight in network.named_parameters()}
    gauge, noise = searcher.gauge, searcher.context.noise
    assert isinstance(gauge, OneStep)
    gains = gauge.of_images(record.frozen(), direction, train, 0.1, noise)  # (5, 6)
    images = [gauge.images(row, train, noise) for row in range(len(gains))]
    frozen = record.frozen()
    exact = -torch.stack([double_backward(frozen, direction, one, train.labels, 0.1) for one in images]).double()
    if scale == "loss":
        outputs = [frozen(frozen.weights, one) for one in images]
        exact /= torch.stack([cross_entropy(output, train.labels, reduction="none") for output in outputs]).detach()
    if scale == "rank":
        exact = (exact.view(-1, 1) > exact.flatten()).double().mean(1).view_as(exact) * 2 * 30 / 29 - 1
    torch.testing.assert_close(gains, exact, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("order", ORDERS)
def test_entries_share_crops_directions_and_dropout(order: str) -> None:
    # At magnitude 1 Solarize inverts every pixel, as Invert does. TranslateX is drawn to the left or to the right.
    search = table("Invert", "Solarize", "TranslateX", levels=1)
    searcher = searcher_of(search, convolutional(), standard=replace(MOVED, order=order))
    run(searcher, [some(16, 1)], [some(10, 2)])
    assert of_table(searcher, "Solarize")["gain"] == of_table(searcher, "Invert")["gain"]
    assert of_table(searcher, "TranslateX")["gain"] != of_table(searcher, "Invert")["gain"]


def test_the_weights_are_trained_on_the_starting_policy() -> None:
    searcher, train = searcher_of(table("Rotate", "Invert"), linear(), standard=MOVED), some(16, 1)
    noise = torch.Generator().manual_seed(1)
    run(searcher, [train] * 3, [some(10, 2)])
    for seen in received(searcher):
        assert torch.equal(seen, augment(train.images, searcher.rows.start, MOVED, noise))


@pytest.mark.parametrize("search", [table(*PLANTED, every=2), trials(*PLANTED, trial_steps=2)])
def test_the_control_trains_the_same_weights_and_deals_the_same_gains_to_other_entries(search: Table | Trials) -> None:
    def after(shuffled: bool) -> TableSearcher:
        searcher = searcher_of(replace(search, shuffled=shuffled), linear())
        batches = [glyphs((3,), 16, seed) for seed in range(4)]
        run(searcher, batches, [glyphs((0, 6), 16, 9)], measured=lambda step: step % 2 == 0)
        return searcher

    real, control = after(False), after(True)
    weights = (one.context.network.parameters() for one in (real, control))
    assert all(torch.equal(*pair) for pair in zip(*weights, strict=True))
    assert sorted(control.owner.tolist()) == list(range(len(real.rows.members)))
    assert torch.equal(control.gains[:, 0], real.gains[:, 0])  # with which the others are compared
    assert torch.equal(control.gains, real.gains[:, control.owner])
    assert not torch.equal(control.gains, real.gains)


def test_means_and_standard_errors_by_hand() -> None:
    # Two measurements, of 4 and of 2 images; beyond the identity Invert gains +1 and -2.
    searcher = restored(searcher_of(table("Invert"), linear()), [1, 2], [4, 2], images=(4, 2))
    row = of_table(searcher, "Invert")
    assert row["gain"] == pytest.approx(2.0)
    assert of_table(searcher, "identity")["gain"] == pytest.approx((4 * 1 + 2 * 4) / 6)
    assert row["beyond_identity"] == pytest.approx((4 * 1 + 2 * -2) / 6)
    # sqrt(n / (n - 1) * sum (images * (difference - mean))^2) / sum images = sqrt(2 * (4^2 + 4^2)) / 6
    assert row["standard_error"] == pytest.approx(8 / 6)


def test_measurements_of_equal_size_have_the_standard_error_of_a_mean() -> None:
    searcher = searcher_of(table("Invert", every=2, validation_batches=1), linear())
    run(searcher, [some(8, seed) for seed in range(7)], [some(10, 20)])
    paired = (searcher.gains[:, 1] - searcher.gains[:, 0]).tolist()
    assert len(paired) == 4  # of steps 1, 3, 5, 7
    row = of_table(searcher, "Invert")
    assert row["beyond_identity"] == pytest.approx(statistics.fmean(paired))
    assert row["standard_error"] == pytest.approx(statistics.stdev(paired) / 4**0.5)
    assert searcher.found().facts["images_measured"] == 32


def test_one_measurement_alone_is_no_evidence() -> None:
    searcher = searcher_of(table("Invert", "HorizontalFlip"), linear())
    run(searcher, [some(8, 1)], [some(10, 2)])
    assert [row["standard_error"] for row in searcher.found().facts["table"]] == [None] * 3
    assert searcher.found().facts["sub_policy_shares"] == pytest.approx([1 / 3] * 3)


def test_a_gain_that_is_no_number_is_left_out() -> None:
    searcher = searcher_of(table("Invert", validation_batches=1), linear())
    bad = replace(some(4, 2), images=torch.full((4, 3, 8, 8), torch.nan))
    assert searcher.step(some(8, 1), [bad], moment()).skipped is True
    unmeasured = searcher.step(some(8, 1), [], moment(step=1))
    assert (unmeasured.skipped, unmeasured.forward_equivalents) == (None, PLAIN_STEP)
    assert len(searcher.gains) == 0
    assert searcher.found().facts["sub_policy_shares"] == [0.5, 0.5]


@pytest.fixture(scope="module")
def planted() -> TableSearcher:
    """Training has the square in the middle, validation above and below too: TranslateY helps, a flip destroys."""
    search = table(*PLANTED, levels=2, every=4, validation_batches=2)
    searcher = searcher_of(search, linear(), rate=0.005)
    judges = [glyphs((0, 3, 6), 64, seed) for seed in (100, 101)]
    run(searcher, [glyphs((3,), 32, seed) for seed in range(60)], judges)
    return searcher


def test_the_op_that_helps_comes_first_and_the_one_that_destroys_last(planted: TableSearcher) -> None:
    table = planted.found().facts["table"]
    assert (table[0]["op"], table[-1]["op"]) == ("TranslateY", "HorizontalFlip")
    facts = planted.found().facts
    assert (facts["entries_above_identity"], facts["entries_below_identity"]) == (1, 1)  # Color leaves gray gray


def test_the_op_that_destroys_is_dropped_and_the_one_that_helps_is_kept(planted: TableSearcher) -> None:
    shares = {row["op"]: row["share"] for row in planted.found().facts["table"]}
    assert shares["TranslateY"] > shares["HorizontalFlip"] == 0
    kept = {op.op for sub_policy in policy_of(planted).sub_policies for op in sub_policy.ops}
    assert "HorizontalFlip" not in kept


def alike(count: int, seed: int) -> Batch:
    """Images that are nearly the same one; labels are dealt blindly."""
    one, others = some(1, 0).images, some(count, seed)
    return replace(others, images=(0.9 * one + 0.1 * others.images).to(torch.uint8))


def test_where_nothing_can_be_learned_few_entries_look_significant() -> None:
    # At weights of 0 that stay there, v is 0 on average over labels dealt blindly, and no op gains anything. But each v
    # points somewhere, and all images of a measurement follow it: counted as independent, 24 of 32 look significant.
    significant = 0.0
    for seed in range(16):
        network = linear()
        nn.init.zeros_(network.get_parameter("1.weight"))
        nn.init.zeros_(network.get_parameter("1.bias"))
        searcher = searcher_of(table("Invert", "Rotate", levels=1, every=1, validation_batches=1), network, rate=0.0)
        train = replace(alike(16, 7), labels=torch.zeros(16, dtype=torch.long))
        for step in range(10):
            run(searcher, [train], [alike(16, 100 + 10 * seed + step)], step)
        facts = searcher.found().facts
        significant += facts["entries_above_identity"] + facts["entries_below_identity"]
    assert significant <= 4  # 5% of 32 are expected


def test_entries_are_ops_at_even_levels_and_each_op_is_as_likely_as_the_identity() -> None:
    search = table("Rotate", "Invert", levels=2)
    entries = table_entries(search.policy_space, search.levels).sub_policies
    assert [entry.ops for entry in entries] == [
        (),
        (OpChoice("Rotate", 1.0, 0.5),),
        (OpChoice("Rotate", 1.0, 1.0),),
        (OpChoice("Invert"),),
    ]
    assert [entry.weight for entry in entries] == [1.0, 0.5, 0.5, 1.0]


def weights(policy: Policy) -> dict[tuple[str, ...], float]:
    return {tuple(op.op for op in one.ops): one.weight for one in policy.sub_policies}


def test_what_is_kept_by_hand() -> None:
    # Beyond the identity: Rotate 2 +- 1, Invert -2.5 +- .5, Solarize -5.2 +- .2. Student's t of two asks for 12.7 +-.
    gains = ([1.0, 2.0, -2.0, -4.0], [1.0, 4.0, -1.0, -4.4])
    kept = restored(searcher_of(table("Rotate", "Invert", "Solarize", levels=1), linear()), *gains)
    assert weights(policy_of(kept)) == pytest.approx({(): 1 / 3, ("Rotate",): 1 / 3, ("Invert",): 1 / 3})
    facts = kept.found().facts
    assert (facts["entries_above_identity"], facts["entries_below_identity"]) == (0, 1)
    assert facts["effective_sub_policies"] == pytest.approx(3)
    assert (facts["share/Rotate"], facts["share/Invert"], facts["share/Solarize"]) == pytest.approx((1 / 3, 1 / 3, 0))
    assert facts["idle_share"] == pytest.approx(1 / 3)


def test_what_leaves_images_as_they_are_is_counted_as_for_every_other_search() -> None:
    searcher = searcher_of(table(levels=None), linear())  # TrivialAugment, of which nothing is dropped
    idle = searcher.found().facts["idle_share"]
    assert idle == pytest.approx(float(SoftPolicy(Start().policy()).idle_share()))
    assert idle > 0.1  # the plain image has 1 / 14, and levels next to nothing the rest


def test_a_table_that_shows_nothing_leaves_all_ops_alike() -> None:
    searcher = searcher_of(table("Rotate", "Invert", levels=1), linear())
    assert weights(policy_of(searcher)) == pytest.approx({(): 1 / 3, ("Rotate",): 1 / 3, ("Invert",): 1 / 3})


def test_two_stages_are_independent_draws_and_the_identity_may_stand_anywhere() -> None:
    gains = [1.0, 3.0, -9.0], [1.0, 3.1, -9.1]  # Invert is surely worse than the identity
    searcher = restored(searcher_of(table("Rotate", "Invert", levels=1, stages=2), linear()), *gains)
    assert weights(policy_of(searcher)) == pytest.approx({(): 1 / 4, ("Rotate",): 2 / 4, ("Rotate", "Rotate"): 1 / 4})


def test_the_largest_policy_can_be_read_back_and_a_larger_one_is_refused(tmp_path: Path) -> None:
    searcher = searcher_of(table(*DADA_OPS, levels=4, stages=2), linear())  # 1 + 12 * 4 + 3 = 52 entries
    policy = policy_of(searcher)
    assert len(policy.sub_policies) == 1 + 51 + 51**2
    policy.save(tmp_path / "found.json")
    assert Policy.load(tmp_path / "found.json") == policy
    with pytest.raises(InputError, match=r"searcher\.levels=6 makes 76 entries.*lower"):
        table(*DADA_OPS, levels=6, stages=2)


def test_the_ops_are_those_of_the_start_where_none_are_named() -> None:
    entries = table_entries(table(start="autoaugment", levels=1).policy_space, 1).sub_policies
    used = [entry.ops[0].op for entry in entries if entry.ops]
    start = resolve_policy("autoaugment")
    assert isinstance(start, Policy)
    assert used == list(dict.fromkeys(op.op for one in start.sub_policies for op in one.ops))
    assert len(used) > 10
    with pytest.raises(InputError, match=r"policy_space\.start=none names no op to measure"):
        table(start="none")


@pytest.mark.parametrize(("name", "settings"), [("table", Table()), ("trials", Trials())])
def test_the_shipped_settings_are_the_defaults(name: str, settings: Table | Trials) -> None:
    (stage,) = compose_study("search=policy", f"searcher={name}").search.stages()
    assert stage.searcher(None, 0) == settings
