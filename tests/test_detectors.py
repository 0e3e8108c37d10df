"""Detectors on any backbone: they build and take a step, and are the published ones where they should be."""

import copy
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import detection as published

from jointsearch.data.object_sets import ObjectSet
from jointsearch.data.object_shapes import DrawnSource, draw_pictures
from jointsearch.data.sets import Batch
from jointsearch.data.shapes import CLASSES
from jointsearch.data.standard import Standard, normalized
from jointsearch.networks.create import create_network
from jointsearch.networks.detectors import FasterRcnn, MaskRcnn, RetinaNet
from jointsearch.networks.features import FeatureMaps
from jointsearch.networks.trained import DETECTORS
from jointsearch.objectives.detection import Detection
from search_spaces.errors import InputError

SMALL = {"channels": 16, "regions": 8, "queries": 10, "decoder_layers": 2}
BACKBONES = {
    "resnet18": 32,
    "wide_resnet16_1": 32,
    "tiny_cnn": 32,
    "regnety_002": 64,
    "efficientnet_b0": 64,
    "mobilenetv3_small_100": 64,
    "convnext_atto": 128,
    "densenet121": 64,
    "hrnet_w18_small": 128,
    "dla34": 128,
    "mobilevit_s": 128,  # a hybrid, as the next two
    "edgenext_xx_small": 128,
    "fastvit_t8": 128,
    "vit_tiny_patch16_224": 32,
}


@pytest.fixture(scope="module")
def batch() -> Batch:
    source = DrawnSource(draw_pictures(2, True, torch.Generator().manual_seed(0)))
    drawn = next(ObjectSet(source, torch.arange(2), CLASSES).batches(torch.arange(2), 2))
    return Batch(normalized(drawn.images, Standard(mean=(0.5,), std=(0.25,))), drawn.labels, drawn.index)


def small(name: str, maps: FeatureMaps, **changes: Any) -> nn.Module:
    known = {item.name for item in fields(DETECTORS[name])}
    settings = {key: value for key, value in SMALL.items() if key in known}
    return DETECTORS[name](**settings | changes).build(maps, len(CLASSES), 64)


def cells() -> nn.Module:
    options = {"genotype": "DARTS_V2", "channels": 4, "layers": 5}
    return create_network("jointsearch_cells", 10, options=options)


