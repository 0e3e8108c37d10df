"""The table of gains against hand arithmetic, and what the policy made of it keeps and drops."""

import copy
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from jointsearch.data.sets import Batch
from jointsearch.data.standard import ORDERS, Standard
from jointsearch.front_end import augment
from jointsearch.searchers.make import search_settings
from jointsearch.searchers.table import TableSearcher
from jointsearch.searchers.table_settings import TableSearch, TableSettings, TableSpace
from jointsearch.settings import build
from jointsearch.soft.policy import SoftPolicy
from jointsearch.through_step.double_backward import double_backward
from jointsearch.through_step.record import record_step
from search_spaces.augment.table import DADA_OPS
from search_spaces.controls import resolve_policy
from search_spaces.errors import InputError
from search_spaces.policy import OpChoice, Policy
from tests.conftest import REPOSITORY

AS_IS = Standard(mean=(0.5,), std=(0.25,))
MOVED = Standard(crop_padding=2, flip=True, cutout=3, mean=(0.5,), std=(0.25,))
PLANTED = ("HorizontalFlip", "Color", "TranslateY")


def settings(*ops: str, start: str = "trivialaugment", **searcher: Any) -> TableSearch:
    return TableSearch(TableSettings(**searcher), TableSpace(start, ops or None))


def batch_of(images: Tensor, labels: Tensor) -> Batch:
    return Batch(images, labels, torch.arange(len(labels)))


def some(count: int, seed: int) -> Batch:
    noise = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, 3, 8, 8), generator=noise).to(torch.uint8)
    return batch_of(images, torch.randint(2, (count,), generator=noise))


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2))


def convolutional() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Tanh(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(8 * 36, 2))
    return nn.Sequential(*layers)


def normalized(images: Tensor) -> Tensor:
    return (images / 255 - 0.5) / 0.25


