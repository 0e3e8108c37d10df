"""Where a table tries every op for many steps: the gain by hand, the noise that is shared, and nothing that remains."""

import copy
import pickle
import random
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

from jointsearch.compose import compose_study
from jointsearch.data.sets import Batch
from jointsearch.loops.recipe import Mixing, Recipe, Warmup
from jointsearch.loops.trainer import Trainer
from jointsearch.networks.create import create_network
from jointsearch.runs.plain_state import encode_state
from jointsearch.searchers import gains
from jointsearch.searchers.gains import ManySteps, validation_error
from jointsearch.searchers.table import TableSearcher, Trials
from jointsearch.through_step.loss import cross_entropies
from search_spaces.controls import named_policy
from search_spaces.errors import InputError
from search_spaces.policy import OpChoice, Policy, SubPolicy
from tests.search_bench import Descent, moment
from tests.table_bench import (
    MOVED,
    PLANTED,
    always,
    convolutional,
    glyphs,
    linear,
    normalized,
    of_table,
    ops_of_rows,
    policy_of,
    received,
    restored,
    run,
    searcher_of,
    some,
    table,
    trials,
)


def many_steps(searcher: TableSearcher) -> ManySteps:
    assert isinstance(searcher.gauge, ManySteps)
    return searcher.gauge


def trained_by_hand(network: nn.Module, batches: list[Batch], changed: Any) -> nn.Module:
    network = copy.deepcopy(network)
    descent = Descent(network)
    for batch in batches:
        descent(normalized(changed(batch.images)), batch.labels)
    return network


@torch.no_grad()
def judged(network: nn.Module, judges: list[Batch]) -> float:
    outputs = torch.cat([network(normalized(one.images)) for one in judges])
    labels = torch.cat([one.labels for one in judges])
    return 1 - float(outputs.double().softmax(1)[torch.arange(len(labels)), labels].mean())


def test_the_gain_is_the_validation_error_that_training_on_with_the_op_takes_off() -> None:
    search = trials("Invert", "HorizontalFlip", start="none", trial_steps=3)
    network, batches, judges = linear(), [some(6, seed) for seed in range(6)], [some(10, 12), some(6, 13)]
    searcher = searcher_of(search, network)
    many_steps(searcher).share = 1.0
    run(searcher, batches[:3], judges, measured=lambda step: step == 0)
    before = copy.deepcopy(network)
    run(searcher, batches[3:4], judges, measured=always)
    # Training went on by one step, on plain images; the trials went on from there, over batches 1, 2 and 3.
    after = trained_by_hand(before, batches[3:4], lambda images: images)
    assert all(torch.equal(*pair) for pair in zip(after.parameters(), network.parameters(), strict=True))
    plain = judged(trained_by_hand(after, batches[1:4], lambda images: images), judges)
    for op, changed in (("Invert", lambda images: 255 - images), ("HorizontalFlip", lambda images: images.flip(-1))):
        with_op = judged(trained_by_hand(after, batches[1:4], changed), judges)
        place = ops_of_rows(searcher).index(op)
        assert float(searcher.gains[-1, place]) == pytest.approx(plain - with_op, rel=1e-4)
    assert searcher.gains[:, 0].tolist() == [0.0, 0.0]


def test_fewer_batches_than_steps_are_gone_through_again() -> None:
    searcher, batches = searcher_of(trials("Invert", start="none", trial_steps=5), linear()), [some(6, 1)]
    run(searcher, batches, [some(10, 2)], measured=always)
    assert len(received(searcher)) == 1 + 2 * 5


def test_a_row_is_an_op_at_all_its_levels_alike() -> None:
    searcher = searcher_of(trials("Color", "Invert", trial_steps=2), linear())
    assert [row.tolist() for row in searcher.rows.members] == [[0], [1, 2, 3], [4]]
    counts = torch.zeros(5)
    train, noise = some(3000, 1), torch.Generator().manual_seed(3)
    rows = searcher.rows
    levels = [rows.images(row, 1.0, train, noise.clone_state()) for row in range(3)]
    single = searcher_of(table("Color", "Invert", levels=3), linear()).rows
    for entry in range(5):
        alone = single.images(entry, 1.0, train, noise.clone_state())
        counts[entry] = float((alone == levels[(0, 1, 1, 1, 2)[entry]]).flatten(1).all(1).double().mean())
    assert counts[0] == counts[4] == 1
    assert counts[1:4].tolist() == pytest.approx([1 / 3] * 3, abs=0.03)
    assert of_table(searcher, "Color")["magnitude"] is None


