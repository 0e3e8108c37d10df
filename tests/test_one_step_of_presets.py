"""One step of three presets equals the same step written down plainly, from the papers and the released defaults.

The re-implementations know torch, our ops (which have oracles of their own) and the order in which random numbers are
drawn. Where a preset differs on purpose, `docs/presets.md` says so, and the plain step has the preset's choice: the
step of the weights is the virtual step, clipped, before policy and cells.
"""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import avg_pool2d, cross_entropy

from jointsearch.compose import compose_study
from jointsearch.data.sets import Batch
from jointsearch.data.standard import Standard
from jointsearch.loops.trainer import StepOf, Trainer
from jointsearch.networks.supernet import supernet
from jointsearch.protocols import Moment, StepSearcher
from jointsearch.searchers.differentiable import DifferentiableSearcher
from jointsearch.searchers.first_order import FirstOrderSearcher
from jointsearch.soft import candidates
from search_spaces.augment.op import OpNoise
from search_spaces.augment.table import OPS
from tests.search_bench import CLASSES, batch_of

CPU = torch.device("cpu")
CLOSE, EQUAL = {"rtol": 0, "atol": 1e-5}, {"rtol": 1e-5, "atol": 1e-10}
ROUNDED = {"rtol": 1e-4, "atol": 1e-9}  # the numbers of a policy are of float32
EDGE = 1e-6


