"""TANDA's generators follow the exact gradient, its rewards are differences of losses, and it does as it says."""

import itertools
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jointsearch.compose import compose_study
from jointsearch.data.sets import Batch
from jointsearch.data.standard import ORDERS, Standard
from jointsearch.front_end import augment_with
from jointsearch.networks.create import create_network
from jointsearch.search_kinds import PolicyOnly
from jointsearch.searchers import tanda as module
from jointsearch.searchers.sequences import (
    DRAWN,
    MeanField,
    SequenceModel,
    functions_of,
    future,
    policy_loss,
)
from jointsearch.searchers.tanda import DISCOUNT, FLOOR, Tanda, TandaSearcher
from search_spaces.augment.apply import OF_STAGES, apply_draw, draw_policy
from search_spaces.errors import InputError
from search_spaces.policy import OpChoice, Policy, SubPolicy
from tests.search_bench import moment
from tests.test_searcher_contract import check_contract, stage_of

STANDARD = Standard(crop_padding=1, mean=(0.3,), std=(0.38,))
GENERATORS = {"mean_field": MeanField, "lstm": SequenceModel}
OPS = ("Invert", "Brightness", "TranslateX", "SamplePairing")  # 7 functions at two magnitudes


def a_batch(seed: int = 3, size: int = 12) -> Batch:
    noise = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (size, 1, 8, 8), generator=noise, dtype=torch.uint8)
    return Batch(images, torch.zeros(size, dtype=torch.long), torch.arange(size))


def new_searcher(seed: int = 0, standard: Standard = STANDARD, **settings: Any) -> TandaSearcher:
    torch.manual_seed(seed)
    network = create_network("tiny_cnn", 10, 1, 8)
    noise = torch.Generator().manual_seed(seed)
    return TandaSearcher(Tanda(**{"ops": OPS, "length": 3} | settings), network, standard, noise, seed)


def a_generator(kind: str, functions: int, length: int) -> nn.Module:
    """One that has learned something, in double precision."""
    noise = torch.Generator().manual_seed(1)
    made = GENERATORS[kind](functions, length, noise).double()
    with torch.no_grad():
        for one in made.parameters():
            one.add_(torch.randn(one.shape, generator=noise, dtype=torch.float64) * 0.4)
    return made


class Table:
    """All sequences of a small space, and a known reward for every step of each, which depends on what came before."""

    def __init__(self, functions: int, length: int) -> None:
        self.sequences = torch.tensor(list(itertools.product(range(functions), repeat=length)))  # (S, L)
        noise = torch.Generator().manual_seed(2)
        beginnings = [tuple(row[: step + 1]) for row in self.sequences.tolist() for step in range(length)]
        known = {one: float(torch.randn((), generator=noise, dtype=torch.float64)) for one in dict.fromkeys(beginnings)}
        self.rewards = torch.tensor([known[one] for one in beginnings], dtype=torch.float64).view(-1, length)  # (S, L)

    def chances(self, generator: nn.Module) -> Tensor:
        """Of every function of every sequence, its probability after those before it: (S, L)."""
        _, spreads = generator(self.sequences, len(self.sequences))
        return spreads.exp().gather(2, self.sequences.unsqueeze(2)).squeeze(2)


@pytest.mark.parametrize("discount", [1.0, 0.5, 0.0])
@pytest.mark.parametrize(("functions", "length"), [(3, 2), (2, 3)])
@pytest.mark.parametrize("kind", GENERATORS)
def test_the_expected_gradient_of_all_pairs_of_sequences_is_that_of_the_exact_expectation(
    kind: str, functions: int, length: int, discount: float
) -> None:
    table, generator = Table(functions, length), a_generator(kind, functions, length)
    learned = list(generator.parameters())
    whole = table.chances(generator).detach().prod(1)  # (S,)
    assert float(whole.sum()) == pytest.approx(1)
    assert float(whole.max()) > 1.5 * float(whole.min())
    expected = torch.zeros((), dtype=torch.float64)
    for pair in itertools.product(range(len(whole)), repeat=2):
        drawn = table.sequences[list(pair)]
        _, spreads = generator(drawn, 2)
        logs = spreads.gather(2, drawn.unsqueeze(2)).squeeze(2)
        expected = expected - whole[list(pair)].prod() * policy_loss(logs, table.rewards[list(pair)], discount)
    found = torch.autograd.grad(expected, learned)
    # The exact expectation: with discount 1 that of the summed rewards; else each step's choice, with the others as
    # they are, raises what follows from it. No logarithm and no baseline.
    chances = table.chances(generator)
    exact = torch.zeros((), dtype=torch.float64)
    if discount == 1.0:
        exact = (chances.prod(1) * table.rewards.sum(1)).sum()
    else:
        for step in range(length):
            others = chances.detach().clone()
            others[:, step] = 1.0
            follows = sum(discount ** (later - step) * table.rewards[:, later] for later in range(step, length))
            exact = exact + (others.prod(1) * chances[:, step] * follows).sum()
    wanted = torch.autograd.grad(exact, learned)
    assert max(float(one.abs().max()) for one in wanted) > 0.01
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-8)


