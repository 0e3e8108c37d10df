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

from jointsearch.data.sets import Batch
from jointsearch.loops.recipe import Recipe, Trainer
from jointsearch.networks.create import create_network
from jointsearch.plain_state import encode_state
from jointsearch.searchers import gains
from jointsearch.searchers.gains import validation_error
from search_spaces.errors import InputError
from search_spaces.policy import OpChoice, Policy, SubPolicy
from tests.test_table_searcher import (
    MOVED,
    PLANTED,
    Descent,
    convolutional,
    glyphs,
    linear,
    normalized,
    of_table,
    run,
    searcher_of,
    settings,
    some,
)


def trained_by_hand(network: nn.Module, batches: list[Batch], changed: Any) -> nn.Module:
    network = copy.deepcopy(network)
    descent = Descent(network, 0.1)
    for batch in batches:
        descent(normalized(changed(batch.images)), batch.labels)
    return network


@torch.no_grad()
def judged(network: nn.Module, judges: list[Batch]) -> float:
    outputs = torch.cat([network(normalized(one.images)) for one in judges])
    labels = torch.cat([one.labels for one in judges])
    return 1 - float(outputs.double().softmax(1)[torch.arange(len(labels)), labels].mean())


def test_the_gain_is_the_validation_error_that_training_on_with_the_op_takes_off() -> None:
    search = settings("Invert", "HorizontalFlip", start="none", trial_steps=3, every=3)
    network, batches, judges = linear(), [some(6, seed) for seed in range(6)], [some(10, 12), some(6, 13)]
    searcher = searcher_of(search, network)
    searcher.gauge.share = 1.0
    run(searcher, batches[:3], judges)  # the first step is measured too
    before = copy.deepcopy(network)
    run(searcher, batches[3:4], judges)
    # Training went on by one step, on plain images; the trials went on from there, over batches 1, 2 and 3.
    after = trained_by_hand(before, batches[3:4], lambda images: images)
    assert all(torch.equal(*pair) for pair in zip(after.parameters(), network.parameters(), strict=True))
    plain = judged(trained_by_hand(after, batches[1:4], lambda images: images), judges)
    for op, changed in (("Invert", lambda images: 255 - images), ("HorizontalFlip", lambda images: images.flip(-1))):
        with_op = judged(trained_by_hand(after, batches[1:4], changed), judges)
        place = [row["op"] for row in settings_rows(searcher)].index(op)
        assert float(searcher.gains[-1, place]) == pytest.approx(plain - with_op, rel=1e-4)
    assert searcher.gains[:, 0].tolist() == [0.0, 0.0]


def settings_rows(searcher: Any) -> list[dict[str, Any]]:
    """The rows in the order of the columns of `gains`."""
    entries = searcher.entries.sub_policies
    return [{"op": entries[int(row[0])].ops[0].op if entries[int(row[0])].ops else "identity"} for row in searcher.rows]


def test_fewer_batches_than_steps_are_gone_through_again() -> None:
    searcher, batches = searcher_of(settings("Invert", start="none", trial_steps=5), linear()), [some(6, 1)]
    run(searcher, batches, [some(10, 2)])
    assert len(searcher.train_step.seen) == 1 + 2 * 5


def test_a_row_is_an_op_at_all_its_levels_alike() -> None:
    searcher = searcher_of(settings("Color", "Invert", levels=3, trial_steps=2), linear())
    assert [row.tolist() for row in searcher.rows] == [[0], [1, 2, 3], [4]]
    counts = torch.zeros(5)
    train, noise = some(3000, 1), torch.Generator().manual_seed(3)
    table = searcher.gauge.table
    levels = [table.images(row, 1.0, train, noise.clone_state()) for row in range(3)]
    single = searcher_of(settings("Color", "Invert", levels=3), linear()).gauge.table
    for entry in range(5):
        alone = single.images(entry, 1.0, train, noise.clone_state())
        counts[entry] = float((alone == levels[(0, 1, 1, 1, 2)[entry]]).flatten(1).all(1).double().mean())
    assert counts[0] == counts[4] == 1
    assert counts[1:4].tolist() == pytest.approx([1 / 3] * 3, abs=0.03)
    assert of_table(searcher, "Color")["magnitude"] is None


