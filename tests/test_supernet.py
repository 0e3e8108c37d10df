"""The supernet equals its plain definition: one module per candidate, and their weighted sum."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import avg_pool2d, cross_entropy, silu

from jointsearch.benchmarks.plain_supernet import PlainBody
from jointsearch.soft import candidates
from jointsearch.soft.candidates import Candidate
from jointsearch.soft.mixed import Mixture
from jointsearch.soft.network import SuperNet
from jointsearch.through_step.double_backward import double_backward
from jointsearch.through_step.finite_difference import finite_difference
from jointsearch.through_step.jvp import jvp
from jointsearch.through_step.loss import per_image_loss
from jointsearch.through_step.record import record_step
from jointsearch.through_step.sides import losses_on_both_sides
from jointsearch.through_step.validation import validation_gradient
from search_spaces.cells.derive import derive
from search_spaces.cells.skeleton import CellNetwork, Skeleton
from search_spaces.cells.space import CELL_SPACES, DARTS, SMALL, CellSpace

LITTLE = Skeleton(channels=4, layers=4, num_classes=3, in_chans=2)  # reductions at 1 and 2


def plain_and_ours(space: CellSpace, skeleton: Skeleton, dtype: torch.dtype) -> tuple[CellNetwork, SuperNet]:
    """Both with the same weights, ours with logits that are far from uniform."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        plain = CellNetwork(
            skeleton, space.nodes, lambda channels, reduces: PlainBody(space, channels, reduces), affine=False
        )
        ours = SuperNet(space, skeleton, torch.Generator().manual_seed(2))
    with torch.no_grad():
        for logits in ours.logits.values():
            logits.mul_(1000)
        for here, there in zip(ours.network.parameters(), plain.parameters(), strict=True):
            here.copy_(there)
    return plain.to(dtype), ours.to(dtype)


def softmaxed(network: SuperNet) -> list[Tensor]:
    return [torch.softmax(network.logits[kind], dim=1) for kind in ("normal", "reduction")]


def batch(size: int, images: int = 3, channels: int = 2, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(size)
    return (
        torch.randn(images, channels, size, size, generator=generator, dtype=dtype),
        torch.randint(0, 3, (images,), generator=generator),
    )


def gradients(loss: Tensor, network: nn.Module, logits: nn.ParameterDict) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [*network.parameters(), *logits.values()]))


@pytest.mark.parametrize("space", CELL_SPACES.values(), ids=CELL_SPACES)
@pytest.mark.parametrize("size", [8, 9, 12])
def test_outputs_and_all_gradients_are_those_of_the_plain_definition(space: CellSpace, size: int) -> None:
    plain, ours = plain_and_ours(space, LITTLE, torch.float64)
    images, labels = batch(size)
    wanted, found = plain(images, softmaxed(ours)), ours(images)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    wanted = gradients(cross_entropy(wanted, labels), plain, ours.logits)
    found = gradients(cross_entropy(found, labels), ours.network, ours.logits)
    torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-9)


@pytest.fixture
def without_kinks(monkeypatch: pytest.MonkeyPatch) -> None:
    """ReLU and maximum made smooth, for both definitions alike."""
    # 8.6 million numbers go into the ReLUs below, and rounding moves them by 5e-6: on some machines one of them changes
    # its sign, which alone moves a gradient by 1e-3, of ours as well as of the plain definition.
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: silu(x))
    monkeypatch.setattr(candidates, "relu", silu)
    monkeypatch.setattr(nn.MaxPool2d, "forward", lambda self, x: avg_pool2d(x.exp(), 3, self.stride, 1).log())


def test_in_float32_all_gradients_are_within_1e_4_of_the_plain_definition(without_kinks: None) -> None:
    plain, ours = plain_and_ours(DARTS, Skeleton(channels=16, layers=3, num_classes=3, in_chans=2), torch.float32)
    images, labels = batch(16, images=8, dtype=torch.float32)
    wanted, found = plain(images, softmaxed(ours)), ours(images)
    wanted = gradients(cross_entropy(wanted, labels), plain, ours.logits)
    found = gradients(cross_entropy(found, labels), ours.network, ours.logits)
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).norm() <= 1e-4 * (1 + other.norm())


def test_in_float32_outputs_are_within_1e_4_of_the_plain_definition() -> None:
    plain, ours = plain_and_ours(DARTS, Skeleton(channels=16, layers=3, num_classes=3, in_chans=2), torch.float32)
    images, _ = batch(16, images=8, dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), plain(images, softmaxed(ours)), rtol=0, atol=1e-4)


def test_evaluation_uses_running_statistics_as_the_plain_definition_does() -> None:
    plain, ours = plain_and_ours(DARTS, LITTLE, torch.float64)
    images, _ = batch(8, images=6)
    for _ in range(2):
        plain(images, softmaxed(ours))
        ours(images)
    other, _ = batch(10)
    torch.testing.assert_close(ours.eval()(other), plain.eval()(other, softmaxed(ours)), rtol=1e-9, atol=1e-9)


def test_the_supernet_of_darts_has_1930618_weights_and_two_times_14_times_8_logits() -> None:
    with torch.device("meta"):
        network = SuperNet(DARTS, Skeleton(), torch.Generator())
    assert sum(weight.numel() for weight in network.network.parameters()) == 1_930_618
    assert {name: tuple(value.shape) for name, value in network.architecture().items()} == {
        "logits.normal": (14, 8),
        "logits.reduction": (14, 8),
    }


