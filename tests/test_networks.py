import itertools
import math

import pytest
import timm
import torch
from timm.models import model_entrypoint
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy
from torch.utils.flop_counter import FlopCounterMode

import jointsearch.networks  # noqa: F401  (importing the package is what registers the networks)
from jointsearch.networks.create import create_network
from jointsearch.networks.small_images import SMALL, small_image_stem, small_patch_size
from jointsearch.networks.wide_resnet import WideBlock
from search_spaces.errors import InputError

OURS = [name for name in timm.list_models() if model_entrypoint(name).__module__.startswith("jointsearch.networks")]
OURS.remove(SMALL)  # a form of timm's
# Their blocks train in small forms, in tests/test_networks_of_papers.py.
LARGE = {
    "amoebanet_b_6_128",
    "dpn92_cifar",
    "pyramidnet272_shakedrop",
    "shake_shake26_2x112d",
    "shake_shake26_2x96d",
    "wide_resnet28_10",
}
IMAGENET = [
    "resnet18",
    "resnet14t",
    "regnetx_002",
    "efficientnet_b0",
    "tf_efficientnet_b0",
    "mobilenetv3_small_050",
]


def parameters(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


def wide_resnet_parameters(depth: int, width: int, classes: int) -> int:
    """Counted from the paper's table 1, by hand: convolutions with bias, two numbers per normalized channel."""
    conv = lambda size, before, after: size * size * before * after + after  # noqa: E731
    channels = [16, 16 * width, 32 * width, 64 * width]
    total = conv(3, 3, 16)
    for before, after in itertools.pairwise(channels):
        blocks = (depth - 4) // 6
        total += 2 * before + conv(3, before, after) + 2 * after + conv(3, after, after)
        total += conv(1, before, after) if before != after else 0
        total += (blocks - 1) * 2 * (2 * after + conv(3, after, after))
    return total + 2 * channels[-1] + channels[-1] * classes + classes


def test_all_our_networks_are_known_to_timm() -> None:
    small = {"jointsearch_cells", "shake_shake26_2x32d", "tiny_cnn", "tiny_mlp"}
    wide = {"wide_resnet16_1", "wide_resnet16_2", "wide_resnet40_2"}
    assert set(OURS) == small | wide | LARGE


@pytest.mark.parametrize(("depth", "width"), [(16, 1), (16, 2), (40, 2)])
@pytest.mark.parametrize("classes", [10, 100])
def test_a_wide_resnet_has_the_parameters_of_the_papers_table(depth: int, width: int, classes: int) -> None:
    model = timm.create_model(f"wide_resnet{depth}_{width}", num_classes=classes)
    assert parameters(model) == wide_resnet_parameters(depth, width, classes)


@pytest.mark.parametrize(("channels", "stride"), [(4, 1), (6, 1), (6, 2)])
def test_a_wide_block_is_the_formula_of_the_paper(channels: int, stride: int) -> None:
    block = WideBlock(4, channels, stride, drop_rate=0.0).eval()
    images = torch.randn(2, 4, 8, 8)
    unit = math.sqrt(1 + 1e-5)  # a fresh BatchNorm in evaluation divides by this
    activated = (images / unit).relu()
    hidden = conv2d(activated, block.conv1.weight, block.conv1.bias, stride, padding=1)
    expected = conv2d((hidden / unit).relu(), block.conv2.weight, block.conv2.bias, padding=1)
    if block.shortcut is None:
        assert (channels, stride) == (4, 1)
        expected += images
    else:
        expected += conv2d(activated, block.shortcut.weight, block.shortcut.bias, stride)
    torch.testing.assert_close(block(images), expected)


def test_a_wide_resnet_multiplies_as_often_as_the_papers_table_says() -> None:
    # WRN-16-1 at 32x32, first block of a stage at the stage's resolution: stride sits in its first convolution.
    at = {32: 9 * 3 * 16 + 4 * 9 * 16 * 16, 16: 9 * 16 * 32 + 3 * 9 * 32 * 32 + 16 * 32}
    at[8] = 9 * 32 * 64 + 3 * 9 * 64 * 64 + 32 * 64
    expected = 2 * (sum(size * size * macs for size, macs in at.items()) + 64 * 10)
    with FlopCounterMode(display=False) as counter:
        create_network("wide_resnet16_1", 10).eval()(torch.zeros(1, 3, 32, 32))
    assert counter.get_total_flops() == expected


def test_the_tiny_network_is_tiny() -> None:
    assert parameters(create_network("tiny_cnn", 10)) < 50_000


@pytest.mark.parametrize("name", [name for name in OURS if name not in LARGE])
@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (2, 1, 28, 28), (1, 4, 11, 9)], ids=str)
def test_our_networks_train_on_any_image_from_8x8_even_alone(name: str, shape: tuple[int, ...]) -> None:
    model = create_network(name, num_classes=7, in_chans=shape[1], image_size=min(shape[2:]))
    logits = model(torch.rand(shape))
    assert logits.shape == (shape[0], 7)
    cross_entropy(logits, torch.zeros(shape[0], dtype=torch.long)).backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())