def test_entries_of_a_row_are_drawn_by_their_weights(tmp_path: Path) -> None:
    weak, strong = (SubPolicy((OpChoice("Brightness", 1.0, magnitude),), magnitude) for magnitude in (0.25, 0.75))
    Policy((weak, SubPolicy((OpChoice("Invert"),)), strong)).save(tmp_path / "start.json")
    searcher = searcher_of(settings(start=str(tmp_path / "start.json"), levels=None, trial_steps=2), linear())
    assert [row.tolist() for row in searcher.rows] == [[0], [1, 3], [2]]
    train = some(2000, 1)
    seen = searcher.gauge.table.images(1, 1.0, train, torch.Generator().manual_seed(3))
    single = searcher_of(settings(start=str(tmp_path / "start.json"), levels=None), linear()).gauge.table
    alone = single.images(3, 1.0, train, torch.Generator().manual_seed(3))
    assert float((seen == alone).flatten(1).all(1).double().mean()) == pytest.approx(0.75, abs=0.03)
    assert torch.equal(
        searcher.gauge.table.images(0, 1.0, train, torch.Generator().manual_seed(3)), normalized(train.images)
    )


@pytest.mark.parametrize("share", [0.5, 0.25, 1.0])
def test_half_of_the_images_or_any_share_is_under_the_op_and_the_others_are_under_the_start(share: float) -> None:
    searcher, train = searcher_of(settings("Invert", start="none", trial_steps=1), linear()), some(2000, 1)
    if share != 0.5:
        searcher.gauge.share = share
    run(searcher, [train], [some(10, 2)])
    as_is, plain, inverted = searcher.train_step.seen
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
    search = settings("Invert", "Solarize", "TranslateX", levels=1, trial_steps=2)
    searcher = searcher_of(search, convolutional(), standard=MOVED)
    run(searcher, [some(16, 1)], [some(10, 2)])
    seen = searcher.train_step.seen
    assert len(seen) == 1 + 4 * 2
    for step in (3, 4):
        torch.testing.assert_close(seen[step], seen[step + 2], rtol=0, atol=1e-6)
    assert not torch.equal(seen[3], seen[4])


def test_the_op_that_helps_comes_first_and_the_one_that_destroys_is_dropped() -> None:
    search = settings(*PLANTED, levels=2, every=10, validation_batches=2, trial_steps=10)
    searcher = searcher_of(search, linear(), rate=0.005)
    judges = [glyphs((0, 3, 6), 64, seed) for seed in (100, 101)]
    run(searcher, [glyphs((3,), 32, seed) for seed in range(60)], judges)
    table = searcher.found()["table"]
    assert (table[0]["op"], table[-1]["op"]) == ("TranslateY", "HorizontalFlip")
    shares = {row["op"]: row["share"] for row in table}
    assert shares == pytest.approx({"TranslateY": 1 / 3, "Color": 1 / 3, "identity": 1 / 3, "HorizontalFlip": 0.0})


def test_shares_of_the_forms_by_hand() -> None:
    search = settings("Color", "Invert", levels=2, trial_steps=2, form="proportional")
    searcher = searcher_of(search, linear())
    table = torch.tensor([[0.0, 0.3, 0.1], [0.0, 0.5, -0.5]], dtype=torch.float64)
    searcher.restore(searcher.state() | {"gains": table, "images": torch.ones(2, dtype=torch.float64)})
    assert searcher.found()["sub_policy_shares"] == pytest.approx([0.0, 0.5, 0.5, 0.0])


def test_measuring_begins_with_the_second_half_where_no_epoch_is_named() -> None:
    made = searcher_of(settings("Invert", from_epoch=None), linear(), epochs=9)
    assert [made.is_due(epoch) for epoch in (3, 4)] == [False, True]
    assert [made.forward_equivalents(epoch) for epoch in (3, 4)] == [3, 3 + round((3 * 4 + 2 * 2) / 20)]


