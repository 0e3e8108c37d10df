"""Builds any network by name: this project's and timm's."""

import difflib
from collections.abc import Mapping
from typing import Any

import timm
from timm.models import model_entrypoint
from torch import nn

from jointsearch.networks.small_images import small_image_stem, small_patch_size
from jointsearch.networks.supernet import SUPERNET, supernet
from search_spaces.errors import InputError
from search_spaces.genotype import Genotype

LARGEST_SMALL_IMAGE = 64
SMALLEST_IMAGE = 8
TRANSFORMER_MODULES = ("timm.models.vision_transformer", "timm.models.deit")


def create_network(
    name: str,
    num_classes: int,
    in_chans: int = 3,
    image_size: int = 32,
    drop_rate: float = 0.0,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The network `name` with fresh weights, for square images of `image_size`; `options` are its own arguments.

    This project's networks take any size. An ImageNet network from timm is adapted to images up to 64x64.
    """
    if name == SUPERNET:
        if drop_rate:
            raise InputError(f"drop_rate={drop_rate:g}, but a supernet has no dropout; set it to 0, or use drop_path")
        return supernet(num_classes=num_classes, in_chans=in_chans, **(options or {}))
    _check_arguments(name, num_classes, in_chans, image_size, drop_rate)
    source = model_entrypoint(name).__module__
    is_small = image_size <= LARGEST_SMALL_IMAGE
    sizes: dict[str, int] = {}
    if is_transformer(name):
        sizes["img_size"] = image_size
        if is_small:
            sizes["patch_size"] = small_patch_size(image_size)
    # Not every timm network has drop_rate; timm ignores arguments that are None.
    model = timm.create_model(
        name, num_classes=num_classes, in_chans=in_chans, drop_rate=drop_rate or None, **sizes, **(options or {})
    )
    if is_small and source.startswith("timm.") and not sizes:
        return small_image_stem(model, image_size)
    return model


def is_transformer(name: str) -> bool:
    """Whether this is a vision transformer, which is built for a size of images and patches."""
    return timm.is_model(name) and model_entrypoint(name).__module__ in TRANSFORMER_MODULES


def plain_options(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a network as plain data; a genotype is written as DARTS writes it."""
    return {key: value.to_darts() if isinstance(value, Genotype) else value for key, value in options.items()}


def check_network_name(name: str) -> None:
    """Refuse a name that no network has."""
    if name != SUPERNET and not timm.is_model(name):
        raise InputError(f"network={name} is not known; {_nearest(name)}")


def _check_arguments(name: str, num_classes: int, in_chans: int, image_size: int, drop_rate: float) -> None:
    check_network_name(name)
    for key, value, smallest in (
        ("num_classes", num_classes, 1),
        ("in_chans", in_chans, 1),
        ("image_size", image_size, SMALLEST_IMAGE),
    ):
        if value < smallest:
            raise InputError(f"{key}={value} for network={name}: at least {smallest} is needed; give a larger {key}")
    if not 0.0 <= drop_rate < 1.0:
        raise InputError(f"drop_rate={drop_rate} for network={name}: give a number from 0 up to, not including, 1")


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
    if near:
        return f"did you mean {', '.join(near)}?"
    return "use wide_resnet40_2, wide_resnet28_10, tiny_cnn, or a name that timm.list_models() gives"