def test_entries_of_a_row_are_drawn_by_their_weights(tmp_path: Path) -> None:
    weak, strong = (SubPolicy((OpChoice("Brightness", 1.0, magnitude),), magnitude) for magnitude in (0.25, 0.75))
    Policy((weak, SubPolicy((OpChoice("Invert"),)), strong)).save(tmp_path / "start.json")
    searcher = searcher_of(trials(start=str(tmp_path / "start.json"), levels=None, trial_steps=2), linear())
    assert [row.tolist() for row in searcher.rows.members] == [[0], [1, 3], [2]]
    train = some(2000, 1)
    seen = searcher.rows.images(1, 1.0, train, torch.Generator().manual_seed(3))
    single = searcher_of(table(start=str(tmp_path / "start.json"), levels=None), linear()).rows
    alone = single.images(3, 1.0, train, torch.Generator().manual_seed(3))
    assert float((seen == alone).flatten(1).all(1).double().mean()) == pytest.approx(0.75, abs=0.03)
    assert torch.equal(searcher.rows.images(0, 1.0, train, torch.Generator().manual_seed(3)), normalized(train.images))


@pytest.mark.parametrize("share", [0.5, 0.25, 1.0])
def test_half_of_the_images_or_any_share_is_under_the_op_and_the_others_are_under_the_start(share: float) -> None:
    searcher, train = searcher_of(trials("Invert", start="none", trial_steps=1), linear()), some(2000, 1)
    if share != 0.5:
        many_steps(searcher).share = share
    run(searcher, [train], [some(10, 2)], measured=always)
    as_is, plain, inverted = received(searcher)
    assert torch.equal(as_is, normalized(train.images))
    assert torch.equal(plain, as_is)
    changed, kept = (
        torch.isclose(inverted, wanted, atol=1e-5).flatten(1).all(1)
        for wanted in (normalized(255 - train.images), as_is)
    )
    assert bool((changed ^ kept).all())
    assert float(changed.double().mean()) == pytest.approx(share, abs=0.03)


def test_all_rows_meet_the_same_crops_and_shares_and_every_step_others() -> None:
    # At magnitude 1 Solarize inverts every pixel, as Invert does.
    search = trials("Invert", "Solarize", "TranslateX", levels=1, trial_steps=2)
    searcher = searcher_of(search, convolutional(), standard=MOVED)
    run(searcher, [some(16, 1)], [some(10, 2)], measured=always)
    seen = received(searcher)
    assert len(seen) == 1 + 4 * 2
    for step in (3, 4):
        torch.testing.assert_close(seen[step], seen[step + 2], rtol=0, atol=1e-6)
    assert not torch.equal(seen[3], seen[4])


def test_the_op_that_helps_comes_first_and_the_one_that_destroys_is_dropped() -> None:
    search = trials(*PLANTED, levels=2, validation_batches=2, trial_steps=10, margin=0.0)
    searcher = searcher_of(search, linear(), rate=0.005)
    judges = [glyphs((0, 3, 6), 64, seed) for seed in (100, 101)]
    run(searcher, [glyphs((3,), 32, seed) for seed in range(60)], judges, measured=lambda step: step % 10 == 0)
    rows = searcher.found().facts["table"]
    assert (rows[0]["op"], rows[-1]["op"]) == ("TranslateY", "HorizontalFlip")
    shares = {row["op"]: row["share"] for row in rows}
    assert shares == pytest.approx({"TranslateY": 1 / 3, "Color": 1 / 3, "identity": 1 / 3, "HorizontalFlip": 0.0})


def test_shares_by_hand() -> None:
    searcher = searcher_of(trials("Color", "Invert", levels=2, trial_steps=2), linear())
    restored(searcher, [0.0, 0.3, -0.1], [0.0, 0.5, -0.11], images=(1, 1))
    assert searcher.found().facts["sub_policy_shares"] == pytest.approx([0.5, 0.25, 0.25, 0.0])