@pytest.mark.parametrize("name", OURS)
def test_our_feature_maps_have_the_channels_and_sizes_they_declare(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, features_only=True).eval()
        maps = model(torch.rand(1, 3, 16, 16))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (channels, 16 // reduction, 16 // reduction)
        for channels, reduction in zip(model.feature_info.channels(), model.feature_info.reduction(), strict=True)
    ]


@pytest.mark.parametrize("name", ["tiny_cnn", "wide_resnet16_1"])
def test_features_only_gives_the_maps_of_the_whole_network(name: str, images: Tensor) -> None:
    torch.manual_seed(0)
    whole = timm.create_model(name).eval()
    torch.manual_seed(0)
    last = timm.create_model(name, features_only=True).eval()(images)[-1]
    torch.testing.assert_close(last, whole.forward_features(images))


@pytest.mark.parametrize("name", ["tiny_cnn", "wide_resnet16_1"])
def test_a_network_takes_itself_apart_as_timm_networks_do(name: str, images: Tensor) -> None:
    model = timm.create_model(name, num_classes=10).eval()
    features = model.forward_features(images)
    pooled = model.forward_head(features, pre_logits=True)
    torch.testing.assert_close(pooled, features.mean((2, 3)))
    torch.testing.assert_close(model.get_classifier()(pooled), model(images))
    model.reset_classifier(5)
    assert model.num_classes == 5
    assert model(images).shape == (8, 5)
    model.reset_classifier(0)
    torch.testing.assert_close(model(images), pooled)


@pytest.mark.parametrize("name", ["tiny_cnn", "wide_resnet16_1"])
def test_working_in_place_changes_neither_gradients_nor_images(name: str, images: Tensor) -> None:
    model = create_network(name, 10).double()
    given = images.double().requires_grad_()
    before = given.detach().clone()

    def gradients() -> tuple[Tensor, ...]:
        return torch.autograd.grad(model(given).square().sum(), [given, *model.parameters()])

    in_place = gradients()
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    torch.testing.assert_close(in_place, gradients())
    assert torch.equal(given, before)


@pytest.mark.parametrize("name", ["tiny_cnn", "wide_resnet16_1"])
def test_half_precision_in_channels_last_gives_nearly_the_same_logits(name: str, images: Tensor) -> None:
    model = create_network(name, 10).eval()
    expected = model(images)
    model = model.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(logits.float(), expected, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("name", ["tiny_cnn", "wide_resnet16_1", "resnet10t"])
def test_dropout_acts_in_training_only(name: str, images: Tensor) -> None:
    model = create_network(name, 10, drop_rate=0.5)
    first, second = (model(images) for _ in range(2))
    assert not torch.equal(first, second)
    model.eval()
    assert torch.equal(model(images), model(images))


def test_a_wide_resnet_drops_between_the_convolutions_of_every_block() -> None:
    model = create_network("wide_resnet16_1", 10, drop_rate=0.3)
    rates = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    assert sorted(rates) == [0.0] + [0.3] * 6  # the classifier's own stays off


def test_convolutions_start_with_the_variance_of_he_and_no_bias() -> None:
    conv = create_network("wide_resnet28_10", 10).get_submodule("stage3.0.conv1")
    assert isinstance(conv, nn.Conv2d)
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 640)), rel=0.01)
    assert conv.bias is not None
    assert not conv.bias.any()