@pytest.fixture(autouse=True)
def in_doubles(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All in float64 and without kinks, so that the first steps of Adam, which are signs, do not hang on rounding."""
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: x * x.sigmoid())
    monkeypatch.setattr(candidates, "relu", lambda x: x * x.sigmoid())
    monkeypatch.setattr(nn.MaxPool2d, "forward", lambda self, x: avg_pool2d(x.exp(), 3, self.stride, 1).log())
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def searcher_of(preset: str, network: nn.Module, noise: torch.Generator) -> tuple[StepSearcher, Moment]:
    """The searcher of a preset on a network, and where its first step stands."""
    stage = compose_study(f"preset={preset}", dataset="digits").search.stages()[-1]
    trainer = Trainer(network, stage.recipe.whole(), CPU, CLASSES, 10)
    start = stage.new_searcher(None, 0, Standard())
    searcher = start(network, StepOf(trainer, lambda: 0), noise)
    return searcher, Moment(0, 0, 10, stage.recipe.epochs, stage.recipe.learning_rate)


class Plain:
    """SGD's first step with clipping and decay, Adam's first step, and losses at any weights."""

    def __init__(self, network: nn.Module, architecture: dict[str, Tensor]) -> None:
        self.network, self.architecture = network, architecture
        self.weights = {name: w.detach().clone() for name, w in network.named_parameters() if name not in architecture}

    def loss(self, weights: dict[str, Tensor], images: Tensor, labels: Tensor, **others: Tensor) -> Tensor:
        buffers = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        return cross_entropy(functional_call(self.network, {**buffers, **weights, **others}, (images,)), labels)

    def slopes(self, of: dict[str, Tensor], images: Tensor, labels: Tensor, **others: Tensor) -> dict[str, Tensor]:
        leaves = {name: value.detach().clone().requires_grad_() for name, value in of.items()}
        loss = self.loss({**self.weights, **leaves}, images, labels, **{**self.architecture, **others, **leaves})
        return dict(zip(of, torch.autograd.grad(loss, list(leaves.values())), strict=True))

    def step(self, images: Tensor, labels: Tensor, rate: float, decay: float, clip: float) -> dict[str, Tensor]:
        gradient = self.slopes(self.weights, images, labels)
        norm = torch.stack([part.square().sum() for part in gradient.values()]).sum().sqrt()
        after = {}
        for name, weight in self.weights.items():
            decays = decay if weight.dim() > 1 else 0.0
            after[name] = weight - rate * (gradient[name] * min(1.0, clip / float(norm + 1e-6)) + decays * weight)
        return after


def gradient_of(optimizer: torch.optim.Optimizer, leaf: Tensor) -> Tensor:
    """What Adam was given in its first step, decay included: the step itself is little more than a sign."""
    group = next(group for group in optimizer.param_groups if any(one is leaf for one in group["params"]))
    return optimizer.state[leaf]["exp_avg"] / (1 - group["betas"][0])


def adam(value: Tensor, gradient: Tensor, rate: float, decay: float = 0.0) -> Tensor:
    gradient = gradient + decay * value
    return value - rate * gradient / (gradient.abs() + 1e-8)


def normalized(batch: Batch) -> Tensor:
    return (batch.images / 255 - 0.5) / 0.25


def new_supernet() -> nn.Module:
    torch.manual_seed(4)
    network = supernet("darts", channels=4, layers=3, num_classes=CLASSES, in_chans=1)
    for logits in network.architecture().values():
        logits.mul_(300)
    return network


def test_darts_of_second_order() -> None:
    network = new_supernet()
    plain = Plain(copy.deepcopy(network), {name: one.clone() for name, one in network.architecture().items()})
    (train, judge), alpha = (batch_of(16), batch_of(16, 5)), plain.architecture
    x, y = normalized(train), train.labels
    searcher, at = searcher_of("darts2019_second", network, torch.Generator())
    assert isinstance(searcher, DifferentiableSearcher)
    assert searcher.cells is not None
    searcher.step(train, [judge], at)

    after = plain.step(x, y, rate=0.025, decay=3e-4, clip=5.0)
    validation = (normalized(judge), judge.labels)
    direct = plain.slopes(alpha, *validation, **after)
    v = plain.slopes(after, *validation)
    reach = 0.01 / float(torch.stack([part.square().sum() for part in v.values()]).sum().sqrt())
    above, below = (
        plain.slopes(alpha, x, y, **{name: w + sign * reach * v[name] for name, w in plain.weights.items()})
        for sign in (1, -1)
    )
    for name, value in alpha.items():
        gradient = direct[name] - 0.025 * (above[name] - below[name]) / (2 * reach)
        moved, logits = adam(value, gradient, 3e-4, 1e-3), network.architecture()[name]
        torch.testing.assert_close(gradient_of(searcher.cells.optimizer, logits), gradient + 1e-3 * value, **EQUAL)
        torch.testing.assert_close(logits.detach(), moved, **CLOSE)
        assert float((moved - value).abs().max()) > 1e-4
    found = dict(network.named_parameters())
    for name, weight in after.items():
        torch.testing.assert_close(found[name].detach(), weight, **CLOSE)


def test_kashima() -> None:
    network, noise = new_supernet(), torch.Generator().manual_seed(3)
    plain = Plain(copy.deepcopy(network), {name: one.clone() for name, one in network.architecture().items()})
    train, judge = batch_of(16), batch_of(16, 5)
    searcher, at = searcher_of("kashima2021", network, noise)
    assert isinstance(searcher, FirstOrderSearcher)
    assert searcher.cells is not None
    learned = {name: one.detach().clone() for name, one in searcher.stages.named_parameters()}
    same = noise.clone_state()
    searcher.step(train, [judge], at)

    z, p, mu = (learned[name].requires_grad_() for name in ("preference", "probability_logits", "magnitude_logits"))
    leaves = {name: one.clone().requires_grad_() for name, one in plain.architecture.items()}
    loss = plain.loss(plain.weights, blended(judge, z, p, mu, same), judge.labels, **leaves)
    gradients = torch.autograd.grad(loss, [z, p, mu, *leaves.values()])
    with torch.no_grad():
        moved = [adam(value, slope, 1e-3) for value, slope in zip((z, p, mu), gradients, strict=False)]
        cells = {n: adam(one, g, 3e-4, 1e-3) for (n, one), g in zip(leaves.items(), gradients[3:], strict=True)}
        images = blended(train, *moved, same)
    plain.architecture = {name: one.detach() for name, one in cells.items()}
    after = plain.step(images, train.labels, rate=0.025, decay=3e-4, clip=5.0)
    for found, wanted, slope in zip(searcher.stages.parameters(), moved, gradients, strict=False):
        torch.testing.assert_close(gradient_of(searcher.optimizer, found), slope, **EQUAL)
        torch.testing.assert_close(found.detach(), wanted, **CLOSE)
    for (name, value), slope in zip(leaves.items(), gradients[3:], strict=True):
        given = gradient_of(searcher.cells.optimizer, network.architecture()[name])
        torch.testing.assert_close(given, (slope + 1e-3 * value).detach(), **EQUAL)
    found = dict(network.named_parameters())
    for name, value in {**after, **cells}.items():
        torch.testing.assert_close(found[name].detach(), value.detach(), **CLOSE)


def blended(batch: Batch, z: Tensor, p: Tensor, mu: Tensor, noise: torch.Generator) -> Tensor:
    """Faster AutoAugment's sum of all ops, twice, image by image, normalized."""
    count, (sub_policies, stages, ops) = len(batch.labels), z.shape
    chunks = torch.randint(sub_policies, (count // 8,), generator=noise)
    uniform = torch.rand(5, count, stages, ops, generator=noise)
    torch.rand(count, stages, generator=noise)
    pixels = batch.images / 255
    changed = pixels
    for stage in range(stages):
        images = []
        for i in range(count):
            one, row = changed[i : i + 1], int(chunks[i // 8])
            weights = (z[row, stage] / 0.05).softmax(0)
            total = torch.zeros_like(one)
            for o, name in enumerate(OPS_OF_KASHIMA):
                u, sign, across, down, other = uniform[:, i, stage, o]
                u = u.clamp(EDGE, 1 - EDGE)
                acts = ((4 * p[row, stage, o] + u.log() - (1 - u).log()) / 0.1).sigmoid()
                partner = (i + 1 + int(other * (count - 1))) % count
                op_noise = OpNoise(
                    torch.where(sign < 0.5, -1.0, 1.0).view(1),
                    torch.stack([across, down]).view(1, 2),
                    torch.tensor([0]),
                )
                result = OPS[name](
                    one, (4 * mu[row, stage, o]).sigmoid().view(1), op_noise, pixels[partner : partner + 1]
                )
                total = total + weights[o] * (acts * result + (1 - acts) * one)
            images.append(total)
        changed = torch.cat(images)
    return (changed - 0.5) / 0.25


OPS_OF_KASHIMA = (
    "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "AutoContrast", "Invert", "Equalize",
    "Solarize", "Posterize", "Contrast", "Color", "Brightness", "Sharpness", "HorizontalFlip", "SamplePairing",
)  # fmt: skip


@pytest.mark.parametrize("seed", [1, 11])
def test_dada_by_relax(seed: int) -> None:  # of Posterize and Contrast, of Rotate and Cutout; all four act
    torch.manual_seed(5)
    network = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.Tanh(),
        nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6), nn.Tanh(),
        nn.Flatten(), nn.Linear(96, CLASSES),
    )  # fmt: skip
    plain, noise = Plain(copy.deepcopy(network), {}), torch.Generator().manual_seed(seed)
    train, judge = batch_of(16), batch_of(16, 5)
    searcher, at = searcher_of("dada2020_relax", network, noise)
    assert isinstance(searcher, DifferentiableSearcher)
    assert searcher.policy is not None
    assert searcher.policy.control_optimizer is not None
    assert searcher.policy.control_optimizer.defaults["betas"] == (0.5, 0.999)
    soft = searcher.drawn.soft
    learned = soft.preference, soft.probability_logits, soft.magnitude_logits
    alpha, p, m = (one.detach().clone().double().requires_grad_() for one in learned)
    op, same = soft.op, noise.clone_state()
    searcher.step(train, [judge], at)

    # One draw: a sub-policy by Gumbel noise, all 210 bits by logistic noise. Surrogates cancel in the difference.
    kind = soft.logits().act.dtype
    u, bits = (torch.rand(shape, generator=same, dtype=kind) for shape in ((1, 105), (1, 105, 2)))
    for shape in ((1, 105), (1, 105, 2)):
        torch.rand(shape, generator=same, dtype=kind)  # of the conditioned sample
    u, bits = u[0].clamp(EDGE, 1 - EDGE), bits[0].clamp(EDGE, 1 - EDGE)
    drawn = int((alpha.log_softmax(0) - (-u.log()).log()).argmax())
    logit = 4 * p  # beta is a sigmoid of slope 1 in the middle
    on = (logit + bits.log() - (1 - bits).log() > 0).double()
    uniform = torch.rand(8, 16, generator=same).view(4, 2, 16)
    images = train.images / 255
    strength = (4 * m).sigmoid()[drawn]
    for stage in range(2):
        if on[drawn, stage]:
            sign, across, down, _ = uniform[:, stage]
            op_noise = OpNoise(torch.where(sign < 0.5, -1.0, 1.0), torch.stack([across, down], 1), torch.arange(16))
            name = list(OPS)[int(op[drawn, stage])]
            images = OPS[name](images, strength[stage].detach().expand(16), op_noise, images).detach()
    acting = (on[drawn] * torch.tensor([OPS[list(OPS)[int(o)]].has_magnitude for o in op[drawn]])) * strength
    x = (images + acting.sum() - acting.sum().detach() - 0.5) / 0.25  # Eq. 10: slope 1 in every pixel
    after = plain.step(x.detach(), train.labels, rate=0.1, decay=2e-4, clip=5.0)
    v = plain.slopes(after, normalized(judge), judge.labels)
    reach = 0.01 / float(torch.stack([part.square().sum() for part in v.values()]).sum().sqrt())
    above, below = (
        plain.loss({name: w + sign * reach * v[name] for name, w in plain.weights.items()}, x, train.labels)
        for sign in (1, -1)
    )
    score = alpha.log_softmax(0)[drawn] + (on * logit.sigmoid().log() + (1 - on) * (-logit).sigmoid().log()).sum()
    gain = -0.1 * (above - below) / (2 * reach)
    (gain.detach() * score + gain).backward()
    for found, value in zip(
        (soft.preference, soft.probability_logits, soft.magnitude_logits), (alpha, p, m), strict=True
    ):
        gradient = torch.zeros_like(value) if value.grad is None else value.grad
        torch.testing.assert_close(gradient_of(searcher.policy.optimizer, found).double(), gradient, **ROUNDED)
        torch.testing.assert_close(found.detach().double(), adam(value.detach(), gradient, 5e-3), **CLOSE)
    named = dict(network.named_parameters())
    for name, weight in after.items():
        torch.testing.assert_close(named[name].detach(), weight.detach(), **CLOSE)
    assert on[drawn].all()