@pytest.mark.parametrize(
    ("margin", "dropped"),
    # The interval of Invert, -.205 +- .064, may reach into the margin: its mean decides.
    [(0.0, {"Color", "Invert"}), (0.1, {"Invert"}), (0.2, {"Invert"}), (0.3, set())],
)
def test_what_differs_by_less_than_the_margin_is_no_reason(margin: float, dropped: set[str]) -> None:
    searcher = searcher_of(trials("Rotate", "Color", "Invert", trial_steps=2, margin=margin), linear())
    # Rotate loses as much as Color in the mean, and is anything but sure.
    restored(searcher, [0.0, -0.6, -0.05, -0.2], [0.0, 0.5, -0.051, -0.21], images=(1, 1))
    facts = searcher.found().facts
    assert {row["op"] for row in facts["table"] if not row["share"]} == dropped
    assert facts["entries_below_identity"] == len(dropped)


def of_weights(policy: Policy) -> dict[tuple[OpChoice, ...], float]:
    """The share of each sequence of ops."""
    total = sum(one.weight for one in policy.sub_policies)
    shares: defaultdict[tuple[OpChoice, ...], float] = defaultdict(float)
    for one in policy.sub_policies:
        shares[one.ops] += one.weight / total
    return shares


def test_the_start_is_found_where_nothing_is_dropped_and_else_the_start_without_the_op() -> None:
    search = trials("Rotate", "Invert", levels=None, trial_steps=2)
    searcher, start = searcher_of(search, linear()), named_policy("trivialaugment", ("Rotate", "Invert"))
    assert of_weights(policy_of(searcher)) == pytest.approx(of_weights(start))
    assert len(search.policy_space.policy().sub_policies) == 1 + 31 + 1  # among which it may choose
    restored(searcher, [0.0, 0.1, -0.2], [0.0, 0.1, -0.21], images=(1, 1))  # of identity, Rotate, Invert
    expected = of_weights(Policy(start.sub_policies[:-1]))
    assert of_weights(policy_of(searcher)) == pytest.approx(expected)
    assert sum(expected.values()) == pytest.approx(1)


def test_a_start_that_never_leaves_images_alone_does_so_after_no_search_either(tmp_path: Path) -> None:
    Policy((SubPolicy((OpChoice("Invert"),)), SubPolicy((OpChoice("Equalize"),), 0.0))).save(tmp_path / "start.json")
    searcher = searcher_of(trials(start=str(tmp_path / "start.json"), levels=None, trial_steps=2), linear())
    assert of_weights(policy_of(searcher)) == {(OpChoice("Invert"),): 1.0}
    run(searcher, [some(8, 1)], [some(10, 2)], measured=always)
    assert ops_of_rows(searcher) == ["identity", "Invert"]


@pytest.mark.parametrize(
    ("start", "held"), [("autoaugment", "a sub-policy of several ops"), ("none", "no op to measure")]
)
def test_a_start_that_is_no_table_is_refused_with_a_remedy(start: str, held: str) -> None:
    with pytest.raises(InputError, match=rf"start={start} has {held}.*levels=null.*use searcher\.levels=30 or pol"):
        trials(start=start, levels=None)
    with pytest.raises(InputError, match=r"searcher\.levels=null makes .* entries, and with searcher\.stages=2"):
        table(levels=None, stages=2)


@pytest.mark.parametrize(
    ("epochs", "due"), [(20, [10, 11, 12, 14, 15, 17, 18]), (60, [30, 34, 38, 42, 47, 51, 55]), (14, [*range(7, 14)])]
)
def test_measurements_are_spread_over_the_epochs_that_are_left(epochs: int, due: list[int]) -> None:
    made = searcher_of(trials("Invert", measurements=7), linear(), epochs=epochs)
    everywhere = [moment(epoch, step, epochs, steps=3) for epoch in range(epochs) for step in range(3)]
    wanted = [(at.epoch, at.step) for at in everywhere if made.needs.wanted(at)]
    assert wanted == [(epoch, 0) for epoch in due]


def test_trials_say_what_they_are_known_to_do_wrong() -> None:
    assert "few steps ahead" in str(Trials.about.warning)
    assert table("Invert").about.warning is None


def test_more_measurements_than_epochs_are_left_are_refused() -> None:
    search = trials("Invert", measurements=7)
    message = r"second half of 12 epochs; set some\.epochs=13 with budget=1, or searcher\.measurements=6"
    with pytest.raises(InputError, match=message):
        search.check(12, 3, "some.epochs")
    search.check(13, 3, "some.epochs")
    with pytest.raises(InputError, match=r"search_recipe\.epochs=13"):
        searcher_of(search, linear(), epochs=12)
    searcher_of(search, linear(), epochs=13)