def test_the_tiny_network_learns_eight_images_by_heart(images: Tensor) -> None:
    torch.manual_seed(0)
    model = create_network("tiny_cnn", 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(40):
        optimizer.zero_grad()
        loss = cross_entropy(model(images), torch.arange(8))
        loss.backward()
        optimizer.step()
    assert loss < 0.05


@pytest.mark.parametrize("name", IMAGENET)
@pytest.mark.parametrize("size", [8, 28, 32, 64])
def test_an_imagenet_network_ends_in_a_4x4_map_for_small_images(name: str, size: int) -> None:
    model = create_network(name, 10, in_chans=1, image_size=size).eval()
    features = model.forward_features(torch.rand(1, 1, size, size))
    assert features.shape[-2:] == (4, 4)
    assert model.forward_head(features).shape == (1, 10)


@pytest.mark.parametrize("size", [11, 20, 24, 40, 63])
def test_no_more_is_taken_out_than_4x4_needs(size: int) -> None:
    model = create_network("mobilenetv3_small_050", 10, image_size=size).eval()
    assert 4 <= model.forward_features(torch.rand(1, 3, size, size)).shape[-1] <= 7


@pytest.mark.parametrize("name", IMAGENET)
def test_the_small_form_keeps_its_feature_information_true(name: str) -> None:
    model = create_network(name, 10)
    sizes = {}
    for level in model.feature_info:
        module = model.get_submodule(level["module"])
        module.register_forward_hook(lambda _, __, out, name=level["module"]: sizes.update({name: out.shape[-1]}))
    model.eval()(torch.rand(1, 3, 32, 32))
    assert sizes == {level["module"]: 32 // level["reduction"] for level in model.feature_info}


def test_the_small_form_of_resnet18_is_the_one_known_from_cifar() -> None:
    model = create_network("resnet18", 10, image_size=32)
    assert model.conv1.kernel_size == (3, 3)
    assert model.conv1.stride == (1, 1)
    assert isinstance(model.maxpool, nn.Identity)


def test_the_small_form_leaves_weights_buffers_and_mode_alone() -> None:
    model = timm.create_model("efficientnet_b0")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    small_image_stem(model, 32)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_large_images_meet_the_network_as_timm_made_it() -> None:
    model = create_network("resnet18", 10, image_size=96)
    assert model.conv1.kernel_size == (7, 7)
    assert isinstance(model.maxpool, nn.MaxPool2d)


@pytest.mark.parametrize(("size", "patches"), [(32, 8), (64, 8), (28, 14), (8, 8), (96, 6)])
def test_a_vision_transformer_is_made_for_the_image(size: int, patches: int) -> None:
    model = create_network("vit_tiny_patch16_224", 10, image_size=size)
    assert model.patch_embed.grid_size == (patches, patches)
    assert model(torch.rand(2, 3, size, size)).shape == (2, 10)


@pytest.mark.parametrize("size", range(8, 65))
def test_a_small_patch_divides_the_image_into_8x8_or_more(size: int) -> None:
    patch = small_patch_size(size)
    assert size % patch == 0
    assert size // patch >= 8


@pytest.mark.parametrize(
    ("name", "size", "reason"),
    [
        ("convnext_atto", 32, "patches of 4x4"),
        ("swin_tiny_patch4_window7_224", 32, "one image size"),
        ("resnetblur50", 32, "2x2 feature map"),
        ("hrnet_w18_small", 28, "does not run on 28x28"),
        ("resnet81", 32, "did you mean resnet18"),
        ("wide_resnet_40_2", 32, "did you mean wide_resnet40_2"),
        ("hf-hub:someone/something", 32, "is not known"),
        ("qqqqqqqqqqqq", 32, "use wide_resnet40_2"),
        ("tiny_cnn", 7, "image_size=7"),
    ],
)
def test_a_network_that_cannot_be_is_refused_in_one_line_with_a_remedy(name: str, size: int, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as error:
        create_network(name, 10, image_size=size)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", [{"num_classes": 0}, {"in_chans": 0}, {"drop_rate": 1.0}, {"drop_rate": -0.1}])
def test_numbers_out_of_range_are_refused_by_name(wrong: dict[str, float]) -> None:
    (key,) = wrong
    with pytest.raises(InputError, match=key):
        create_network("tiny_cnn", **{"num_classes": 10, **wrong})