@dataclass
class Descent:
    """A training step by hand that keeps what it was given."""

    network: nn.Module
    rate: float
    seen: list[Tensor] = field(default_factory=list)

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        self.seen.append(images)
        optimizer = torch.optim.SGD(self.network.parameters(), self.rate)
        optimizer.zero_grad()
        loss = cross_entropy(self.network(images), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    @contextmanager
    def undone(self) -> Iterator[None]:
        before = copy.deepcopy(self.network.state_dict())
        yield
        self.network.load_state_dict(before)


def searcher_of(
    search: TableSearch, network: nn.Module, rate: float = 0.1, standard: Standard = AS_IS, epochs: int = 1
) -> Any:
    noise = torch.Generator().manual_seed(1)
    return TableSearcher(search, network, Descent(network, rate), standard, noise, epochs)


def run(searcher: Any, batches: list[Batch], judges: list[Batch]) -> None:
    for batch in batches:
        searcher.step(batch, judges, 0.1, 0)


def of_table(searcher: Any, op: str) -> dict[str, Any]:
    (row,) = (row for row in searcher.found()["table"] if row["op"] == op)
    return row


def test_a_gain_is_what_training_on_an_image_takes_off_the_validation_loss() -> None:
    network, train, judges = linear(), some(6, 1), [some(10, 2), some(10, 3)]
    before = copy.deepcopy(network)
    searcher = searcher_of(settings("Invert", "HorizontalFlip", start="none"), network)
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
    searcher = searcher_of(settings("Rotate", "Cutout", levels=2, reward_scale=scale), network, standard=MOVED)
    with record_step(network) as record:
        searcher.train_step(normalized(train.images), train.labels)
    direction = {name: torch.randn_like(weight) for name, weight in network.named_parameters()}
    gains = searcher.gauge.of_images(record.frozen(), direction, train, 0.1, searcher.noise)  # (5, 6)
    images = [searcher.gauge.images(row, train, searcher.noise) for row in range(len(gains))]
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
    search = settings("Invert", "Solarize", "TranslateX", levels=1)
    searcher = searcher_of(search, convolutional(), standard=replace(MOVED, order=order))
    run(searcher, [some(16, 1)], [some(10, 2)])
    assert of_table(searcher, "Solarize")["gain"] == of_table(searcher, "Invert")["gain"]
    assert of_table(searcher, "TranslateX")["gain"] != of_table(searcher, "Invert")["gain"]


def test_the_weights_are_trained_on_the_starting_policy() -> None:
    searcher, train = searcher_of(settings("Rotate", "Invert"), linear(), standard=MOVED), some(16, 1)
    noise = torch.Generator().manual_seed(1)
    run(searcher, [train] * 3, [some(10, 2)])
    for seen in searcher.train_step.seen:
        assert torch.equal(seen, augment(train.images, searcher.start, MOVED, noise))


def restored(searcher: Any, *gains: list[float], images: tuple[float, ...] = (8, 8)) -> Any:
    rows = torch.tensor(gains, dtype=torch.float64)
    sizes = torch.tensor(images, dtype=torch.float64)
    state = searcher.state() | {"steps": 1, "gains": rows, "images": sizes}
    searcher.restore(state)
    return searcher


@pytest.mark.parametrize("trial_steps", [0, 2])
def test_the_control_trains_the_same_weights_and_deals_the_same_gains_to_other_entries(trial_steps: int) -> None:
    def after(rewards: str) -> Any:
        search = settings(*PLANTED, rewards=rewards, every=2, trial_steps=trial_steps)
        searcher = searcher_of(search, linear())
        run(searcher, [glyphs((3,), 16, seed) for seed in range(4)], [glyphs((0, 6), 16, 9)])
        return searcher

    real, control = after("real"), after("shuffled")
    for one, other in zip(real.gauge.network.parameters(), control.gauge.network.parameters(), strict=True):
        assert torch.equal(one, other)
    assert sorted(control.owner.tolist()) == list(range(len(real.rows)))
    assert torch.equal(control.gains[:, 0], real.gains[:, 0])  # with which the others are compared
    assert torch.equal(control.gains, real.gains[:, control.owner])
    assert not torch.equal(control.gains, real.gains)


def test_means_and_standard_errors_by_hand() -> None:
    # Two measurements, of 4 and of 2 images; beyond the identity Invert gains +1 and -2.
    searcher = restored(searcher_of(settings("Invert"), linear()), [1, 2], [4, 2], images=(4, 2))
    row = of_table(searcher, "Invert")
    assert row["gain"] == pytest.approx(2.0)
    assert of_table(searcher, "identity")["gain"] == pytest.approx((4 * 1 + 2 * 4) / 6)
    assert row["beyond_identity"] == pytest.approx((4 * 1 + 2 * -2) / 6)
    # sqrt(n / (n - 1) * sum (images * (difference - mean))^2) / sum images = sqrt(2 * (4^2 + 4^2)) / 6
    assert row["standard_error"] == pytest.approx(8 / 6)


def test_measurements_of_equal_size_have_the_standard_error_of_a_mean() -> None:
    searcher = searcher_of(settings("Invert", every=2, validation_batches=1), linear())
    run(searcher, [some(8, seed) for seed in range(7)], [some(10, 20)])
    paired = (searcher.gains[:, 1] - searcher.gains[:, 0]).tolist()
    assert len(paired) == 4  # of steps 1, 3, 5, 7
    row = of_table(searcher, "Invert")
    assert row["beyond_identity"] == pytest.approx(statistics.fmean(paired))
    assert row["standard_error"] == pytest.approx(statistics.stdev(paired) / 4**0.5)
    assert searcher.found()["images_measured"] == 32


def test_one_measurement_alone_is_no_evidence() -> None:
    searcher = searcher_of(settings("Invert", "HorizontalFlip"), linear())
    run(searcher, [some(8, 1)], [some(10, 2)])
    assert [row["standard_error"] for row in searcher.found()["table"]] == [None] * 3
    assert searcher.found()["sub_policy_shares"] == pytest.approx([1 / 3] * 3)


def test_a_gain_that_is_no_number_is_left_out() -> None:
    searcher = searcher_of(settings("Invert", validation_batches=1), linear())
    bad = replace(some(4, 2), images=torch.full((4, 3, 8, 8), torch.nan))
    assert bool(searcher.step(some(8, 1), [bad], 0.1, 0)["skipped"])
    assert "skipped" not in searcher.step(some(8, 1), [bad], 0.1, 0)  # not measured
    assert len(searcher.gains) == 0
    assert searcher.found()["sub_policy_shares"] == [0.5, 0.5]


def glyphs(rows: tuple[int, ...], count: int, seed: int) -> Batch:
    """A bright square in one of these rows on a dark ground; its column, left or right, is the class."""
    noise = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    images = torch.full((count, 3, 8, 8), 60) + torch.randint(20, (count, 1, 8, 8), generator=noise)
    for image, label in zip(images, labels.tolist(), strict=True):
        row = rows[int(torch.randint(len(rows), (), generator=noise))]
        image[:, row : row + 2, 5 * label : 5 * label + 3] += 120
    return batch_of(images.to(torch.uint8), labels)


@pytest.fixture(scope="module")
def planted() -> Any:
    """Training has the square in the middle, validation above and below too: TranslateY helps, a flip destroys."""
    search = settings(*PLANTED, levels=2, every=4, validation_batches=2)
    searcher = searcher_of(search, linear(), rate=0.005)
    judges = [glyphs((0, 3, 6), 64, seed) for seed in (100, 101)]
    run(searcher, [glyphs((3,), 32, seed) for seed in range(60)], judges)
    return searcher


def test_the_op_that_helps_comes_first_and_the_one_that_destroys_last(planted: Any) -> None:
    table = planted.found()["table"]
    assert (table[0]["op"], table[-1]["op"]) == ("TranslateY", "HorizontalFlip")
    metrics = planted.metrics()
    assert (metrics["entries_above_identity"], metrics["entries_below_identity"]) == (1, 1)  # Color leaves gray gray


@pytest.mark.parametrize("form", ["significant", "proportional"])
def test_both_forms_drop_the_op_that_destroys_and_keep_the_one_that_helps(form: str, planted: Any) -> None:
    searcher = searcher_of(settings(*PLANTED, form=form, levels=2), linear())
    searcher.restore(planted.state())
    shares = {row["op"]: row["share"] for row in searcher.found()["table"]}
    assert shares["TranslateY"] > shares["HorizontalFlip"] == 0
    assert "HorizontalFlip" not in {op.op for sub_policy in searcher.policy().sub_policies for op in sub_policy.ops}


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
        searcher = searcher_of(settings("Invert", "Rotate", levels=1, every=1, validation_batches=1), network, rate=0.0)
        train = replace(alike(16, 7), labels=torch.zeros(16, dtype=torch.long))
        for step in range(10):
            run(searcher, [train], [alike(16, 100 + 10 * seed + step)])
        metrics = searcher.metrics()
        significant += metrics["entries_above_identity"] + metrics["entries_below_identity"]
    assert significant <= 4  # 5% of 32 are expected


def test_entries_are_ops_at_even_levels_and_each_op_is_as_likely_as_the_identity() -> None:
    entries = settings("Rotate", "Invert", levels=2).entries().sub_policies
    assert [entry.ops for entry in entries] == [
        (),
        (OpChoice("Rotate", 1.0, 0.5),),
        (OpChoice("Rotate", 1.0, 1.0),),
        (OpChoice("Invert"),),
    ]
    assert [entry.weight for entry in entries] == [1.0, 0.5, 0.5, 1.0]


def weights(policy: Policy) -> dict[tuple[str, ...], float]:
    return {tuple(op.op for op in one.ops): one.weight for one in policy.sub_policies}


def test_the_forms_by_hand() -> None:
    # Beyond the identity: Rotate 2 +- 1, Invert -2.5 +- .5, Solarize -5.2 +- .2. Student's t of two asks for 12.7 +-.
    gains = ([1.0, 2.0, -2.0, -4.0], [1.0, 4.0, -1.0, -4.4])
    search = settings("Rotate", "Invert", "Solarize", levels=1)
    kept = restored(searcher_of(search, linear()), *gains)
    assert weights(kept.policy()) == pytest.approx({(): 1 / 3, ("Rotate",): 1 / 3, ("Invert",): 1 / 3})
    search = replace(search, searcher=replace(search.searcher, form="proportional"))
    proportional = restored(searcher_of(search, linear()), *gains)
    assert weights(proportional.policy()) == pytest.approx({(): 1 / 4, ("Rotate",): 3 / 4})
    metrics = proportional.metrics()
    assert (metrics["entries_above_identity"], metrics["entries_below_identity"]) == (0, 1)
    assert metrics["effective_sub_policies"] == pytest.approx(4 / 3**0.75)
    assert (metrics["share/Rotate"], metrics["idle_share"]) == pytest.approx((3 / 4, 1 / 4))


def test_what_leaves_images_as_they_are_is_counted_as_for_every_other_search() -> None:
    searcher = searcher_of(settings(levels=None), linear())  # TrivialAugment, of which nothing is dropped
    idle = searcher.metrics()["idle_share"]
    assert idle == pytest.approx(float(SoftPolicy(resolve_policy("trivialaugment")).idle_share()))
    assert idle > 0.1  # the plain image has 1 / 14, and levels next to nothing the rest


@pytest.mark.parametrize("form", ["significant", "proportional"])
def test_a_table_that_shows_nothing_leaves_all_ops_alike(form: str) -> None:
    searcher = searcher_of(settings("Rotate", "Invert", levels=1, form=form), linear())
    assert weights(searcher.policy()) == pytest.approx({(): 1 / 3, ("Rotate",): 1 / 3, ("Invert",): 1 / 3})


def test_two_stages_are_independent_draws_and_the_identity_may_stand_anywhere() -> None:
    search = settings("Rotate", "Invert", levels=1, form="proportional", stages=2)
    searcher = restored(searcher_of(search, linear()), [1.0, 3.0, -1.0], images=(8,))
    assert weights(searcher.policy()) == pytest.approx({(): 1 / 16, ("Rotate",): 6 / 16, ("Rotate", "Rotate"): 9 / 16})


def test_the_largest_policy_can_be_read_back_and_a_larger_one_is_refused(tmp_path: Path) -> None:
    searcher = searcher_of(settings(*DADA_OPS, levels=4, stages=2), linear())  # 1 + 12 * 4 + 3 = 52 entries
    policy = searcher.policy()
    assert len(policy.sub_policies) == 1 + 51 + 51**2
    policy.save(tmp_path / "found.json")
    assert Policy.load(tmp_path / "found.json") == policy
    with pytest.raises(InputError, match=r"searcher\.levels=6 makes 76 entries.*lower"):
        settings(*DADA_OPS, levels=6, stages=2)


def test_the_ops_are_those_of_the_start_where_none_are_named() -> None:
    used = [entry.ops[0].op for entry in settings(start="pairs", levels=1).entries().sub_policies if entry.ops]
    assert used == list(DADA_OPS)
    with pytest.raises(InputError, match=r"policy_space\.start=none names no op to measure"):
        settings(start="none")


def test_the_shipped_settings_are_the_defaults() -> None:
    data: Any = OmegaConf.to_container(OmegaConf.load(REPOSITORY / "configs" / "searcher" / "table.yaml"))
    del data["defaults"]
    assert build(TableSettings, data) == TableSettings()
    assert isinstance(search_settings({"searcher": data}), TableSearch)