def test_a_table_that_is_measured_only_once_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"every=20 makes fewer than 2 measurements in the 20 steps .*raise some\.epochs"
    ):
        table("Invert", from_epoch=1).check(3, 10, "some.epochs")
    table("Invert", from_epoch=1).check(4, 10, "some.epochs")


def test_an_op_that_makes_a_trial_diverge_has_lost_all_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    searcher = searcher_of(trials("Invert", "Rotate", trial_steps=1), linear())
    errors = iter([0.25, torch.nan, 0.5, 0.25, torch.nan, 0.5, torch.nan, 0.5, 0.5])
    monkeypatch.setattr(gains, "validation_error", lambda *_: torch.tensor(next(errors)).double())
    run(searcher, [some(6, 1)] * 2, [some(6, 2)], measured=always)
    assert searcher.gains.tolist() == [[0.0, -0.75, -0.25]] * 2
    # Without the plain image nothing can be compared.
    assert searcher.step(some(6, 1), [some(6, 2)], moment()).skipped is True
    assert len(searcher.gains) == 2


def test_an_entry_that_acts_now_and_then_is_tried_so(tmp_path: Path) -> None:
    Policy((SubPolicy((OpChoice("Invert", 0.25),)),)).save(tmp_path / "start.json")
    rows = searcher_of(table(start=str(tmp_path / "start.json"), levels=None), linear()).rows
    train = some(2000, 1)
    seen = rows.images(1, 1.0, train, torch.Generator().manual_seed(3))
    inverted = torch.isclose(seen, normalized(255 - train.images), atol=1e-5).flatten(1).all(1)
    kept = torch.isclose(seen, normalized(train.images), atol=1e-5).flatten(1).all(1)
    assert bool((inverted ^ kept).all())
    assert float(inverted.double().mean()) == pytest.approx(0.25, abs=0.03)


def test_rewards_of_trials_have_no_scale() -> None:
    with pytest.raises(InputError, match=r"searcher\.reward_scale is not a setting of .*Trials"):
        compose_study("search=policy", "searcher=trials", "searcher.reward_scale=rank")


@pytest.mark.parametrize(
    "changed", [{}, {"optimizer": "adamw"}, {"ema_decay": 0.9}, {"mixing": Mixing(0.2), "drop_rate": 0.3}]
)
def test_a_trial_leaves_no_trace_in_a_trainer(changed: dict[str, Any]) -> None:
    torch.manual_seed(0)
    recipe = Recipe(epochs=3, batch_size=8, precision="float32", learning_rate=0.01, warmup=Warmup(1), **changed)
    trainer = Trainer(create_network("tiny_cnn", 2, drop_rate=recipe.drop_rate), recipe, torch.device("cpu"), 2, 4)
    trainer.trained.train()
    batch = some(8, 1)

    def steps(first: int, last: int) -> None:
        for done in range(first, last):
            trainer.step(normalized(batch.images), batch.labels, done)

    steps(0, 3)
    state, rates = encode_state(trainer.state()), [group["lr"] for group in trainer.optimizer.param_groups]
    noise = (torch.random.get_rng_state(), random.getstate(), pickle.dumps(numpy.random.get_state()))  # noqa: NPY002
    with suppress(ZeroDivisionError), trainer.undone():
        steps(3, 7)
        assert encode_state(trainer.state()) != state
        raise ZeroDivisionError
    assert encode_state(trainer.state()) == state
    assert [group["lr"] for group in trainer.optimizer.param_groups] == rates
    assert torch.equal(torch.random.get_rng_state(), noise[0])
    assert (random.getstate(), pickle.dumps(numpy.random.get_state())) == noise[1:]  # noqa: NPY002


def test_the_validation_error_is_that_of_evaluation_and_leaves_training_mode_on() -> None:
    network = convolutional()
    network(normalized(some(32, 0).images))
    judges = [some(10, 1), some(3, 2)]
    pairs: list[tuple[Tensor, Tensor]] = [(normalized(one.images), one.labels) for one in judges]
    error = validation_error(network, pairs, cross_entropies)
    assert all(module.training for module in network.modules())
    assert float(error) == pytest.approx(judged(network.eval(), judges))
