"""The networks of the papers: the parameters that docs/networks.md says, a step of training, a resumed training."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import jointsearch.networks  # noqa: F401  (importing the package is what registers the networks)
from jointsearch.networks.amoebanet import NORMAL, OPS, REDUCTION, AmoebaBody, amoebanet_b, outputs
from jointsearch.networks.create import create_network
from jointsearch.networks.dual_path import DualPathBlock, Stage, dual_path
from jointsearch.networks.pyramid_net import pyramid_net
from jointsearch.networks.shake_shake import TwoPathShortcut, shake_shake
from search_spaces.cells.derived import DropPath, set_drop_path
from tests.conftest import REPOSITORY
from tests.forked import forkserver
from tests.kills import final_state, same, wait_for
from tests.scripts_bench import run_script

PAGE = (REPOSITORY / "docs" / "networks.md").read_text(encoding="utf-8")
CELLS = {"channels": 36, "layers": 20}
# (name, classes, arguments) of every row of the page, and its parameters.
COUNTS: list[tuple[str, int, dict[str, Any], int]] = [
    ("wide_resnet40_2", 10, {}, 2_246_474),
    ("wide_resnet28_10", 10, {}, 36_489_290),
    ("shake_shake26_2x32d", 10, {}, 2_923_146),
    ("shake_shake26_2x96d", 10, {}, 26_192_906),
    ("shake_shake26_2x112d", 10, {}, 35_640_426),
    ("pyramidnet272_shakedrop", 10, {}, 26_210_842),
    ("resnet18", 10, {}, 11_173_962),
    ("resnet50", 1000, {}, 25_557_032),
    ("resnet50d", 1000, {}, 25_576_264),
    ("resnet200", 1000, {}, 64_673_832),
    ("seresnext101_32x4d", 1000, {}, 48_955_416),
    ("dpn92_cifar", 10, {}, 34_236_634),
    ("dpn92", 1000, {}, 37_668_392),
    ("amoebanet_b_6_128", 10, {}, 33_368_714),
    ("jointsearch_cells", 10, {"genotype": "DARTS_V2", **CELLS}, 3_349_342),
    ("jointsearch_cells", 10, {"genotype": "DARTS_V2", **CELLS, "auxiliary": True}, 3_825_768),
    ("jointsearch_cells", 10, {"genotype": "DARTS_V1", **CELLS}, 3_169_414),
    # Without an auxiliary head, whose size DARTS does not count.
    (
        "jointsearch_cells",
        1000,
        {"genotype": "DARTS_V2", "channels": 48, "layers": 14, "stem": "imagenet"},
        4_718_752,
    ),
]
# What S3, or a paper that it takes a network from, says in millions, to half a percent.
SAID = {
    "wide_resnet28_10": 36.48,
    "shake_shake26_2x96d": 26.2,
    "resnet50d": 25.58,
    "seresnext101_32x4d": 48.96,
    "dpn92_cifar": 34.23,
    "amoebanet_b_6_128": 33.4,
}
TINY: dict[str, Callable[..., nn.Module]] = {
    "shake_shake": lambda **given: shake_shake(8, 4, **given),
    "pyramid_net": lambda **given: pyramid_net(11, 6, **given),
    "dual_path": lambda **given: dual_path((Stage(2, 32, 8, 4), Stage(1, 32, 16, 4), Stage(2, 32, 16, 8)), **given),
    "amoebanet": lambda **given: amoebanet_b(1, 4, **given),
}
NAMES = sorted({name for name, *_ in COUNTS} - {"jointsearch_cells"})


def parameters(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def on_meta(name: str, classes: int = 10, **arguments: Any) -> nn.Module:
    with torch.device("meta"):
        if classes == 10:
            return create_network(name, classes, options=arguments)
        return timm.create_model(name, num_classes=classes, **arguments)


@pytest.mark.parametrize(("name", "classes", "arguments", "count"), COUNTS)
def test_a_network_of_a_paper_has_its_number_of_parameters(
    name: str, classes: int, arguments: dict[str, Any], count: int
) -> None:
    assert parameters(on_meta(name, classes, **arguments)) == count


def test_the_page_has_the_counts_of_all_networks() -> None:
    rows = re.findall(r"^\| [^|]* \| `(\w+)` \| (\d+) \| ([\d,]+) \|", PAGE, re.MULTILINE)
    assert [(name, int(classes), int(count.replace(",", ""))) for name, classes, count in rows] == [
        (name, classes, count) for name, classes, _, count in COUNTS
    ]
    for name, said in SAID.items():
        [count] = [count for other, _, _, count in COUNTS if other == name]
        assert count / 1e6 == pytest.approx(said, rel=0.005)
        assert f"{said}M" in PAGE


@pytest.mark.parametrize(("width", "released"), [(32, 2_989_002), (96, 26_777_546), (112, 36_435_402)])
def test_the_released_shake_shake_has_ours_and_nine_shortcuts_that_it_never_uses(width: int, released: int) -> None:
    with torch.device("meta"):
        spare = [TwoPathShortcut(one, one, 1) for one in (width, 2 * width, 4 * width) for _ in range(3)]
    unused = sum(map(parameters, spare))
    assert parameters(on_meta(f"shake_shake26_2x{width}d")) + unused == released
    assert f"{unused:,}" in PAGE


def test_the_pyramid_net_of_the_paper_counts_no_batch_norm_and_no_bias() -> None:
    weights = on_meta("pyramidnet272_shakedrop").parameters()
    assert sum(weight.numel() for weight in weights if weight.dim() > 1) == 25_999_968


@pytest.mark.parametrize(("name", "count"), [("dpn92", 35_006_282), ("seresnext101_32x4d", 46_926_906)])
def test_other_class_counts_of_the_page_are_those_of_timm(name: str, count: int) -> None:
    with torch.device("meta"):
        assert parameters(timm.create_model(name, num_classes=10)) == count
    assert f"{count:,}" in PAGE


def amoebanet_parameters(repeats: int, channels: int) -> int:
    """By hand: every convolution is followed by two numbers for each channel; a cell also has two 1x1 at its inputs."""
    conv = lambda before, after, size=1: size**2 * before * after + 2 * after  # noqa: E731
    depthwise = lambda width, size: size**2 * width + conv(width, width)  # noqa: E731
    before = last = 3 * channels
    total = conv(3, last, 3)
    for stack in range(3):
        width = channels * 2**stack
        if stack:  # 3x3, 1x1, a separable 3x3 of two halves, a dilated 5x5; two of five nodes are left over
            total += conv(before, width) + conv(last, width)
            total += conv(width, width, 3) + conv(width, width) + 2 * depthwise(width, 3) + depthwise(width, 5)
            before, last = last, 2 * width
        for _ in range(repeats):  # four 1x1 and two separable 3x3; three of five nodes are left over
            total += conv(before, width) + conv(last, width) + 4 * conv(width, width) + 4 * depthwise(width, 3)
            before, last = last, 3 * width
    return total + 10 * last + 10


@pytest.mark.parametrize(("repeats", "channels"), [(1, 4), (2, 36), (6, 128)])
def test_an_amoebanet_has_the_parameters_of_its_cells(repeats: int, channels: int) -> None:
    with torch.device("meta"):
        assert parameters(amoebanet_b(repeats, channels)) == amoebanet_parameters(repeats, channels)


def test_an_amoeba_cell_adds_two_edges_to_a_node_and_outputs_the_nodes_that_none_reads() -> None:
    assert (outputs(NORMAL), outputs(REDUCTION)) == ([3, 4, 6], [5, 6])
    for is_reduction in (False, True):
        body = AmoebaBody(4, is_reduction).eval()
        stride = 2 if is_reduction else 1
        before, last = torch.randn(2, 2, 4, 8, 8)
        found = body(before, last)
        assert found.shape == (2, 4 * len(outputs(body.nodes)), 8 // stride, 8 // stride)
        states = {0: before, 1: last}
        edges = iter(body.edges)
        for place, node in enumerate(body.nodes, start=2):
            states[place] = sum((next(edges)(states[source]) for _, source in node), start=torch.zeros(()))
        torch.testing.assert_close(found, torch.cat([states[place] for place in outputs(body.nodes)], 1))
    assert OPS["max_pool_2x2"](4, 2, True)(torch.rand(1, 4, 7, 8)).shape == (1, 4, 4, 4)


def test_the_paths_of_an_amoebanet_can_be_dropped() -> None:
    network = amoebanet_b(1, 4, drop_path_rate=0.25)
    rates = [module.rate for module in network.modules() if isinstance(module, DropPath)]
    edges = [name for nodes in 3 * [NORMAL] + 2 * [REDUCTION] for node in nodes for name, _ in node]
    assert rates == [0.25] * sum(name != "skip_connect" for name in edges)
    images = torch.rand(8, 3, 8, 8)
    assert not torch.equal(network(images), network(images))
    set_drop_path(network, 0.0)
    assert torch.equal(network(images), network(images))


def test_a_dual_path_block_adds_its_first_channels_and_keeps_all_others() -> None:
    stage = Stage(2, 32, 6, 3)
    block = DualPathBlock(12, stage, 1, is_first=False).eval()
    images = torch.randn(2, 12, 5, 5)
    found, branch = block(images), block.branch(images)
    assert found.shape == (2, 15, 5, 5)
    torch.testing.assert_close(found[:, :6], (images[:, :6] + branch[:, :6]).relu())
    torch.testing.assert_close(found[:, 6:12], images[:, 6:].relu())
    torch.testing.assert_close(found[:, 12:], branch[:, 6:].relu())


def gradients(network: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    return torch.autograd.grad(network(images).square().sum(), [images, *network.parameters()])


@pytest.mark.parametrize("kind", TINY)
def test_working_in_place_changes_neither_gradients_nor_images(kind: str, images: Tensor) -> None:
    network = TINY[kind]().double()
    given = images.double().requires_grad_()
    before = given.detach().clone()
    in_place = gradients(network, given)
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    torch.testing.assert_close(in_place, gradients(network, given))
    assert torch.equal(given, before)


@pytest.mark.parametrize("kind", TINY)
@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (2, 1, 28, 28), (2, 4, 11, 9)], ids=str)
def test_small_forms_train_on_any_image_from_8x8(kind: str, shape: tuple[int, ...]) -> None:
    network = TINY[kind](num_classes=7, in_chans=shape[1], drop_rate=0.5)
    logits = network(torch.rand(shape))
    assert logits.shape == (shape[0], 7)
    cross_entropy(logits, torch.zeros(shape[0], dtype=torch.long)).backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in network.parameters())
    assert sum(module.p for module in network.modules() if isinstance(module, nn.Dropout)) == 0.5


@pytest.mark.parametrize("kind", TINY)
def test_small_forms_say_almost_the_same_in_bf16_and_channels_last(kind: str, images: Tensor) -> None:
    network = TINY[kind]().eval()
    expected = network(images)
    network.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        found = network(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found.float(), expected, atol=0.05, rtol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_whole_network_takes_a_step(name: str) -> None:
    torch.manual_seed(0)
    network = create_network(name, 10, image_size=16)
    classifier = network.get_classifier()
    before = classifier.weight.detach().clone()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    loss = cross_entropy(network(torch.rand(2, 3, 16, 16)), torch.tensor([3, 7]))
    loss.backward()
    optimizer.step()
    assert loss.isfinite()
    assert all(weight.grad is not None for weight in network.parameters())
    assert all(weight.isfinite().all() for weight in network.parameters())
    torch.testing.assert_close(classifier.weight.detach(), before - 0.1 * classifier.weight.grad)
    assert not torch.equal(classifier.weight, before)


@pytest.mark.slow
@pytest.mark.long
def test_a_shake_shake_that_was_stopped_resumes_with_the_same_bits(tmp_path: Path) -> None:
    words = [
        "network=shake_shake26_2x32d",
        "dataset=digits",
        "dataset.reduced=60",
        "policy=trivialaugment",
        "device=cpu",
    ]
    words += ["controls=[]", "seeds=[0]", "recipe.epochs=3", "recipe.batch_size=20", "recipe.evaluate_every=1"]
    processes = forkserver()

    def start(folder: str) -> Any:
        child = processes.Process(target=retrain, args=(*words, f"run={tmp_path / folder}"))
        child.start()
        return child

    whole, stopped = start("whole"), start("stopped")
    wait_for(tmp_path / "stopped" / "trivialaugment" / "seed0" / "metrics.jsonl")
    os.kill(stopped.pid, signal.SIGTERM)
    for child, code in ((stopped, 128 + signal.SIGTERM), (whole, 0)):
        child.join(240)
        assert child.exitcode == code
    assert not list((tmp_path / "stopped").rglob("result.json"))
    again = start("stopped")
    again.join(240)
    assert again.exitcode == 0
    assert same(final_state(tmp_path / "stopped"), final_state(tmp_path / "whole"))


def retrain(*words: str) -> None:
    torch.set_num_threads(1)
    os._exit(run_script("retrain", *words))