def test_what_follows_from_a_step_is_discounted_by_its_distance() -> None:
    rewards = torch.tensor([[1.0, 2.0, 4.0]])
    assert future(rewards, 0.5).tolist() == [[1 + 1 + 1, 2 + 2, 4]]
    assert future(rewards, 1.0).tolist() == [[7, 6, 4]]
    assert future(rewards, 0.0).tolist() == rewards.tolist()


@pytest.mark.parametrize("kind", GENERATORS)
def test_sequences_are_drawn_as_often_as_their_probability_says(kind: str) -> None:
    table, generator, count = Table(3, 2), a_generator(kind, 3, 2), 40_000
    drawn, _ = generator(None, count, torch.Generator().manual_seed(5))
    tallies = Counter(map(tuple, drawn.tolist()))
    for row, chance in zip(table.sequences.tolist(), table.chances(generator).prod(1).tolist(), strict=True):
        assert tallies[tuple(row)] / count == pytest.approx(chance, abs=5 * math.sqrt(chance * (1 - chance) / count))


def test_only_the_lstm_lets_a_function_depend_on_those_before_it_and_on_all_of_them() -> None:
    for kind, depends in (("mean_field", False), ("lstm", True)):
        for place in range(3):
            other = [2 if place == one else 0 for one in range(4)]
            _, spreads = a_generator(kind, 3, 4)(torch.tensor([[0, 0, 0, 0], other]), 2)
            changed = [not torch.allclose(*spreads[:, one]) for one in range(4)]
            assert changed == [depends and one > place for one in range(4)]


@pytest.mark.parametrize("kind", GENERATORS)
def test_a_generator_begins_uniform_and_stays_so_at_learning_rate_0(kind: str) -> None:
    for settings, uniform in (({}, False), ({"learning_rate": 0.0}, True)):
        searcher = new_searcher(generator=kind, **settings)
        before = searcher.found().facts
        assert before["effective_functions"] == pytest.approx(7)
        assert before["share/Brightness"] == pytest.approx(2 / 7)
        for _ in range(2):
            searcher.step(a_batch(), [a_batch(4)], moment())
        assert (searcher.found().facts["effective_functions"] == before["effective_functions"]) == uniform


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("distance", ["features", "pixels"])
def test_a_reward_is_what_a_step_takes_off_the_loss_and_the_nearness_of_its_image(distance: str, order: str) -> None:
    standard = Standard(crop_padding=1, flip=True, cutout=3, mean=(0.3,), std=(0.38,), order=order)
    searcher = new_searcher(standard=standard, distance=distance, diversity_weight=0.3)
    for _ in range(3):  # so that scores differ
        searcher.train_discriminator(a_batch())
    images, sequences = a_batch(4).images, searcher.sequences(12)
    began = searcher.noise.get_state()
    rewards = searcher.rewards(images, sequences)
    ended = searcher.noise.get_state()
    searcher.noise.set_state(began)
    draw = searcher.drawn(sequences)
    standing = searcher.noise.get_state()
    network = searcher.discriminator.network.eval()
    losses, original = [], None
    for steps in range(4):  # every beginning of a sequence at once, on the same crops
        part = replace(draw, **{name: getattr(draw, name)[:, :steps] for name in OF_STAGES})
        searcher.noise.set_state(standing)
        seen = augment_with(
            lambda pixels, part=part, steps=steps: apply_draw(pixels, part) if steps else pixels,
            images,
            standard,
            searcher.noise,
        )
        with torch.no_grad():
            features = network.forward_features(seen).mean((2, 3))
            real = (features @ searcher.discriminator.head.weight.T + searcher.discriminator.head.bias).squeeze(1)
        points = (features if distance == "features" else seen).flatten(1)
        original = points if original is None else original
        near = 1 / (((points - original) ** 2).mean(1) + FLOOR)
        losses.append(-torch.log(1 / (1 + torch.exp(-real))) + 0.3 * near)
    for step in range(3):
        torch.testing.assert_close(rewards[:, step], losses[step] - losses[step + 1], atol=2e-4, rtol=1e-3)
    assert float(rewards.std(0).min()) > 0.01
    assert torch.equal(ended, searcher.noise.get_state())


