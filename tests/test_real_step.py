"""Gradients through a training step are those of autograd through the real step, of networks with batch normalization.

The oracle knows nothing of rewards or recorded steps: it takes the step of SGD as a function, with the batch statistics
that training has, and differentiates the validation loss after it in the architecture and in a magnitude.
"""

import copy
from collections.abc import Callable, Iterator, Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import avg_pool2d, cross_entropy

from jointsearch.benchmarks.agreement import agreement as compared
from jointsearch.data.standard import Standard, normalize
from jointsearch.networks.create import create_network
from jointsearch.protocols import Context
from jointsearch.searchers.cell_learner import ArchitectureSettings, CellLearner
from jointsearch.searchers.differentiable import CellsOnly
from jointsearch.soft import candidates
from jointsearch.soft.network import SuperNet
from jointsearch.through_step.finite_difference import finite_difference
from jointsearch.through_step.jvp import jvp
from jointsearch.through_step.record import StepRecord, record_step
from jointsearch.through_step.sides import losses_on_both_sides
from jointsearch.through_step.validation import validation_gradient
from search_spaces.cells.skeleton import Skeleton
from search_spaces.cells.space import DARTS
from search_spaces.policy import Policy, SubPolicy
from tests.search_bench import Descent, batch_of, moment

STEP_SIZE = 0.1
SIDE = 8
LABELS = torch.arange(12) % 3
Leaves = dict[str, Tensor]
Labelled = tuple[Tensor, Tensor]
STANDARD = Standard()


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


TRAIN = normal(12, 2, SIDE, SIDE, seed=1)
JUDGE = normal(9, 2, SIDE, SIDE, seed=2), torch.arange(9) % 3


class Mixed(nn.Module):
    """A mixture of three layers between batch normalizations; training does not change the mixture's logits."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Tanh(), nn.Dropout(dropout))
        wide = nn.Sequential(nn.Conv2d(6, 6, 5, padding=2), nn.BatchNorm2d(6), nn.Tanh())
        self.candidates = nn.ModuleList([nn.Conv2d(6, 6, 1), nn.Identity(), wide])
        self.head = nn.Sequential(nn.BatchNorm2d(6), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 3))
        self.logits = nn.ParameterDict({"normal": torch.tensor([0.3, -0.2, 0.1])}).requires_grad_(False)

    def architecture(self) -> Leaves:
        return {"logits.normal": self.logits["normal"]}

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        shares = self.logits["normal"].softmax(0)
        return self.head(sum(share * one(x) for share, one in zip(shares, self.candidates, strict=True)))


def supernet() -> SuperNet:
    network = SuperNet(DARTS, Skeleton(4, 3, 3, in_chans=2), torch.Generator().manual_seed(2))
    for logits in network.architecture().values():
        logits.data.mul_(500)
    return network


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mixture": lambda: Mixed(0.0),
    "mixture with dropout": lambda: Mixed(0.3),
    "supernet of DARTS": supernet,
}


def smooth(x: Tensor) -> Tensor:
    return x * x.sigmoid()


@pytest.fixture(autouse=True)
def without_kinks(monkeypatch: pytest.MonkeyPatch) -> None:
    """ReLU and maximum made smooth: at a kink no finite difference is the derivative."""
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: smooth(x))
    monkeypatch.setattr(candidates, "relu", smooth)
    monkeypatch.setattr(nn.MaxPool2d, "forward", lambda self, x: avg_pool2d(x.exp(), 3, self.stride, 1).log())


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[request.param]().double()


def under_shade(magnitude: Tensor) -> Tensor:
    """The training images, their first half darker or brighter by a magnitude: batch statistics follow it."""
    factor = torch.cat([(1 + magnitude).expand(6), torch.ones(6, dtype=torch.float64)]).view(-1, 1, 1, 1)
    return factor * TRAIN + (1 - factor) / 2


def oracle(
    network: nn.Module, leaves: Mapping[str, Tensor], train: Labelled, judge: Labelled, wanted: list[Tensor]
) -> list[Tensor]:
    """d(validation loss after the step)/d(wanted), through the step only."""
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    weights = {
        name: weight.detach().clone().requires_grad_()
        for name, weight in network.named_parameters()
        if name not in leaves
    }
    torch.manual_seed(7)
    loss = cross_entropy(functional_call(network, {**buffers, **weights, **leaves}, train[:1]), train[1])
    slopes = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
    after = {name: one - STEP_SIZE * slope for (name, one), slope in zip(weights.items(), slopes, strict=True)}
    held = {name: leaf.detach() for name, leaf in leaves.items()}
    dropouts = [module for module in network.modules() if isinstance(module, nn.Dropout)]
    for module in dropouts:
        module.eval()
    judged = cross_entropy(functional_call(network, {**buffers, **after, **held}, judge[:1]), judge[1])
    for module in dropouts:
        module.train()
    return list(torch.autograd.grad(judged, wanted))


def leaves_of(network: nn.Module) -> Leaves:
    return {name: logits.detach().clone().requires_grad_() for name, logits in network.architecture().items()}


def recorded(network: nn.Module, leaves: Leaves, images: Tensor) -> tuple[StepRecord, dict[str, Tensor]]:
    """A step, and v."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name not in leaves)
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(weights, STEP_SIZE)
    with record_step(network) as record:
        torch.manual_seed(7)
        cross_entropy(network(images.detach()), LABELS).backward()
        optimizer.step()
        optimizer.zero_grad()
    gradient = validation_gradient(network, [JUDGE], leaves)
    return record, {name: part for name, part in gradient.items() if name not in leaves}


