"""Builds any network by name: this project's and timm's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
from timm.models import model_entrypoint
from torch import nn

from jointsearch.networks.network_settings import NetworkSettings, check_network_name
from jointsearch.networks.small_images import SMALL, small_patch_size
from jointsearch.networks.supernet import SUPERNET, supernet
from jointsearch.networks.weights import published, started
from search_spaces.errors import InputError
from search_spaces.genotype import Genotype

LARGEST_SMALL_IMAGE = 64
SMALLEST_IMAGE = 8
TRANSFORMER_MODULES = ("timm.models.vision_transformer", "timm.models.deit")


@dataclass(frozen=True)
class Architecture:
    """The name and the arguments by which `timm.create_model` makes a network; plain data."""

    name: str
    args: dict[str, Any]

    def build(self, **others: Any) -> nn.Module:
        """The network with fresh weights; `others` are arguments that take the place of some."""
        return timm.create_model(self.name, **self.args | others)


def create_network(
    network: NetworkSettings | str,
    num_classes: int,
    in_chans: int = 3,
    image_size: int = 32,
    drop_rate: float = 0.0,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A network for square images of `image_size`; `options` are its own arguments. By its name, weights are fresh.

    This project's networks take any size. An ImageNet network from timm is adapted to images up to 64x64, unless
    NetworkSettings(..., adapt=False) asks for timm's own.
    """
    wanted = NetworkSettings.of(network)
    if wanted.name == SUPERNET:
        if drop_rate:
            raise InputError(f"drop_rate={drop_rate:g}, but a supernet has no dropout; set it to 0, or use drop_path")
        return supernet(num_classes=num_classes, in_chans=in_chans, **(options or {}))
    found = architecture(wanted, num_classes, in_chans, image_size, drop_rate, options)
    if wanted.starts_fresh:
        return found.build()
    wanted.check()
    return started(found.build, wanted, num_classes) if wanted.weights else published(found.build, wanted)


def architecture(
    network: NetworkSettings | str,
    num_classes: int,
    in_chans: int = 3,
    image_size: int = 32,
    drop_rate: float = 0.0,
    options: Mapping[str, Any] | None = None,
) -> Architecture:
    """How `timm.create_model` makes the network of `create_network`, once `jointsearch.networks` is imported."""
    wanted = NetworkSettings.of(network)
    name = wanted.name
    _check_arguments(name, num_classes, in_chans, image_size, drop_rate)
    args: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_chans, **plain_options(dict(options or {}))}
    if drop_rate:  # not every timm network has it
        args["drop_rate"] = drop_rate
    adapts = wanted.adapt and image_size <= LARGEST_SMALL_IMAGE
    if is_transformer(name):
        args["img_size"] = image_size
        if adapts:
            args["patch_size"] = small_patch_size(image_size)
    elif adapts and model_entrypoint(name).__module__.startswith("timm."):
        return Architecture(SMALL, {"base": name, "image_size": image_size, **args})
    return Architecture(name, args)


def adaptation(network: NetworkSettings, in_chans: int, image_size: int) -> str | None:
    """What is changed in a network of timm's for small images, and how to keep timm's own; None where nothing is."""
    if network.name == SUPERNET:
        return None
    found, changes = architecture(network, 1, in_chans, image_size), []
    if "patch_size" in found.args:
        side = found.args["patch_size"]
        changes = [f"patches have {side}x{side} pixels"]
    elif found.name == SMALL:
        changes = list(getattr(found.build(), "adapted", ()))
    if not changes:
        return None
    told = ", ".join(changes[:2]) + (f", and {len(changes) - 2} more changes" if len(changes) > 2 else "")
    return (
        f"network={network.name} is adapted to images of {image_size}x{image_size}: {told}. network.adapt=false keeps "
        "timm's own, which is faster and whose weights load into timm's class"
    )


def is_transformer(name: str) -> bool:
    """Whether this is a vision transformer, which is built for a size of images and patches."""
    return timm.is_model(name) and model_entrypoint(name).__module__ in TRANSFORMER_MODULES


def plain_options(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a network as plain data; a genotype is written as DARTS writes it."""
    return {key: value.to_darts() if isinstance(value, Genotype) else value for key, value in options.items()}


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