def test_it_hardens_to_the_genotype_derived_from_its_softmaxed_logits() -> None:
    _, ours = plain_and_ours(DARTS, LITTLE, torch.float32)
    assert ours.harden() == derive(DARTS, *[weights.detach() for weights in softmaxed(ours)])
    with torch.no_grad():
        ours.logits["normal"][0, DARTS.ops.index("dil_conv_5x5")] = 50.0
    assert [edge.op for edge in ours.harden().normal[0] if edge.source == 0] == ["dil_conv_5x5"]


def test_a_call_with_handed_in_weights_is_the_call_of_a_network_with_such_logits() -> None:
    _, ours = plain_and_ours(DARTS, LITTLE, torch.float64)
    images, _ = batch(8)
    other = {f"logits.{kind}": torch.randn(14, 8, dtype=torch.float64) for kind in ours.logits}
    by_mixture = ours(images, tuple(Mixture(torch.softmax(logits, 1)) for logits in other.values()))
    torch.testing.assert_close(functional_call(ours, other, (images,)), by_mixture, rtol=0, atol=0)


@pytest.mark.parametrize("frozen", ["weights", "depthwise"])
def test_weights_that_are_held_fixed_change_no_gradient_of_the_logits(frozen: str) -> None:
    _, ours = plain_and_ours(DARTS, LITTLE, torch.float64)
    images, _ = batch(8)
    wanted = torch.autograd.grad(ours(images).square().sum(), list(ours.logits.values()))
    weights = {f"network.{name}": weight.detach() for name, weight in ours.network.named_parameters()}
    held = {name: weight for name, weight in weights.items() if frozen == "weights" or "depthwise" in name}
    loss = functional_call(ours, held, (images,)).square().sum()
    torch.testing.assert_close(torch.autograd.grad(loss, list(ours.logits.values())), wanted)


@pytest.fixture(name="step", params=["darts", "small"], scope="module")
def recorded_step(request) -> tuple[SuperNet, Tensor, Tensor, Tensor, dict[str, Tensor]]:
    """A network after one recorded step, its images and labels, the outputs in the step, and a direction."""
    space = CELL_SPACES[request.param]
    _, network = plain_and_ours(space, LITTLE, torch.float64)
    images, labels = batch(8, images=5)
    weights = dict(network.network.named_parameters(prefix="network"))
    optimizer = torch.optim.SGD(weights.values(), 0.05)
    with record_step(network) as record:
        outputs = network(images)
        cross_entropy(outputs, labels).backward()
        optimizer.step()
    direction = {name: value for name, value in validation_gradient(network, [batch(10)]).items() if name in weights}
    return record.frozen(), images, labels, outputs.detach(), direction


def test_a_recorded_step_is_repeated_exactly(step) -> None:
    frozen, images, _, outputs, _ = step
    torch.testing.assert_close(frozen({}, images), outputs, rtol=1e-9, atol=1e-9)


def test_both_sides_of_a_recorded_step_lie_around_its_losses(step) -> None:
    frozen, images, labels, outputs, direction = step
    sides = losses_on_both_sides(frozen, direction, images, labels, epsilon=1e-6)
    assert (sides.above != sides.below).all()
    torch.testing.assert_close(sides.losses(), per_image_loss(outputs, labels), rtol=0, atol=1e-6)


@pytest.mark.slow
def test_rewards_by_finite_difference_forward_mode_and_double_backward_agree(step) -> None:
    frozen, images, labels, _, direction = step
    exact = double_backward(frozen, direction, images, labels, 0.05)
    torch.testing.assert_close(jvp(frozen, direction, images, labels, 0.05), exact, rtol=1e-8, atol=1e-12)
    near = finite_difference(frozen, direction, images, labels, 0.05, epsilon=1e-6)
    torch.testing.assert_close(near, exact, rtol=1e-3, atol=1e-6)


def test_the_validation_gradient_is_that_of_the_plain_definition() -> None:
    plain, ours = plain_and_ours(SMALL, LITTLE, torch.float64)
    images, labels = batch(8)
    found = validation_gradient(ours, [(images, labels)])
    loss = cross_entropy(plain(images, [weights.detach() for weights in softmaxed(ours)]), labels)
    wanted = torch.autograd.grad(loss, list(plain.parameters()))
    torch.testing.assert_close([found[f"network.{name}"] for name, _ in ours.network.named_parameters()], [*wanted])


def test_a_checkpoint_holds_the_architecture() -> None:
    _, ours = plain_and_ours(SMALL, LITTLE, torch.float32)
    fresh = SuperNet(SMALL, LITTLE, torch.Generator())
    fresh.load_state_dict(ours.state_dict())
    assert fresh.harden() == ours.harden()
    torch.testing.assert_close(fresh.logits["normal"], ours.logits["normal"], rtol=0, atol=0)


def test_mixed_precision_trains_close_to_full_precision() -> None:
    _, ours = plain_and_ours(DARTS, LITTLE, torch.float32)
    images, labels = batch(8, images=6, dtype=torch.float32)
    full = ours(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = ours(images)
    cross_entropy(low.float(), labels).backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in ours.parameters())
    assert (low.float() - full).abs().max() < 0.1


def test_a_candidate_that_does_not_go_from_relu_to_norm_is_refused() -> None:
    with pytest.raises(TypeError, match="from a ReLU to a BatchNorm"):
        Candidate(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)), 4)
