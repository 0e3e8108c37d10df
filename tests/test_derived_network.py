"""The network of a genotype: the published sizes, drop path, the auxiliary head, and what timm expects of a network."""

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy, max_pool2d

import jointsearch.networks  # noqa: F401  (importing the package is what registers the networks)
from search_spaces.cells.derive import derive
from search_spaces.cells.derived import DerivedBody, DropPath, derived_network, set_drop_path
from search_spaces.cells.skeleton import CellNetwork, Skeleton
from search_spaces.cells.space import CELL_SPACES, DARTS
from search_spaces.errors import InputError
from search_spaces.genotype import PUBLISHED, Edge, Genotype

SMALLEST = Skeleton(channels=2, layers=3)


def cells(genotype: Genotype | str = "DARTS_V2", **kwargs: object) -> nn.Module:
    return timm.create_model("jointsearch_cells", genotype=genotype, **{"channels": 4, "layers": 3, **kwargs})


def parameters(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


CIFAR, IMAGENET = (
    {"channels": 36, "layers": 20},
    {"channels": 48, "layers": 14, "num_classes": 1000, "stem": "imagenet"},
)


@pytest.mark.parametrize(("genotype", "kwargs", "millions"), [("CIFAR", CIFAR, 3.6), ("IMAGENET", IMAGENET, 5.3)])
def test_pc_darts_has_the_size_its_paper_rounds(genotype: str, kwargs: dict[str, object], millions: float) -> None:
    with torch.device("meta"):
        assert round(parameters(cells(f"PC_DARTS_{genotype}", **kwargs)) / 1e6, 1) == millions


@pytest.mark.parametrize("name", [*PUBLISHED, "a random one"])
def test_json_and_darts_text_lead_to_the_same_network(name: str, tmp_path: Path) -> None:
    genotype = PUBLISHED.get(name) or derive(DARTS, *torch.rand(2, 14, 8))
    genotype.save(tmp_path / "genotype.json")
    (tmp_path / "genotype.txt").write_text(genotype.to_darts())
    shapes = [
        {key: value.shape for key, value in cells(given).state_dict().items()}
        for given in (genotype, str(tmp_path / "genotype.json"), tmp_path / "genotype.txt")
    ]
    assert shapes[0] == shapes[1] == shapes[2]
    assert list(shapes[0]) == list(shapes[1]) == list(shapes[2])


def test_a_node_is_the_sum_of_its_edges_and_a_cell_all_its_nodes() -> None:
    top, mean, skip = (
        lambda source, op=op: Edge(op, source) for op in ("max_pool_3x3", "avg_pool_3x3", "skip_connect")
    )
    genotype = Genotype(
        normal=((top(1), mean(0)), (skip(2), top(0)), (mean(3), skip(1))),
        reduction=((top(1), mean(0)), (skip(2), top(0)), (mean(3), top(1))),
    )
    before, last = torch.randn(2, 2, 4, 7, 7)

    def expected(stride: int) -> Tensor:
        pool = lambda x, s: max_pool2d(x, 3, s, 1)  # noqa: E731
        average = lambda x, s: avg_pool2d(x, 3, s, 1, count_include_pad=False)  # noqa: E731
        first = pool(last, stride) + average(before, stride)
        second = first + pool(before, stride)
        return torch.cat([first, second, average(second, 1) + (last if stride == 1 else pool(last, 2))], 1)

    for stride in (1, 2):
        torch.testing.assert_close(DerivedBody(genotype, 4, stride == 2)(before, last), expected(stride))


def test_drop_path_drops_whole_images_and_scales_the_others_up() -> None:
    torch.manual_seed(0)
    dropped = DropPath(0.2)(torch.ones(2000, 2, 3, 3))
    assert torch.equal(dropped, dropped[:, :1, :1, :1].expand_as(dropped))
    assert sorted(dropped.unique().tolist()) == [0.0, 1.25]
    # 5 standard errors of a mean of 2000 draws: sqrt(.2 * .8 / 2000) / .8
    assert dropped.mean().item() == pytest.approx(1, abs=5 * 0.0112)


def test_drop_path_spares_edges_that_pass_on_what_they_got() -> None:
    torch.manual_seed(0)
    pair = (Edge("skip_connect", 0), Edge("skip_connect", 1))
    body = DerivedBody(Genotype((pair,), (pair,)), 4, is_reduction=False)
    set_drop_path(body, 0.99)
    before, last = torch.randn(2, 8, 4, 5, 5)
    assert torch.equal(body(before, last), before + last)
    reduction = DerivedBody(Genotype((pair,), (pair,)), 4, is_reduction=True)
    set_drop_path(reduction, 0.99)
    assert not reduction(before, last)[:2].any()  # a skip of stride 2 convolves, and is dropped like any other


def test_drop_path_acts_in_training_only_and_its_rate_can_change(images: Tensor) -> None:
    network = cells(drop_path_rate=0.5)
    plain = cells().eval()
    plain.load_state_dict(network.state_dict())
    assert not torch.equal(network(images), network(images))
    set_drop_path(network, 0.0)
    assert torch.equal(network(images), network(images))
    set_drop_path(network, 0.5)
    plain.load_state_dict(network.state_dict())
    assert torch.equal(network.eval()(images), plain(images))


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, float("nan")])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(InputError, match="drop_path_rate="):
        derived_network(PUBLISHED["DARTS_V2"], SMALLEST, drop_path_rate=rate)