def test_rewards_change_nothing_in_the_discriminator_and_none_depends_on_other_images() -> None:
    searcher = new_searcher(ops=OPS[:3], standard=Standard())
    searcher.train_discriminator(a_batch())
    before = [one.clone() for one in searcher.discriminator.state_dict().values()]
    images, sequences = a_batch(4).images, searcher.sequences(12)
    began = searcher.noise.get_state()
    rewards = searcher.rewards(images, sequences)
    assert searcher.discriminator.training
    assert all(map(torch.equal, before, searcher.discriminator.state_dict().values()))
    searcher.noise.set_state(began)
    others = torch.cat([images[:6], 255 - images[6:]])
    torch.testing.assert_close(searcher.rewards(others, sequences)[:6], rewards[:6], atol=1e-5, rtol=0)


def test_the_discriminator_learns_to_give_1_to_real_images_and_0_to_transformed_ones() -> None:
    searcher = new_searcher(ops=("Solarize",), magnitudes=(1.0,), length=1, standard=Standard())
    dark = replace(a_batch(), images=a_batch().images // 4)
    assert float(searcher.train_discriminator(dark)) == pytest.approx(math.log(2))
    for _ in range(60):
        loss = searcher.train_discriminator(dark)
    assert float(loss) < 0.2
    with torch.no_grad():
        real, _ = searcher.discriminator.eval()((dark.images / 255 - 0.5) / 0.25)
        changed, _ = searcher.discriminator(((255 - dark.images) / 255 - 0.5) / 0.25)
    assert float(real.sigmoid().min()) > 0.8
    assert float(changed.sigmoid().max()) < 0.2


@pytest.mark.parametrize("samples", [1, 3])
def test_a_step_costs_as_many_passes_as_it_says_and_reads_no_label(samples: int) -> None:
    searcher = new_searcher(samples=samples)
    passed: list[tuple[bool, int]] = []
    searcher.discriminator.register_forward_hook(
        lambda part, given, out: passed.append((out[0].requires_grad, len(given[0])))
    )
    unlabelled: Any = [replace(a_batch(seed), labels=None) for seed in (3, 4)]
    report = searcher.step(unlabelled[0], unlabelled[1:], moment())
    assert report.forward_equivalents == sum(count * (3 if learns else 1) for learns, count in passed) / 12
    assert report.loss.isfinite()
    assert report.skipped is False


def test_shuffled_rewards_are_the_same_ones_dealt_to_other_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Tensor] = []
    monkeypatch.setattr(module, "policy_loss", lambda logs, rewards, discount: told.append(rewards) or logs.sum())
    for shuffled in (False, True):
        searcher = new_searcher(shuffled=shuffled)
        searcher.train_discriminator(a_batch())
        searcher.train_generator(a_batch(4))
    rows = [Counter(map(tuple, one.tolist())) for one in told]
    assert rows[0] == rows[1]
    assert not torch.equal(*told)