@pytest.mark.parametrize(
    ("margin", "dropped"),
    # The interval of Invert, -.205 +- .064, may reach into the margin: its mean decides.
    [(0.0, {"Color", "Invert"}), (0.1, {"Invert"}), (0.2, {"Invert"}), (0.3, set())],
)
def test_what_differs_by_less_than_the_margin_is_no_reason(margin: float, dropped: set[str]) -> None:
    searcher = searcher_of(settings("Rotate", "Color", "Invert", trial_steps=2, margin=margin), linear())
    # Rotate loses as much as Color in the mean, and is anything but sure.
    table = torch.tensor([[0.0, -0.6, -0.05, -0.2], [0.0, 0.5, -0.051, -0.21]], dtype=torch.float64)
    searcher.restore(searcher.state() | {"gains": table, "images": torch.ones(2, dtype=torch.float64)})
    assert {row["op"] for row in searcher.found()["table"] if not row["share"]} == dropped
    assert searcher.metrics()["entries_below_identity"] == len(dropped)


def of_weights(policy: Policy) -> dict[tuple[OpChoice, ...], float]:
    """The share of each sequence of ops."""
    total = sum(one.weight for one in policy.sub_policies)
    shares: defaultdict[tuple[OpChoice, ...], float] = defaultdict(float)
    for one in policy.sub_policies:
        shares[one.ops] += one.weight / total
    return shares


def test_the_start_is_found_where_nothing_is_dropped_and_else_the_start_without_the_op() -> None:
    search = settings("Rotate", "Invert", levels=None, trial_steps=2)
    searcher, start = searcher_of(search, linear()), search.policy_space.policy()
    assert of_weights(searcher.policy()) == pytest.approx(of_weights(start))
    assert len(start.sub_policies) == 1 + 31 + 1
    table = torch.tensor([[0.0, 0.1, -0.2], [0.0, 0.1, -0.21]], dtype=torch.float64)  # of identity, Rotate, Invert
    searcher.restore(searcher.state() | {"gains": table, "images": torch.ones(2, dtype=torch.float64)})
    expected = of_weights(Policy(start.sub_policies[:-1]))
    assert of_weights(searcher.policy()) == pytest.approx(expected)
    assert sum(expected.values()) == pytest.approx(1)


def test_a_start_that_never_leaves_images_alone_does_so_after_no_search_either(tmp_path: Path) -> None:
    Policy((SubPolicy((OpChoice("Invert"),)), SubPolicy((OpChoice("Equalize"),), 0.0))).save(tmp_path / "start.json")
    searcher = searcher_of(settings(start=str(tmp_path / "start.json"), levels=None, trial_steps=2), linear())
    assert of_weights(searcher.policy()) == {(OpChoice("Invert"),): 1.0}
    run(searcher, [some(8, 1)], [some(10, 2)])
    assert [row["op"] for row in settings_rows(searcher)] == ["identity", "Invert"]


@pytest.mark.parametrize(("start", "held"), [("pairs", "a sub-policy of several ops"), ("none", "no op to measure")])
def test_a_start_that_is_no_table_is_refused_with_a_remedy(start: str, held: str) -> None:
    with pytest.raises(InputError, match=rf"start={start} has {held}.*levels=null.*use searcher\.levels=30 or pol"):
        settings(start=start, levels=None, trial_steps=2)
    with pytest.raises(InputError, match=r"searcher\.levels=null makes .* entries, and with searcher\.stages=2"):
        settings(levels=None, stages=2)


@pytest.mark.parametrize(
    ("epochs", "due"), [(20, [10, 11, 12, 14, 15, 17, 18]), (60, [30, 34, 38, 42, 47, 51, 55]), (14, [*range(7, 14)])]
)
def test_measurements_are_spread_over_the_epochs_that_are_left(epochs: int, due: list[int]) -> None:
    search = settings("Invert", from_epoch=None, every=None, measurements=7, trial_steps=2)
    made = searcher_of(search, linear(), epochs=epochs)
    measured = [epoch for epoch in range(epochs) for step in range(3) if made.is_due(epoch)]
    assert measured == due


def test_trials_say_what_they_are_known_to_do_wrong() -> None:
    assert "20 steps ahead" in str(settings("Invert", trial_steps=20).warning)
    assert settings("Invert").warning is None
    assert settings("Invert", trial_steps=20, rewards="shuffled").warning is None