def test_the_auxiliary_head_adds_logits_and_changes_nothing_else(images: Tensor) -> None:
    network, plain = cells(auxiliary=True), cells()
    plain.load_state_dict(network.state_dict(), strict=False)
    logits, auxiliary = network.forward_with_auxiliary(images)
    assert auxiliary.shape == logits.shape == (8, 10)
    assert torch.equal(logits, plain(images))
    gradients = torch.autograd.grad(auxiliary.square().sum(), list(network.parameters()), allow_unused=True)
    reached = {name for (name, _), g in zip(network.named_parameters(), gradients, strict=True) if g is not None}
    # The second reduction, cell 2 * 3 // 3 = 2, is the last of 3 cells: all but the classifier.
    assert {name for name, _ in network.named_parameters()} - reached == {"classifier.weight", "classifier.bias"}


def test_the_auxiliary_head_reads_the_second_reduction(images: Tensor) -> None:
    network = cells(auxiliary=True, layers=6)
    seen: dict[str, Tensor] = {}
    network.cells[4].register_forward_hook(lambda _, __, out: seen.update(cell=out))
    network.auxiliary.register_forward_hook(lambda _, given, __: seen.update(head=given[0]))
    network.forward_with_auxiliary(images)
    assert network.skeleton.reductions == (2, 4)
    assert seen["cell"] is seen["head"]
    assert seen["head"].shape[-2:] == (8, 8)


def test_evaluation_never_runs_the_auxiliary_head_and_it_can_be_taken_off(images: Tensor) -> None:
    network = cells(auxiliary=True).eval()
    network.auxiliary.register_forward_pre_hook(lambda *_: pytest.fail("the auxiliary head ran"))
    before = network(images)
    network.auxiliary = None
    assert network.state_dict().keys() == cells().state_dict().keys()
    assert torch.equal(network(images), before)
    with pytest.raises(InputError, match="build it with auxiliary=True"):
        network.forward_with_auxiliary(images)


@pytest.mark.parametrize(("stem", "size", "smallest"), [("cifar", 32, 8), ("imagenet", 224, 7)])
def test_the_auxiliary_head_takes_the_maps_of_darts_and_larger_ones_and_refuses_smaller(
    stem: str, size: int, smallest: int
) -> None:
    network = derived_network(PUBLISHED["DARTS_V1"], Skeleton(2, 3, stem=stem), auxiliary=True)
    head = network.auxiliary
    assert isinstance(head, nn.Module)
    assert head.layers(torch.rand(2, 32, smallest, smallest)).shape == (2, 768, 1, 1)
    assert head(torch.rand(2, 32, 2 * smallest, smallest)).shape == (2, 10)
    with pytest.raises(
        InputError, match=f"{smallest - 1}x9 maps and needs {smallest}x{smallest}.*; give larger"
    ) as error:
        head(torch.rand(2, 32, smallest - 1, 9))
    assert "\n" not in str(error.value)
    assert network.forward_with_auxiliary(torch.rand(2, 3, size, size))[1].shape == (2, 10)


