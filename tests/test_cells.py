"""The ops on the edges of a cell, the spaces they make up, and the skeleton that a network and a supernet share."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, max_pool2d

from search_spaces.cells.ops import CELL_OPS, FactorizedReduce
from search_spaces.cells.skeleton import CellNetwork, Skeleton
from search_spaces.cells.space import CELL_SPACES, DARTS, SMALL, CellSpace
from search_spaces.errors import InputError

SIZES = [(8, 8), (7, 9), (5, 4), (1, 1)]
UNIT = math.sqrt(1 + 1e-5)  # a fresh BatchNorm in evaluation divides by this


def maps(*size: int) -> Tensor:
    return torch.randn(2, 6, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", CELL_OPS)
def test_an_op_keeps_channels_divides_sides_by_its_stride_and_has_a_gradient(
    name: str, size: tuple[int, int], stride: int, affine: bool
) -> None:
    op = CELL_OPS[name](6, stride, affine)
    x = maps(*size).requires_grad_()
    before = x.detach().clone()
    y = op(x)
    assert y.shape == (2, 6, *(math.ceil(side / stride) for side in size))
    (gradient,) = torch.autograd.grad((y * y.detach().cos()).sum(), x)
    assert gradient.isfinite().all()
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", CELL_OPS)
def test_only_affine_ops_have_scales_and_shifts(name: str) -> None:
    for affine in (True, False):
        norms = [m for m in CELL_OPS[name](6, 2, affine).modules() if isinstance(m, nn.BatchNorm2d)]
        assert all((norm.weight is not None) == affine for norm in norms)


@pytest.mark.parametrize("stride", [1, 2])
def test_none_gives_zeros(stride: int) -> None:
    assert not CELL_OPS["none"](6, stride, True)(maps(7, 8)).any()


def test_skip_at_stride_one_hands_on_what_it_got() -> None:
    x = maps(5, 5)
    assert torch.equal(CELL_OPS["skip_connect"](6, 1, True)(x), x)


@pytest.mark.parametrize("stride", [1, 2])
def test_pooling_is_normalized_in_a_supernet_only_and_does_not_count_the_border(stride: int) -> None:
    x = maps(7, 8)
    ones = avg_pool2d(torch.ones_like(x), 3, stride, 1)
    expected = {
        "max_pool_3x3": max_pool2d(x, 3, stride, 1),
        "avg_pool_3x3": avg_pool2d(x, 3, stride, 1) / ones,  # zeros of the border divided out again
    }
    for name, pooled in expected.items():
        torch.testing.assert_close(CELL_OPS[name](6, stride, True)(x), pooled)
        searched = CELL_OPS[name](6, stride, False)(x)
        mean, variance = pooled.mean((0, 2, 3), keepdim=True), pooled.var((0, 2, 3), correction=0, keepdim=True)
        torch.testing.assert_close(searched, (pooled - mean) / (variance + 1e-5).sqrt())


@pytest.mark.parametrize("size", [(8, 8), (7, 9)], ids=str)
def test_factorized_reduce_sees_even_and_odd_pixels_once_each(size: tuple[int, int]) -> None:
    op = FactorizedReduce(6, 5, affine=True).eval()
    x = maps(*size)
    height, width = (math.ceil(side / 2) for side in size)
    padded = torch.zeros(2, 6, 2 * height, 2 * width)  # an odd side ends in zeros
    padded[:, :, : size[0], : size[1]] = x.relu()
    even = torch.einsum("bchw,oc->bohw", padded[:, :, ::2, ::2], op.even.weight[:, :, 0, 0])
    odd = torch.einsum("bchw,oc->bohw", padded[:, :, 1::2, 1::2], op.odd.weight[:, :, 0, 0])
    assert (even.shape[1], odd.shape[1]) == (2, 3)
    torch.testing.assert_close(op(x), torch.cat([even, odd], 1) / UNIT)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("name", "kernel", "dilation"), [("sep", 3, 1), ("sep", 5, 1), ("dil", 3, 2), ("dil", 5, 2)])
def test_separable_and_dilated_convolutions_are_the_formula_of_darts(
    name: str, kernel: int, dilation: int, stride: int
) -> None:
    op = CELL_OPS[f"{name}_conv_{kernel}x{kernel}"](6, stride, True).eval()
    convolutions = [weight for weight in op.state_dict().values() if weight.dim() == 4]
    assert len(convolutions) == (4 if name == "sep" else 2)
    x, step = maps(9, 8), stride
    for depthwise, pointwise in zip(convolutions[::2], convolutions[1::2], strict=True):
        assert depthwise.shape == (6, 1, kernel, kernel)
        x = conv2d(x.relu(), depthwise, None, step, dilation * (kernel // 2), dilation, groups=6)
        x, step = conv2d(x, pointwise) / UNIT, 1
    torch.testing.assert_close(op(maps(9, 8)), x)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_convolutions_of_nas_bench_201_are_relu_conv_norm(kernel: int, stride: int) -> None:
    op = CELL_OPS[f"nor_conv_{kernel}x{kernel}"](6, stride, True).eval()
    expected = conv2d(maps(7, 7).relu(), op[1].weight, None, stride, kernel // 2) / UNIT
    torch.testing.assert_close(op(maps(7, 7)), expected)


def test_the_darts_space_has_the_ops_edges_and_cells_of_the_paper() -> None:
    assert len(DARTS.ops) == 8
    assert DARTS.ops[0] == "none"
    assert [len([e for e in DARTS.edges if e[0] == node]) for node in range(4)] == [2, 3, 4, 5]
    assert len(DARTS.edges) == 14
    # Pairs of sources 1 * 3 * 6 * 10, and 7 ops on each of 8 edges; two cells.
    assert DARTS.size == (180 * 7**8) ** 2 == 1_037_664_180**2


def test_the_small_space_has_as_many_genotypes_as_can_be_listed() -> None:
    def cells(node: int) -> int:
        sources = itertools.combinations(range(node + 2), 2)
        return len(list(itertools.product(sources, SMALL.choices, SMALL.choices)))

    assert SMALL.nodes == 2
    assert SMALL.ops == ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
    assert SMALL.size == (cells(0) * cells(1)) ** 2 == 768**2


def test_edges_come_node_by_node_and_source_by_source() -> None:
    assert SMALL.edges == ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2))
    assert CELL_SPACES == {"darts": DARTS, "small": SMALL}


@pytest.mark.parametrize(
    ("ops", "nodes", "said"),
    [
        (("none", "sep_conv3x3"), 2, "did you mean sep_conv_3x3"),
        (("none",), 2, "at least one besides none"),
        ((), 2, "ops are missing"),
        (("skip_connect", "skip_connect"), 2, "name each once"),
        (("skip_connect",), 0, "nodes is 0; wanted a whole number from 1 to 16"),
        (("skip_connect",), True, "nodes is True"),
    ],
)
def test_a_space_that_cannot_be_is_refused(ops: tuple[str, ...], nodes: int, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        CellSpace(ops, nodes, "mine")
    assert "\n" not in str(error.value)


class Recorder(nn.Module):
    """A body of two nodes that remembers what it was given."""

    def __init__(self, channels: int, is_reduction: bool) -> None:
        super().__init__()
        self.channels, self.stride = channels, 1 + is_reduction
        self.given: list[object] = []

    def forward(self, before: Tensor, last: Tensor, mixture: object) -> Tensor:
        assert before.shape == last.shape
        self.given.append((before.shape[1:], mixture))
        both = torch.cat([before, last], 1)
        return both[:, :, :: self.stride, :: self.stride]


@pytest.mark.parametrize(
    ("stem", "size", "sides"),
    [
        ("cifar", (32, 32), [(32, 32)] * 3 + [(16, 16)] * 3 + [(8, 8)] * 2),
        ("cifar", (11, 8), [(11, 8)] * 3 + [(6, 4)] * 3 + [(3, 2)] * 2),
        ("imagenet", (64, 72), [(8, 9)] * 3 + [(4, 5)] * 3 + [(2, 3)] * 2),
    ],
)
def test_cells_get_both_maps_in_one_form_and_their_own_mixture(
    stem: str, size: tuple[int, int], sides: list[tuple[int, int]]
) -> None:
    network = CellNetwork(Skeleton(channels=4, layers=8, stem=stem), nodes=2, make_body=Recorder, affine=False)
    logits = network(torch.randn(2, 3, *size), ("for normal", "for reduction"))
    assert logits.shape == (2, 10)
    for place, cell in enumerate(network.cells):
        is_reduction = place in (2, 5)  # 8 // 3 and 16 // 3
        channels = 4 * 2 ** ((place >= 2) + (place >= 5))
        mixture = "for reduction" if is_reduction else "for normal"
        assert cell.body.stride == 1 + is_reduction
        assert cell.body.channels == channels
        assert cell.body.given == [((channels, *sides[place]), mixture)]


def test_a_skeleton_without_affine_keeps_scales_in_its_stem_only() -> None:
    network = CellNetwork(Skeleton(channels=4), nodes=2, make_body=Recorder, affine=False)
    with_scale = [name for name, m in network.named_modules() if isinstance(m, nn.BatchNorm2d) and m.affine]
    assert with_scale == ["stem.norm"]
    assert network.stem.norm.num_features == 12  # three times the channels


def test_what_the_feature_info_names_is_the_last_map_of_its_size() -> None:
    for stem, reductions in (("cifar", [1, 2, 4]), ("imagenet", [4, 8, 16, 32])):
        network = CellNetwork(Skeleton(channels=4, layers=5, stem=stem), nodes=2, make_body=Recorder)
        assert [level["reduction"] for level in network.feature_info] == reductions
        assert [level["module"] for level in network.feature_info][-3:] == ["cells.0", "cells.2", "cells.4"]


@pytest.mark.parametrize(
    ("measures", "said"),
    [
        ({"channels": 1}, "channels=1"),
        ({"layers": 2}, "layers=2"),
        ({"layers": 8.0}, r"layers=8\.0"),
        ({"num_classes": -1}, "num_classes=-1"),
        ({"in_chans": True}, "in_chans=True"),
        ({"stem": "image_net"}, "did you mean imagenet"),
    ],
)
def test_measures_that_cannot_be_are_refused(measures: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        Skeleton(**measures)
    assert "\n" not in str(error.value)


def test_dilated_convolutions_stay_in_float32_on_a_cpu() -> None:
    dilated, separable = (CELL_OPS[name](4, 1, True)[1] for name in ("dil_conv_3x3", "sep_conv_3x3"))
    images = torch.rand(2, 4, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert dilated(images.bfloat16()).dtype == torch.float32
        assert separable(images).dtype == torch.bfloat16