def agreement(found: list[Tensor], wanted: list[Tensor]) -> tuple[float, float]:
    """The cosine, and the size of what was found over the size of what is right."""
    both = compared(*(torch.cat([part.flatten() for part in parts]) for parts in (found, wanted)))
    return both.cosine, both.size


@pytest.mark.parametrize("epsilon", [0.01, 1e-4])
def test_the_second_order_gradient_of_cells_is_that_of_the_real_step(network: nn.Module, epsilon: float) -> None:
    leaves = leaves_of(network)
    wanted = oracle(network, leaves, (TRAIN, LABELS), JUDGE, list(leaves.values()))
    record, v = recorded(network, leaves, TRAIN)
    rewards = losses_on_both_sides(record.live(), v, TRAIN, LABELS, epsilon, leaves).rewards(STEP_SIZE)
    cosine, size = agreement(list(torch.autograd.grad(rewards.mean(), list(leaves.values()))), wanted)
    assert cosine > 0.999
    assert size == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("reward", [finite_difference, jvp])
@pytest.mark.parametrize("name", [*NETWORKS, "wide_resnet16_1"])
def test_the_gradient_of_a_magnitude_is_that_of_the_real_step(name: str, reward: Callable[..., Tensor]) -> None:
    torch.manual_seed(0)
    network = (NETWORKS[name]() if name in NETWORKS else create_network(name, 3, in_chans=2)).double()
    leaves = leaves_of(network) if name in NETWORKS else {}
    magnitude = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    (wanted,) = oracle(network, leaves, (under_shade(magnitude), LABELS), JUDGE, [magnitude])
    images = under_shade(magnitude)
    record, v = recorded(network, leaves, images)
    (found,) = torch.autograd.grad(reward(record.live(), v, images, LABELS, STEP_SIZE).mean(), magnitude)
    assert float(found) == pytest.approx(float(wanted), rel=0.01)


@pytest.fixture
def in_doubles() -> Iterator[None]:
    """Networks and images of a search in float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("in_doubles")
def test_a_search_of_second_order_moves_cells_along_the_gradient_of_the_real_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    network = SuperNet(DARTS, Skeleton(4, 3, 4, in_chans=1), torch.Generator().manual_seed(2))
    train, judge = batch_of(12), batch_of(9, 5)
    cells = CellLearner(ArchitectureSettings(order="second"), network)
    leaves, got = leaves_of(network), {}
    monkeypatch.setattr(cells, "descend", lambda moved: got.update({name: one.grad for name, one in moved.items()}))
    before = copy.deepcopy(network)
    context = Context(network, Descent(network, STEP_SIZE), STANDARD, torch.Generator(), epochs=4, cells=cells)
    CellsOnly(Policy((SubPolicy(()),))).start(context).step(train, [judge], moment(step_size=STEP_SIZE))
    splits = [(normalize(batch.images, STANDARD), batch.labels) for batch in (train, judge)]
    through = oracle(before, leaves, *splits, list(leaves.values()))
    weights = {name: one for name, one in network.named_parameters() if name not in leaves}
    (images, labels), buffers = splits[1], {name: one.clone() for name, one in before.named_buffers()}
    loss = cross_entropy(functional_call(before, {**buffers, **weights, **leaves}, (images,)), labels)
    direct = torch.autograd.grad(loss, list(leaves.values()))
    second = [got[name] - part for name, part in zip(leaves, direct, strict=True)]
    cosine, size = agreement(second, through)
    assert cosine > 0.999
    assert size == pytest.approx(1, abs=0.01)


def test_frozen_statistics_give_another_gradient(network: nn.Module) -> None:
    # Why `live` is the rule: constants in place of statistics that follow the weights are not what training does.
    leaves = leaves_of(network)
    wanted = oracle(network, leaves, (TRAIN, LABELS), JUDGE, list(leaves.values()))
    record, v = recorded(network, leaves, TRAIN)
    rewards = losses_on_both_sides(record.frozen(), v, TRAIN, LABELS, 1e-4, leaves).rewards(STEP_SIZE)
    cosine, size = agreement(list(torch.autograd.grad(rewards.mean(), list(leaves.values()))), wanted)
    assert cosine < 0.999 or abs(size - 1) > 0.01