@pytest.mark.parametrize("space", CELL_SPACES.values(), ids=CELL_SPACES.keys())
@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (2, 3, 9, 13), (1, 3, 32, 32)], ids=str)
def test_a_derived_network_trains_on_small_images(space: object, shape: tuple[int, ...]) -> None:
    size = len(space.edges), len(space.ops)
    genotype = derive(space, *torch.rand(2, *size, generator=torch.Generator().manual_seed(1)))
    network = derived_network(genotype, Skeleton(channels=4, layers=4, num_classes=7, in_chans=shape[1]))
    logits = network(torch.rand(shape))
    cross_entropy(logits, torch.zeros(shape[0], dtype=torch.long)).backward()
    assert logits.shape == (shape[0], 7)
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in network.parameters())


@pytest.mark.parametrize(("stem", "indices"), [("cifar", 3), ("cifar", (0, 1)), ("imagenet", 3), ("imagenet", (0, -1))])
def test_features_only_gives_the_last_map_of_every_size(stem: str, indices: int | tuple[int, ...]) -> None:
    whole = cells(layers=6, stem=stem, auxiliary=True).eval()
    features = cells(layers=6, stem=stem, auxiliary=True, features_only=True, out_indices=indices).eval()
    features.network.load_state_dict(whole.state_dict(), strict=False)
    x = torch.rand(1, 3, 64, 64)
    found = features(x)
    info = features.feature_info
    sizes = [(1, c, 64 // r, 64 // r) for c, r in zip(info.channels(), info.reduction(), strict=True)]
    assert [tuple(each.shape) for each in found] == sizes
    maps: dict[str, Tensor] = {}
    for name in info.module_name():
        whole.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: maps.update({name: out}))
    whole(x)
    assert all(torch.equal(mine, maps[name]) for mine, name in zip(found, info.module_name(), strict=True))
    assert not any(name.startswith(("auxiliary", "classifier")) for name, _ in features.network.named_parameters())


@pytest.mark.parametrize(("stem", "reductions"), [("cifar", [1, 2, 4]), ("imagenet", [8, 16, 32])])
def test_features_only_gives_three_sizes_unless_told_otherwise(stem: str, reductions: list[int]) -> None:
    assert cells(stem=stem, features_only=True).feature_info.reduction() == reductions


def test_features_only_keeps_no_cell_behind_the_last_map() -> None:
    features = cells(layers=6, features_only=True, out_indices=(1,))
    assert len(features.network.cells) == 4  # the fifth is the second reduction
    assert features.feature_info.channels() == [32]


def test_a_network_takes_itself_apart_as_timm_networks_do(images: Tensor) -> None:
    network = cells(num_classes=10, auxiliary=True).eval()
    features = network.forward_features(images)
    pooled = network.forward_head(features, pre_logits=True)
    torch.testing.assert_close(pooled, features.mean((2, 3)))
    torch.testing.assert_close(network.get_classifier()(pooled), network(images))
    assert pooled.shape == (8, network.num_features)
    network.reset_classifier(5)
    assert [logits.shape for logits in network.forward_with_auxiliary(images)] == [(8, 5)] * 2
    network.reset_classifier(0)
    torch.testing.assert_close(network(images), pooled)


def test_dropout_sits_before_the_classifier_and_acts_in_training_only(images: Tensor) -> None:
    network = cells(drop_rate=0.5)
    features = network.forward_features(images)
    pooled = features.mean((2, 3))
    dropped = network.forward_head(features, pre_logits=True)
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], 2 * pooled[kept])
    assert 0.3 < kept.float().mean() < 0.7
    network.eval()
    assert torch.equal(network(images), network(images))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"genotype": "DARTS_V3"}, "did you mean DARTS_V"),
        ({"genotype": "none.json"}, "is not there"),
        ({"layers": 2}, "layers=2"),
        ({"stem": "resnet"}, "did you mean imagenet"),
        ({"drop_path_rate": 1.0}, "drop_path_rate=1.0"),
    ],
)
def test_wrong_arguments_give_one_line(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        cells(**wrong)
    assert "\n" not in str(error.value)


def test_a_mistyped_argument_is_not_ignored() -> None:
    with pytest.raises(TypeError, match="layer"):
        cells(layer=8)


def test_a_network_can_be_exported() -> None:
    pair = (Edge("skip_connect", 0), Edge("sep_conv_3x3", 1))
    network = derived_network(Genotype((pair,), (pair,)), SMALLEST, drop_path_rate=0.2).eval()
    assert isinstance(network, CellNetwork)
    x = torch.rand(2, 3, 16, 16)
    exported = torch.export.export(network, (x,)).module()
    torch.testing.assert_close(exported(x), network(x))
