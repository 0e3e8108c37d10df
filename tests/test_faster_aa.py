"""Faster AutoAugment's critic measures a distance, its policy closes it, and the search runs, stops and goes on."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from jointsearch.commands.command import run
from jointsearch.compose import compose_study
from jointsearch.data.datasets import Digits
from jointsearch.data.load import load_search_splits
from jointsearch.data.sets import Batch
from jointsearch.data.standard import Standard
from jointsearch.loops.plan import Plan
from jointsearch.loops.recipe import Recipe, SearchRecipe
from jointsearch.loops.search import search
from jointsearch.networks.create import create_network
from jointsearch.protocols import PLAIN_STEP
from jointsearch.runs.plain_state import decode_state, encode_state
from jointsearch.search_kinds import PolicyOnly, policy_stage
from jointsearch.searchers.faster_aa import FasterAA, FasterSearcher, gradient_penalty
from jointsearch.searchers.spaces import Stages
from jointsearch.settings import as_plain
from search_spaces.augment.apply import apply_draw
from search_spaces.augment.op import AugOp, per_image
from search_spaces.augment.table import OPS
from search_spaces.errors import InputError
from search_spaces.policy import Policy
from tests.search_bench import moment

STANDARD = Standard(crop_padding=1, mean=(0.3,), std=(0.38,))


def a_batch(noise: torch.Generator, size: int = 16) -> Batch:
    images = torch.randint(256, (size, 1, 8, 8), generator=noise, dtype=torch.uint8)
    return Batch(images, torch.randint(10, (size,), generator=noise), torch.arange(size))


def new_faster(seed: int = 0, settings: FasterAA | None = None) -> FasterSearcher:
    torch.manual_seed(seed)
    network = create_network("tiny_cnn", 10, 1, 8)
    return FasterSearcher(settings or FasterAA(), network, STANDARD, torch.Generator().manual_seed(seed))


def everything(searcher: FasterSearcher) -> list[Tensor]:
    tensors: list[Tensor] = []

    def collect(value: object) -> None:
        if isinstance(value, Tensor):
            tensors.append(value.clone())
        elif isinstance(value, dict | list | tuple):
            for one in value.values() if isinstance(value, dict) else value:
                collect(one)

    collect([searcher.state(), searcher.critic.state_dict(), searcher.noise.get_state()])
    return tensors


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 8, 8)], ids=["a number", "an image"])
def test_the_penalty_of_a_linear_critic_is_its_length_minus_1_squared(shape: tuple[int, ...]) -> None:
    noise = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=noise, dtype=torch.float64).requires_grad_()
    real, changed = torch.randn(2, 5, *shape, generator=noise, dtype=torch.float64)
    share = torch.rand(5, generator=noise, dtype=torch.float64)
    penalty = gradient_penalty(lambda images: (images * weight).flatten(1).sum(1), real, changed, share)
    length = float(weight.detach().square().sum().sqrt())
    assert float(penalty.detach()) == pytest.approx((length - 1) ** 2)
    (slope,) = torch.autograd.grad(penalty, weight)
    torch.testing.assert_close(slope, 2 * (length - 1) / length * weight.detach())


def test_the_penalty_is_taken_between_the_images_where_their_share_says() -> None:
    # The slope of x^2 / 2 is x: with share s of the real 5 and the rest of the changed 1, it is 1 + 4 s.
    real, changed = torch.full((3, 1, 1, 1), 5.0), torch.ones(3, 1, 1, 1)
    share = torch.tensor([0.0, 0.5, 0.75])
    penalty = gradient_penalty(lambda images: images.flatten(1).square().sum(1) / 2, real, changed, share)
    assert float(penalty.detach()) == pytest.approx((0 + 4 + 9) / 3)


class Line(nn.Module):
    """A critic of single numbers, in the form of an image classifier."""

    head_hidden_size = 64

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(1, 64), nn.Tanh())
        self.classifier = nn.Linear(64, 2)

    def forward_features(self, images: Tensor) -> Tensor:
        return self.body(images)

    def forward_head(self, maps: Tensor, pre_logits: bool = False) -> Tensor:
        return maps if pre_logits else self.classifier(maps)


@pytest.mark.slow
@pytest.mark.parametrize("start", [0.2, 0.8], ids=["from below", "from above"])
def test_a_policy_that_shifts_normal_numbers_finds_the_true_shift(start: float, monkeypatch) -> None:
    """N(0, 1) is shifted by 4 * magnitude; the real numbers are N(2, 1). Measured over 8 runs: 1.96 to 2.01."""
    monkeypatch.setitem(OPS, "Shift", AugOp("Shift", lambda images, amount: images + per_image(amount), 0.0, 4.0))
    torch.manual_seed(0)
    noise = torch.Generator().manual_seed(0)
    settings = FasterAA(
        learning_rate=3e-3,
        critic_learning_rate=1e-2,
        policy_space=Stages(("Shift",), 1, 1),
        penalty_weight=1.0,
        classification_weight=0.0,
        chunk=1,
    )
    searcher = FasterSearcher(settings, Line(), Standard(mean=(0.0,), std=(1.0,)), noise)
    with torch.no_grad():
        searcher.stages.probability_logits.fill_(5.0)  # always
        searcher.stages.magnitude_logits.fill_(math.log(start / (1 - start)) / 4)

    def numbers(mean: float) -> Batch:
        drawn = torch.randn(128, 1, 1, 1, generator=noise) + mean
        return Batch(drawn, torch.zeros(128, dtype=torch.long), torch.arange(128))

    shifts = []
    for _ in range(150):
        for _ in range(3):  # the theory wants a critic that has learned before the policy moves
            searcher.train_critic(numbers(2.0), numbers(0.0))
        searcher.step(numbers(2.0), [numbers(0.0)], moment())
        shifts.append(4 * float(searcher.stages.magnitudes().detach()))
    assert abs(shifts[0] - 2) > 1
    # The two go on circling around the truth with a standard deviation of .23.
    assert sum(shifts[75:]) / 75 == pytest.approx(2.0, abs=0.15)


def test_the_policy_follows_the_gradient_of_its_published_objective() -> None:
    searcher = new_faster()
    noise = torch.Generator().manual_seed(3)
    train, others = a_batch(noise), a_batch(noise)
    searcher.train_critic(train, others)
    searcher.critic_optimizer.zero_grad()
    began = searcher.noise.get_state()
    critic = [one.clone() for one in searcher.critic.state_dict().values()]
    before = [one.detach().clone() for one in searcher.stages.parameters()]
    assert searcher.train_policy(others)
    moved = [one.detach() - old for one, old in zip(searcher.stages.parameters(), before, strict=True)]
    assert all(map(torch.equal, searcher.critic.state_dict().values(), critic))
    assert all(one.grad is None for one in searcher.critic.parameters())
    with torch.no_grad():
        for one, old in zip(searcher.stages.parameters(), before, strict=True):
            one.copy_(old)
    searcher.noise.set_state(began)
    logits, scores = searcher.scored(searcher.augmented(others))
    objective = 0.1 * nn.functional.cross_entropy(logits, others.labels) - scores.mean()
    slopes = torch.autograd.grad(objective, list(searcher.stages.parameters()))
    for move, slope in zip(moved, slopes, strict=True):
        # The first step of Adam is the learning rate against the sign of the gradient.
        clear = slope.abs() > 1e-5
        assert clear.any()
        torch.testing.assert_close(move[clear], -1e-3 * slope.sign()[clear], atol=2e-6, rtol=0)


def test_the_critic_learns_all_its_terms_and_leaves_the_policy_alone() -> None:
    searcher = new_faster()
    noise = torch.Generator().manual_seed(3)
    before = [one.detach().clone() for one in searcher.stages.parameters()]
    loss = searcher.train_critic(a_batch(noise), a_batch(noise))
    assert float(loss) == pytest.approx(math.log(10), abs=0.5)
    assert all(map(torch.equal, searcher.stages.parameters(), before))
    assert all(one.grad is None for one in searcher.stages.parameters())
    gradients = {name: one.grad for name, one in searcher.critic.named_parameters()}
    assert all(
        gradient is not None and gradient.any() for name, gradient in gradients.items() if "head.2.bias" not in name
    )
    # A score's offset cancels between real and augmented images.
    assert float(gradients["head.2.bias"].abs()) < 1e-6


def test_running_statistics_are_those_of_real_images_only() -> None:
    searcher = new_faster()
    noise = torch.Generator().manual_seed(3)
    searcher.step(a_batch(noise), [a_batch(noise)], moment())
    assert int(searcher.critic.network.stage1[1].num_batches_tracked) == 1


@pytest.mark.parametrize("mixing", ["weighted", "sampled"])
def test_a_step_learns_from_a_short_last_batch_and_tells_what_the_loop_wants(mixing: str) -> None:
    searcher = new_faster(settings=FasterAA(mixing=mixing))
    noise = torch.Generator().manual_seed(3)
    report = searcher.step(a_batch(noise, 5), [a_batch(noise, 16)], moment())
    assert report.skipped is False
    assert report.loss.isfinite()
    assert report.forward_equivalents == 14 > PLAIN_STEP
    found = searcher.found()
    assert {"critic_distance", "idle_share", "share/Rotate"} <= set(found.facts)
    assert isinstance(found.policy, Policy)
    assert len(found.policy.sub_policies) == 10


def test_sampled_mixing_shows_the_critic_what_a_finished_policy_would() -> None:
    searcher = FasterSearcher(
        FasterAA(mixing="sampled", chunk=4), Line(), Standard(mean=(0.0,), std=(1.0,)), torch.Generator().manual_seed(0)
    )
    batch = a_batch(torch.Generator().manual_seed(3))
    began = searcher.noise.get_state()
    shown = searcher.augmented(batch)
    searcher.noise.set_state(began)
    draw = searcher.stages.sampled(searcher.stages.draw(16, 4, searcher.noise))
    torch.testing.assert_close(shown, apply_draw(batch.images / 255, draw), atol=1e-5, rtol=0)


def test_a_searcher_restored_from_its_state_goes_on_with_the_same_bits() -> None:
    noise = torch.Generator().manual_seed(3)
    batches = [(a_batch(noise), [a_batch(noise)]) for _ in range(3)]
    straight = new_faster(0)
    straight.step(*batches[0], moment())
    state = decode_state(*encode_state(straight.state()))
    other = new_faster(7)
    other.restore(state)
    other.critic.network.load_state_dict(straight.critic.network.state_dict())
    other.noise.set_state(straight.noise.get_state())
    for batch in batches[1:]:
        straight.step(*batch, moment())
        other.step(*batch, moment())
    pairs = list(zip(everything(straight), everything(other), strict=True))
    assert len(pairs) > 40
    assert all(torch.equal(*pair) for pair in pairs)


def test_a_gradient_that_is_no_number_leaves_the_policy_alone_and_counts_as_skipped(monkeypatch) -> None:
    searcher = new_faster()
    noise = torch.Generator().manual_seed(3)
    before = [one.detach().clone() for one in searcher.stages.parameters()]
    monkeypatch.setattr(searcher, "train_critic", lambda real, others: torch.zeros(()))
    nn.init.constant_(searcher.critic.head[2].weight, math.nan)
    assert searcher.step(a_batch(noise), [a_batch(noise)], moment()).skipped is True
    assert all(map(torch.equal, searcher.stages.parameters(), before))


def test_a_critic_that_diverged_is_told_with_its_remedy() -> None:
    searcher = new_faster()
    noise = torch.Generator().manual_seed(3)
    nn.init.constant_(searcher.critic.head[2].weight, math.nan)
    with pytest.raises(InputError, match=r"objective is nan: it diverged; lower searcher.critic_learning_rate"):
        searcher.train_critic(a_batch(noise), a_batch(noise))


class Hard(Line):
    """Its activation has a derivative, and no second one in torch."""

    def forward_features(self, images: Tensor) -> Tensor:
        return nn.functional.hardsigmoid(self.body(images))


def test_a_network_that_torch_differentiates_only_once_is_refused_with_a_remedy() -> None:
    searcher = FasterSearcher(FasterAA(), Hard(), STANDARD, torch.Generator().manual_seed(0))
    one = Batch(torch.rand(4, 1, 1, 1), torch.zeros(4, dtype=torch.long), torch.arange(4))
    with pytest.raises(InputError, match=r"hardsigmoid.*choose another network"):
        searcher.train_critic(one, one)


class Attentive(Line):
    """Its pixels attend to each other, which torch does on a CPU by a kernel that has no second derivative."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 64, 3, padding=1), nn.Flatten(2))

    def forward_features(self, images: Tensor) -> Tensor:
        tokens = self.body(images).transpose(1, 2).unsqueeze(1).contiguous()  # (B, 1, H * W, 64)
        return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens).squeeze(1).mean(1)


