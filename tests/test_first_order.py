"""The published joint search is Algorithm 1 of its paper: policy and cells by one backward pass, then the weights."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from jointsearch.commands.command import run
from jointsearch.compose import compose_study
from jointsearch.data.sets import Batch
from jointsearch.data.standard import Standard, normalize
from jointsearch.loops.grid import CellsSettings
from jointsearch.loops.recipe import SearchRecipe
from jointsearch.networks.supernet import SupernetSettings, supernet
from jointsearch.protocols import Context
from jointsearch.runs.plain_state import decode_state, encode_state
from jointsearch.search_kinds import CellsAlone, Joint
from jointsearch.searchers.cell_learner import AgainstCollapse, ArchitectureSettings, CellLearner
from jointsearch.searchers.first_order import FirstOrder, FirstOrderSearcher
from jointsearch.searchers.spaces import Stages
from jointsearch.soft.network import SuperNet
from jointsearch.soft.stages import SoftStages, StageDraw
from search_spaces.augment.op import OpNoise
from search_spaces.augment.table import OPS
from search_spaces.errors import InputError
from search_spaces.genotype import Genotype
from search_spaces.policy import Policy
from tests.kills import same
from tests.search_bench import CLASSES, Descent, batch_of, moment, plain_network, smooth_network

STANDARD = Standard()
OP_NAMES = ("TranslateX", "Brightness", "Invert", "Contrast")
POLICY = ("preference", "probability_logits", "magnitude_logits")
ARCHITECTURE = ("logits.normal", "logits.reduction")
LEARNING_RATE = 0.1
SMALL = (
    *("supernet.space=small", "supernet.channels=4", "supernet.layers=3", "search_recipe.epochs=1"),
    *("dataset=digits", "dataset.reduced=100", "retrain=false", "seeds=[0]", "run=out"),
)


def new_network(**options: Any) -> SuperNet:
    torch.manual_seed(4)
    return supernet("small", channels=4, layers=3, num_classes=CLASSES, in_chans=1, **options).double()


def descent(network: nn.Module) -> Descent:
    return Descent(network, LEARNING_RATE, momentum=0.9)


def new_searcher(
    search: str = "joint",
    network: nn.Module | None = None,
    standard: Standard = STANDARD,
    seed: int = 6,
    **cells: Any,
) -> FirstOrderSearcher:
    network = new_network() if network is None else network
    learner = None
    if search == "joint":
        learner = CellLearner(ArchitectureSettings(**({"learning_rate": 0.05} | cells)), network)
    settings = FirstOrder(learning_rate=0.02, policy_space=Stages(OP_NAMES, 3, 2), chunk=2)
    noise = torch.Generator().manual_seed(seed)
    searcher = settings.start(Context(network, descent(network), standard, noise, epochs=4, cells=learner))
    searcher.stages.double()
    return searcher


def double_batch(seed: int) -> Batch:
    batch = batch_of(8, seed)
    return Batch(batch.images.double() / 255, batch.labels, batch.index)


def steps(searcher: FirstOrderSearcher, count: int = 3) -> FirstOrderSearcher:
    for step in range(count):
        searcher.step(double_batch(step), [double_batch(50 + step)], moment(step))
    return searcher


def everything(searcher: FirstOrderSearcher) -> dict[str, Tensor]:
    stages = {f"policy.{name}": value for name, value in searcher.stages.state_dict().items()}
    return {name: value.clone() for name, value in (stages | searcher.network.state_dict()).items()}


def mixed_by_hand(stages: SoftStages, images: Tensor, draw: StageDraw) -> Tensor:
    """x' = sum_o w_o [a_o O_o(x) + (1 - a_o) x], image by image and stage by stage."""
    rows = []
    for n in range(len(images)):
        x = images[n : n + 1]
        at = draw.sub_policy[n]
        for stage in range(2):
            weights = torch.softmax(stages.preference[at, stage] / 0.05, 0)
            mean = torch.zeros_like(x)
            for place, name in enumerate(OP_NAMES):
                drawn = torch.logit(draw.act[n, stage, place])  # in float32, as it is drawn
                odds = 4 * stages.probability_logits[at, stage, place] + drawn
                act = torch.sigmoid(odds / 0.1)
                magnitude = torch.sigmoid(4 * stages.magnitude_logits[at, stage, place])
                noise = OpNoise(draw.sign[n, stage, place].view(1), torch.zeros(1, 2), torch.zeros(1))
                mean = mean + weights[place] * (act * OPS[name](x, magnitude.view(1), noise) + (1 - act) * x)
            x = mean
        rows.append(x)
    return torch.cat(rows)