def test_more_measurements_than_epochs_are_left_are_refused() -> None:
    search = settings("Invert", from_epoch=None, every=None, measurements=7)
    with pytest.raises(
        InputError, match=r"need 13: search_recipe\.epochs=13 \(.*\) with budget=1, or searcher\.measurements=6"
    ):
        searcher_of(search, linear(), epochs=12)
    searcher_of(search, linear(), epochs=13)
    late = settings("Invert", from_epoch=8, every=None, measurements=7)
    with pytest.raises(InputError, match=r"from epoch 8 on are measured; they need 15: search_recipe\.epochs=15 "):
        searcher_of(late, linear(), epochs=9)
    searcher_of(late, linear(), epochs=15)
    with pytest.raises(InputError, match=r"every=20 and searcher\.measurements=7; one of them"):
        settings("Invert", measurements=7)
    with pytest.raises(InputError, match=r"every=null and searcher\.measurements=null"):
        settings("Invert", every=None)


def test_an_op_that_makes_a_trial_diverge_has_lost_all_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    searcher = searcher_of(settings("Invert", "Rotate", trial_steps=1, every=1), linear())
    errors = iter([0.25, torch.nan, 0.5, 0.25, torch.nan, 0.5, torch.nan, 0.5, 0.5])
    monkeypatch.setattr(gains, "validation_error", lambda network, judges: torch.tensor(next(errors)).double())
    run(searcher, [some(6, 1)] * 2, [some(6, 2)])
    assert searcher.gains.tolist() == [[0.0, -0.75, -0.25]] * 2
    outcome = searcher.step(some(6, 1), [some(6, 2)], 0.1, 0)  # without the plain image nothing can be compared
    assert bool(outcome["skipped"])
    assert len(searcher.gains) == 2


def test_an_entry_that_acts_now_and_then_is_tried_so(tmp_path: Path) -> None:
    Policy((SubPolicy((OpChoice("Invert", 0.25),)),)).save(tmp_path / "start.json")
    table = searcher_of(settings(start=str(tmp_path / "start.json"), levels=None), linear()).gauge.table
    train = some(2000, 1)
    seen = table.images(1, 1.0, train, torch.Generator().manual_seed(3))
    inverted = torch.isclose(seen, normalized(255 - train.images), atol=1e-5).flatten(1).all(1)
    kept = torch.isclose(seen, normalized(train.images), atol=1e-5).flatten(1).all(1)
    assert bool((inverted ^ kept).all())
    assert float(inverted.double().mean()) == pytest.approx(0.25, abs=0.03)


def test_the_epoch_of_the_last_step_is_kept_in_a_checkpoint() -> None:
    search = settings("Invert", every=None, measurements=2, trial_steps=1)
    first, second = (searcher_of(search, linear(), epochs=2) for _ in range(2))
    assert [first.is_due(0), first.is_due(0)] == [True, False]
    second.restore(first.state())
    assert [second.is_due(0), second.is_due(1)] == [False, True]


def test_scaled_rewards_are_none_of_validation_errores() -> None:
    with pytest.raises(InputError, match=r"reward_scale=rank scales rewards.*searcher\.trial_steps=4 compares"):
        settings("Invert", trial_steps=4, reward_scale="rank")


@pytest.mark.parametrize("changed", [{}, {"optimizer": "adamw"}, {"ema_decay": 0.9}, {"mixup": 0.2, "drop_rate": 0.3}])
def test_a_trial_leaves_no_trace_in_a_trainer(changed: dict[str, Any]) -> None:
    torch.manual_seed(0)
    recipe = Recipe(epochs=3, batch_size=8, precision="float32", learning_rate=0.01, warmup_epochs=1, **changed)
    trainer = Trainer(create_network("tiny_cnn", 2, drop_rate=recipe.drop_rate), recipe, torch.device("cpu"), 2, 4)
    trainer.task.train()
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
    error = validation_error(network, pairs)
    assert all(module.training for module in network.modules())
    assert float(error) == pytest.approx(judged(network.eval(), judges))