def test_a_mean_field_gives_its_functions_with_their_probabilities_drawn_as_often_as_a_sequence_is_long() -> None:
    functions = functions_of(("Invert", "Rotate"), (0.25, 0.5))
    assert functions == (OpChoice("Invert"), OpChoice("Rotate", 1.0, 0.25), OpChoice("Rotate", 1.0, 0.5))
    generator = MeanField(3, 4, torch.Generator())
    generator.logits.data = torch.tensor([1.0, 3.0, 6.0]).log()
    policy = generator.policy(functions, 0)
    assert policy == Policy(
        tuple(SubPolicy((one,), share) for one, share in zip(functions, (0.1, 0.3, 0.6), strict=True)), draws=4
    )
    # An image meets the functions that the generator would have drawn for it, place by place.
    drawn = draw_policy(policy, 20_000, torch.Generator().manual_seed(0)).sub_policy
    assert drawn.shape == (20_000, 4)
    for place in range(4):
        assert torch.bincount(drawn[:, place]).div(20_000).tolist() == pytest.approx([0.1, 0.3, 0.6], abs=0.02)


def test_an_lstm_gives_a_hundred_sequences_which_its_seed_alone_decides() -> None:
    searcher = new_searcher(generator="lstm", learning_rate=0.05)
    searcher.step(a_batch(), [a_batch(4)], moment())
    began = searcher.noise.get_state()
    policy = searcher.found().policy
    assert isinstance(policy, Policy)
    assert torch.equal(searcher.noise.get_state(), began)
    assert policy == searcher.found().policy
    assert {len(row.ops) for row in policy.sub_policies} == {3}
    assert sum(row.weight for row in policy.sub_policies) == DRAWN
    assert max(row.weight for row in policy.sub_policies) > 1  # of 343 sequences, some came twice
    searcher.seed = 1
    assert policy != searcher.found().policy
    assert Policy.from_json(policy.to_json()) == policy


def test_an_lstm_keeps_the_contract_too() -> None:
    check_contract(stage_of("search=policy", "network=tiny_cnn", "searcher=tanda", "searcher.generator=lstm"))


def test_rewards_that_are_no_numbers_leave_the_generator_alone_and_count_as_skipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searcher = new_searcher()
    monkeypatch.setattr(searcher, "train_discriminator", lambda batch: torch.zeros(()))
    nn.init.constant_(searcher.discriminator.head.weight, math.nan)
    assert searcher.step(a_batch(), [a_batch(4)], moment()).skipped is True
    assert not searcher.generator.logits.any()


def test_a_discriminator_that_diverged_is_told_with_its_remedy() -> None:
    searcher = new_searcher()
    nn.init.constant_(searcher.discriminator.head.weight, math.nan)
    with pytest.raises(InputError, match=r"loss is nan: it diverged; lower searcher.discriminator_learning_rate"):
        searcher.train_discriminator(a_batch())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tanda(length=0), "length is 0; wanted a whole number from 1 to 16"),
        (lambda: Tanda(length=17), "length is 17; wanted a whole number from 1 to 16"),
        (lambda: Tanda(magnitudes=(0.0,)), r"magnitudes\[0\] is 0.0; wanted a number from 0.001 to 1"),
        (lambda: Tanda(magnitudes=()), "magnitudes is empty; name at least one"),
        (lambda: Tanda(magnitudes=(0.5, 0.5)), "one of them twice; name each once"),
        (lambda: Tanda(ops=("Rotat",)), "searcher.ops names the op 'Rotat'; did you mean Rotate"),
        (lambda: Tanda(ops=()), "searcher.ops names no op"),
        (lambda: Tanda(generator="gru"), "generator is 'gru'; wanted one of mean_field, lstm"),
        (
            lambda: compose_study("search=policy", "searcher=tanda", "search_recipe.learning_rate=0.3"),
            "search_recipe.learning_rate is not read by Tanda",
        ),
        (lambda: compose_study("search=policy", "searcher=tanda", "policy_space=pairs"), "policy_space"),
        (lambda: compose_study("search=joint", "searcher=tanda"), "searches no cells; use search=policy"),
    ],
)
def test_settings_that_make_no_sense_are_refused_with_a_remedy(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_the_preset_has_the_numbers_of_the_released_code() -> None:
    study = compose_study("preset=tanda2017", "dataset=cifar10")
    assert isinstance(study.search, PolicyOnly)
    assert study.search.searcher == Tanda(
        ops=("Rotate", "ShearX", "Contrast", "Brightness", "Color", "HorizontalFlip"), generator="lstm", samples=5
    )
    assert (Tanda().length, DISCOUNT, Tanda().diversity_weight) == (10, 0.5, 0.0025)
    assert study.search.search_recipe.batch_size == 32