class ByHand:
    """Algorithm 1 written down once more, with plain autograd and nothing of the searcher but where it starts."""

    def __init__(self, start: FirstOrderSearcher) -> None:
        self.network = copy.deepcopy(start.network)
        self.stages = copy.deepcopy(start.stages)
        self.noise = torch.Generator()
        self.noise.set_state(start.context.noise.get_state())
        self.train = descent(self.network)
        self.logits = [self.network.get_parameter(name) for name in ARCHITECTURE]
        self.policy = [self.stages.get_parameter(name) for name in POLICY]
        self.optimizers = (
            torch.optim.Adam(self.policy, 0.02, betas=(0.0, 0.999)),
            torch.optim.Adam(self.logits, 0.05, betas=(0.5, 0.999), weight_decay=1e-3),
        )

    def images(self, batch: Batch) -> Tensor:
        draw = self.stages.draw(len(batch.labels), 2, self.noise)
        return normalize(mixed_by_hand(self.stages, batch.images, draw), STANDARD)

    def gradients(self, judges: Batch) -> dict[str, Tensor]:
        statistics = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        for one in self.logits:
            one.requires_grad_()
        loss = cross_entropy(self.network(self.images(judges)), judges.labels)
        found = torch.autograd.grad(loss, self.policy + self.logits)
        for one in self.logits:
            one.requires_grad_(False)
        for name, buffer in self.network.named_buffers():
            buffer.copy_(statistics[name])
        return dict(zip(POLICY + ARCHITECTURE, found, strict=True))

    def step(self, train: Batch, judges: Batch) -> None:
        gradients = self.gradients(judges)
        for one, gradient in zip(self.policy + self.logits, gradients.values(), strict=True):
            one.grad = gradient
        for optimizer in self.optimizers:
            optimizer.step()
        self.train(self.images(train).detach(), train.labels)


def gradients_of(searcher: FirstOrderSearcher, epoch: int = 0) -> dict[str, Tensor]:
    """What each group gets from a batch of validation images."""
    assert searcher.cells is not None
    kept: dict[str, Tensor] = {}

    def watched(leaves: dict[str, Tensor]) -> None:
        kept.update({name: leaf.grad.clone() for name, leaf in leaves.items()})

    searcher.cells.descend = watched  # type: ignore[method-assign]
    assert searcher.learn(double_batch(50), moment(epoch))
    return {name: one.grad.clone() for name, one in searcher.stages.named_parameters()} | kept


def test_one_backward_gives_all_groups_the_gradients_of_plain_autograd() -> None:
    expected = ByHand(new_searcher()).gradients(double_batch(50))
    found = gradients_of(new_searcher())
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        assert float(gradient.abs().max()) > 1e-4
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12)


def test_three_steps_are_three_of_the_algorithm_by_hand() -> None:
    start = new_searcher()
    by_hand = ByHand(start)
    for step in range(3):
        by_hand.step(double_batch(step), double_batch(50 + step))
    found = everything(steps(start))
    expected = by_hand.network.state_dict() | {f"policy.{k}": v for k, v in by_hand.stages.state_dict().items()}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-7, atol=1e-9)
    fresh = everything(new_searcher())
    assert all(not torch.equal(found[name], fresh[name]) for name in ARCHITECTURE)


def test_policy_and_cells_move_at_the_old_weights_and_the_weights_under_the_new_policy() -> None:
    searcher, twin = new_searcher(), new_searcher()
    searcher.step(double_batch(0), [double_batch(50)], moment())
    before = twin.context.noise.get_state()
    assert twin.learn(double_batch(50), moment())
    for name, value in twin.stages.named_parameters():
        assert torch.equal(value, searcher.stages.get_parameter(name))
    images = twin.augmented(double_batch(0)).detach()
    (received,) = searcher.context.train_step.received
    assert torch.equal(received, images)
    untouched = normalize(double_batch(0).images, STANDARD)
    assert float((received - untouched).abs().mean()) > 0.1
    assert not torch.equal(before, twin.context.noise.get_state())