def step(detector: nn.Module, batch: Batch) -> float:
    optimizer = torch.optim.SGD((weight for weight in detector.parameters() if weight.requires_grad), lr=0.01)
    detector.train()
    loss = Detection().loss(detector, batch.images, batch.labels)
    loss.backward()
    optimizer.step()
    return float(loss.detach())


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_every_kind_of_backbone_builds_and_takes_a_step(name: str, batch: Batch) -> None:
    torch.manual_seed(0)
    options = {"dynamic_img_size": True} if name.startswith("vit") else {}
    maps = FeatureMaps(create_network(name, 10, image_size=BACKBONES[name], options=options))
    assert list(maps.strides) == sorted(set(maps.strides))
    found = maps.eval()(torch.zeros(1, 3, 96, 160))
    for map_, channels, stride in zip(found, maps.channels, maps.strides, strict=True):
        assert map_.shape[1] == channels
        assert map_.shape[2] == -(-96 // stride)
    detector = small("retinanet", maps)
    before = copy.deepcopy(dict(maps.named_parameters()))
    assert 0 < step(detector, batch) < 100
    assert any(not torch.equal(before[name], weight) for name, weight in maps.named_parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", DETECTORS)
def test_a_network_of_cells_carries_every_detector(name: str, batch: Batch) -> None:
    torch.manual_seed(0)
    detector = small(name, FeatureMaps(cells()))
    assert 0 < step(detector, batch) < 100
    found = detector.eval()(batch.images)
    assert len(found) == 2
    assert all((one["labels"] >= 0).all() and (one["labels"] < len(CLASSES)).all() for one in found)
    assert all(("masks" in one) == (name == "mask_rcnn") for one in found)


@pytest.mark.parametrize(
    ("network", "told"),
    [
        ("tiny_mlp", "gives no feature maps; choose one that gives maps, as resnet50"),
        ("mixer_s32_224", "takes no images of 192x128"),
    ],
)
def test_a_network_without_maps_is_one_line(network: str, told: str) -> None:
    size = 8 if network == "tiny_mlp" else 224
    with pytest.raises(InputError, match=told) as caught:
        FeatureMaps(create_network(network, 10, image_size=size))
    assert "\n" not in str(caught.value)


def count(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


PUBLISHED = {
    "retinanet": (RetinaNet(norm="none"), published.retinanet_resnet50_fpn, 90),
    "faster_rcnn": (FasterRcnn(norm="none"), published.fasterrcnn_resnet50_fpn, 90),
    "mask_rcnn": (MaskRcnn(norm="none"), published.maskrcnn_resnet50_fpn, 90),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_on_a_resnet50_it_has_the_parameters_and_anchors_of_the_published_one(name: str) -> None:
    settings, make, classes = PUBLISHED[name]
    with torch.device("meta"):
        theirs = make(weights=None, weights_backbone=None, num_classes=classes + (name != "retinanet"))
        maps = FeatureMaps.__new__(FeatureMaps)
        nn.Module.__init__(maps)
        maps.network = create_network("resnet50", 10, image_size=224)
        maps.network.reset_classifier(0)
        maps.strides, maps.channels = (2, 4, 8, 16, 32), (64, 256, 512, 1024, 2048)
        ours = settings.build(maps, classes, 800).model
    assert count(ours) == count(theirs)
    of_ours, of_theirs = (getattr(one, "anchor_generator", None) or one.rpn.anchor_generator for one in (ours, theirs))
    assert [tuple(map(int, sizes)) for sizes in of_ours.sizes] == [tuple(sizes) for sizes in of_theirs.sizes]
    assert of_ours.aspect_ratios == of_theirs.aspect_ratios


def test_levels_and_anchors_follow_the_size_of_the_images() -> None:
    maps = FeatureMaps(create_network("resnet18", 10, image_size=32))  # strides 1, 2, 4, 8
    sides = {}
    for shorter in (64, 240, 800):
        model = RetinaNet(channels=16).build(maps, 3, shorter).model
        sides[shorter] = [sizes[0] for sizes in model.anchor_generator.sizes]
    assert sides == {64: [8, 16, 32], 240: [16, 32, 64, 128], 800: [32, 64, 128, 256, 512]}
    own = RetinaNet(channels=16, smallest=12).build(maps, 3, 64).model
    assert [sizes[0] for sizes in own.anchor_generator.sizes] == [12, 24, 48]


def test_frozen_stages_and_batch_norm_stay_as_they_are_and_the_rest_learns(batch: Batch) -> None:
    torch.manual_seed(0)
    maps = FeatureMaps(create_network("wide_resnet16_1", 10))
    detector = small("retinanet", maps, frozen_stages=2, batch_norm="frozen")
    before = copy.deepcopy(maps.network.state_dict())
    step(detector, batch)
    changed = {name for name, value in maps.network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert not {name for name in changed if name.startswith(("stem", "stage1", "stage2"))}
    assert not {name for name in changed if "norm" in name or "activation" in name}
    free = small("retinanet", FeatureMaps(create_network("wide_resnet16_1", 10)))
    assert all(weight.requires_grad for weight in free.parameters())


def test_more_frozen_stages_than_maps_are_one_line() -> None:
    maps = FeatureMaps(create_network("wide_resnet16_1", 10))
    with pytest.raises(InputError, match=r"frozen_stages is 4, and the backbone has maps of 3 sizes; lower it"):
        small("retinanet", maps, frozen_stages=4)


def test_the_losses_of_images_by_themselves_make_that_of_the_batch(batch: Batch) -> None:
    torch.manual_seed(0)
    # Without batch statistics, and with a loss that is a mean over images, each image counts for itself.
    detector = small("retinanet", FeatureMaps(create_network("wide_resnet16_1", 10)), batch_norm="frozen").train()
    objective = Detection()
    losses = objective.losses(detector, batch.images, batch.labels)
    assert losses.shape == (2,)
    torch.testing.assert_close(losses.mean(), objective.loss(detector, batch.images, batch.labels))


def test_an_image_without_objects_has_a_loss_too(batch: Batch) -> None:
    torch.manual_seed(0)
    labels = copy.copy(batch.labels)
    object.__setattr__(labels, "labels", torch.full_like(batch.labels.labels, -1))
    for name in DETECTORS:
        detector = small(name, FeatureMaps(create_network("tiny_cnn", 10))).train()
        assert torch.isfinite(Detection().loss(detector, batch.images, labels))