def test_a_network_with_attention_can_be_the_critic() -> None:
    searcher = FasterSearcher(FasterAA(), Attentive(), STANDARD, torch.Generator().manual_seed(0))
    one = Batch(torch.rand(4, 1, 8, 8), torch.zeros(4, dtype=torch.long), torch.arange(4))
    assert not searcher.step(one, [one], moment()).skipped


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FasterAA(penalty_weight=0.0), r"penalty_weight is 0.0; wanted a number from 0.001"),
        (lambda: FasterAA(temperature=0.0), r"temperature is 0.0; wanted a number from 0.001"),
        (lambda: FasterAA(chunk=0), r"chunk is 0; wanted a whole number from 1"),
        (
            lambda: compose_study("search=policy", "searcher=faster_aa", "searcher.acts=relaxed"),
            r"searcher.acts is not a setting of .*FasterAA",
        ),
        (lambda: Stages(sub_policies=0), r"sub_policies is 0; wanted a whole number from 1"),
        (lambda: Stages(("Rotat",)).policy(), r"policy_space.ops names the op 'Rotat'; did you mean Rotate"),
    ],
)
def test_settings_that_make_no_sense_are_refused_with_a_remedy(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("choice", ["search=policy searcher=faster_aa", "preset=faster_aa2020"])
def test_the_shipped_settings_are_the_published_ones(choice: str) -> None:
    study = compose_study(*choice.split())
    assert isinstance(study.search, PolicyOnly)
    assert study.search.searcher == FasterAA()
    assert study.search.searcher.policy_space == Stages()
    if choice.startswith("preset"):
        assert (study.search.network.name, study.search.search_recipe.epochs) == ("wide_resnet40_2", 20)


def test_the_search_loop_finds_a_valid_policy_from_one_half_of_each(tmp_path: Path) -> None:
    dataset = Digits()
    splits = load_search_splits(dataset, 0)
    assert {len(splits.train), len(splits.validation)} == {150}
    settings = FasterAA()
    plan = Plan(
        folder=tmp_path / "one",
        network="tiny_cnn",
        recipe=Recipe(epochs=1, batch_size=75, precision="float32"),
        standard=dataset.standard,
        seed=0,
        policy=settings.policy_space.policy(),
        dataset=as_plain(dataset),
        search=as_plain(settings),
    )
    stage = policy_stage(settings, plan.network, SearchRecipe(epochs=1))
    result = search(plan, splits, stage.new_searcher(None, 0, dataset.standard))
    assert (result["steps"], result["skipped_steps"]) == (2, 0)
    assert result["forward_equivalents"] == 2 * 14
    found = Policy.load(tmp_path / "one" / "policy.json")
    assert [len(sub_policy.ops) for sub_policy in found.sub_policies] == [2] * 10


def test_the_preset_runs_from_the_command_line_on_digits(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["preset=faster_aa2020", "dataset=digits", "network=tiny_cnn", "search_recipe.epochs=1"]
    assert run("joint_search", [*arguments, "retrain=false", "seeds=[0]", "run=out"]) == 0
    (result,) = json.loads((tmp_path / "out" / "searches.json").read_text())
    assert (result["epochs"], result["steps"]) == (1, 3)
    assert Policy.load(tmp_path / "out" / "search-seed0" / "policy.json").stages == 2