def test_the_images_that_judge_are_augmented_and_pass_the_network_without_a_trace() -> None:
    searcher, seen = new_searcher(standard=Standard(crop_padding=1, cutout=2)), []
    hook = searcher.network.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach().clone()))
    before, weights = everything(searcher), dict(searcher.network.named_parameters())
    modes = [module.training for module in searcher.network.modules()]
    assert searcher.learn(double_batch(50), moment())
    hook.remove()
    (images,) = seen
    plain = normalize(double_batch(50).images, STANDARD)
    assert all(float((one - other).abs().mean()) > 0.05 for one, other in zip(images, plain, strict=True))
    assert (images == 0).flatten(1).any(1).all()  # what is always on is on: cutout leaves zeros
    after = everything(searcher)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {*ARCHITECTURE, *(f"policy.{name}" for name in POLICY)}
    assert all(weight.grad is None for weight in weights.values())
    assert [module.training for module in searcher.network.modules()] == modes


def test_nothing_is_dropped_where_images_judge() -> None:
    searcher = new_searcher("policy", smooth_network().double())
    began, losses = searcher.context.noise.get_state(), []
    for seed in range(2):
        torch.manual_seed(seed)
        searcher.context.noise.set_state(began)
        losses.append(float(searcher.loss(double_batch(50), {}).detach()))
    assert losses[0] == losses[1]


def test_a_step_passes_the_network_twice_and_costs_five() -> None:
    searcher, passes = new_searcher(), []
    searcher.network.register_forward_hook(lambda *given: passes.append(1))
    report = searcher.step(double_batch(0), [double_batch(50)], moment())
    # A backward pass belongs to each; it counts as two, or as one where no weight gets a gradient.
    assert (len(passes), report.forward_equivalents) == (2, 5)


@pytest.mark.parametrize("options", [{}, {"single_path": True}, {"auxiliary_skip": True}, {"channel_share": 2}])
def test_a_searcher_restored_from_its_state_goes_on_with_the_same_bits(options: dict[str, Any]) -> None:
    straight = steps(new_searcher(network=new_network(**options)), 2)
    other = new_searcher(network=new_network(**options), seed=7)
    other.restore(decode_state(*encode_state(straight.state())))
    other.network.load_state_dict(straight.network.state_dict())
    other.context.noise.set_state(straight.context.noise.get_state())
    other.context.train_step.optimizer.load_state_dict(
        copy.deepcopy(straight.context.train_step.optimizer.state_dict())
    )
    for searcher in (straight, other):
        searcher.step(double_batch(8), [double_batch(58)], moment(3))
    assert same(everything(straight), everything(other))
    assert same(straight.state(), other.state())


def test_without_cells_it_searches_a_policy_on_any_network() -> None:
    searcher = new_searcher("policy", plain_network().double())
    before = everything(searcher)
    steps(searcher)
    assert all(not torch.equal(before[f"policy.{name}"], everything(searcher)[f"policy.{name}"]) for name in POLICY)
    found = searcher.found()
    assert found.genotype is None
    assert not {name for name in found.facts if name == "genotype" or name.startswith("weights/")}


def test_it_tells_where_policy_and_cells_stand() -> None:
    searcher = steps(new_searcher(), 1)
    found = searcher.found()
    assert 0 <= found.facts["idle_share"] <= 1
    assert Genotype.from_darts(found.facts["genotype"]) == found.genotype
    assert {name for name, fact in found.facts.items() if isinstance(fact, list)} == {
        "weights/normal",
        "weights/reduction",
    }
    assert isinstance(found.policy, Policy)
    assert [len(one.ops) for one in found.policy.sub_policies] == [2] * 3


@pytest.mark.parametrize(("epochs", "skip_weight", "temperature"), [(1, 1.0, 10.0), (3, 1 / 3, 3.4), (4, 0.0, 0.1)])
def test_what_a_supernet_draws_or_fades_reaches_its_end_with_the_search(
    epochs: int, skip_weight: float, temperature: float
) -> None:
    network = steps(new_searcher(network=new_network(auxiliary_skip=True)), epochs).network  # of 4
    assert float(network.skip_weight) == pytest.approx(skip_weight)
    network = steps(new_searcher(network=new_network(single_path=True)), epochs).network
    assert float(network.temperature) == pytest.approx(temperature)
    assert bool(network.noise.any())


def test_until_their_epoch_comes_cells_stay() -> None:
    searcher = steps(new_searcher(from_epoch=2), 2)
    fresh = new_network().state_dict()
    assert all(torch.equal(searcher.network.state_dict()[name], fresh[name]) for name in ARCHITECTURE)
    searcher.step(double_batch(9), [double_batch(59)], moment(2))
    assert not any(torch.equal(searcher.network.state_dict()[name], fresh[name]) for name in ARCHITECTURE)


def test_beta_decay_adds_its_gradient_to_that_of_the_loss() -> None:
    plain, decayed = (
        gradients_of(new_searcher(), 2),
        gradients_of(new_searcher(against_collapse=AgainstCollapse(beta_decay=8.0)), 2),
    )
    for name, logits in new_network().architecture().items():
        # The third of four epochs: 2 / 3 of 8, of the mean over E edges and both kinds of cells.
        torch.testing.assert_close(decayed[name] - plain[name], 16 / 3 * logits.softmax(1) / len(logits) / 2)


def test_a_gradient_that_is_no_number_moves_neither_policy_nor_cells() -> None:
    searcher = new_searcher()
    before = everything(searcher)
    judges = double_batch(50)
    broken = Batch(judges.images * torch.nan, judges.labels, judges.index)
    assert searcher.step(double_batch(0), [broken], moment()).skipped is True
    after = everything(searcher)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert not moved & {*ARCHITECTURE, *(f"policy.{name}" for name in POLICY)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FirstOrder(chunk=0), r"chunk is 0; wanted a whole number from 1"),
        (
            lambda: Joint(FirstOrder(), ArchitectureSettings(order="second")),
            r"use searcher=differentiable .*, or architecture.order=first",
        ),
        (
            lambda: new_searcher(against_collapse=AgainstCollapse(hessian_monitor=True)),
            r"hessian_monitor .* set it to false, or use searcher=differentiable",
        ),
        (
            lambda: compose_study("search=policy", "searcher=first_order", "searcher.betas=[0.5,0.9]"),
            r"searcher.betas is not a setting of .*FirstOrder",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_remedy(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_the_preset_is_the_paper_and_carries_its_warning() -> None:
    study = compose_study("preset=kashima2021", dataset="cifar10")
    joint = study.search
    assert joint == Joint(
        FirstOrder(),
        ArchitectureSettings(),
        SupernetSettings(),
        SearchRecipe(epochs=25, schedule="cosine_to_0.001"),
        CellsSettings(),
    )
    assert isinstance(joint, Joint)
    assert (joint.searcher.policy_space, len(joint.searcher.policy_space.names())) == (Stages(), 16)
    assert (joint.supernet.channels, joint.supernet.layers, joint.search_recipe.learning_rate) == (16, 8, 0.025)
    assert (study.recipe.epochs, study.recipe.drop_path) == (600, 0.2)
    warning = str(FirstOrder.about.warning)
    assert "easier" in warning
    assert "searcher=differentiable" in warning


@pytest.mark.parametrize(("preset", "order"), [("darts2019_first", "first"), ("darts2019_second", "second")])
def test_the_presets_of_darts_are_its_published_settings(preset: str, order: str) -> None:
    study = compose_study(f"preset={preset}", dataset="cifar10")
    assert isinstance(study.search, CellsAlone)
    assert study.search.architecture == ArchitectureSettings(order=order)
    (stage,) = study.search.stages()
    start = stage.start_policy(None, 0)
    assert start is not None
    assert [sub_policy.ops for sub_policy in start.sub_policies] == [()]
    recipe = {"epochs": 50, "batch_size": 64, "learning_rate": 0.025, "weight_decay": 3e-4, "clip_gradient": 5.0}
    assert recipe.items() <= vars(study.search.search_recipe).items()
    retraining = {"epochs": 600, "batch_size": 96, "drop_path": 0.2, "auxiliary_weight": 0.4}
    assert retraining.items() <= vars(study.recipe).items()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "stages"),
    [("kashima2021", {2}), ("darts2019_first", {0}), ("darts2019_second", {0}), ("separate2021", {2})],
)
def test_the_presets_run_from_the_command_line_on_digits(
    preset: str, stages: set[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    network = ["network=tiny_cnn"] if preset == "separate2021" else []
    assert run("joint_search", [f"preset={preset}", *SMALL, *network]) == 0
    (result,) = json.loads(Path("out/searches.json").read_text())
    assert (result["epochs"], result["steps"]) == (1, 1)
    assert Genotype.load("out/search-seed0/genotype.json").to_darts() == result["genotype"]
    if preset == "separate2021":
        assert json.loads(Path("out/policy/search-seed0/settings.json").read_text())["search"]["images"] == 4000
    policy = Policy.load("out/search-seed0/policy.json")
    assert {len(one.ops) for one in policy.sub_policies} == stages
