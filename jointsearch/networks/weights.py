"""Starts a network from weights: those of a file, or those that timm publishes for it.

timm reads, filters and adapts them: first convolutions for other numbers of channels, patches and positions of
transformers for other sizes of images. A classifier of other classes is left out, and begins fresh.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from timm.models import get_pretrained_cfg, load_state_dict
from torch import Tensor, nn

from jointsearch.networks.network_settings import NetworkSettings
from search_spaces.errors import InputError
from search_spaces.plain_json import read_json, shown_path

MODEL_FILE = "model.json"  # beside the weights that this project writes
Build = Callable[..., nn.Module]  # of arguments that take the place of the network's own


def published(build: Build, network: NetworkSettings) -> nn.Module:
    """The network with timm's published weights, out of the folder where they were downloaded to before, or new."""
    try:
        with _quiet("huggingface_hub"):
            return build(pretrained=True)
    except Exception as error:  # what the hub, the internet and a damaged download raise has no common class
        config = get_pretrained_cfg(network.name)
        source = config and (config.hf_hub_id or config.url)
        raise InputError(
            f"the weights of network={network.name} are not here and cannot be downloaded ({_one_line(error)}); "
            f"download {source} elsewhere and use network.weights=FILE, or fill the folder that HF_HOME names"
        ) from error


def started(build: Build, network: NetworkSettings, num_classes: int) -> nn.Module:
    """The network with the weights of a file, every one of them but a classifier for another number of classes."""
    state = read_weights(network)
    classes, channels = rows(state, network), _channels(state, network)
    try:
        model = build(num_classes=classes)
        if {name: value.shape for name, value in state.items()} == _shapes(model):
            model.load_state_dict(state)
        else:
            size = (channels, *getattr(model, "pretrained_cfg", {}).get("input_size", (3, 224, 224))[1:])
            source = {"file": network.weights, "num_classes": classes, "input_size": size}
            model = build(num_classes=classes, pretrained=True, pretrained_cfg_overlay=source)
        if classes != num_classes:
            model.reset_classifier(num_classes)  # type: ignore[operator]
    except Exception as error:  # timm and torch raise RuntimeError, KeyError, AssertionError, as a network has it
        raise InputError(
            f"network.weights={shown_path(str(network.weights))} does not fit network={network.name} "
            f"({_one_line(error)}); give the weights of such a network, or choose another one"
        ) from error
    return model


def read_weights(network: NetworkSettings) -> dict[str, Tensor]:
    """The tensors of a file of weights. No code in it is carried out."""
    try:
        state = load_state_dict(str(network.weights), weights_only=True)
        if state and all(isinstance(value, Tensor) for value in state.values()):
            return state
        reason = "it holds other things than tensors"
    except Exception as error:  # torch, pickle and safetensors each have their own for a damaged file
        reason = _one_line(error)
    raise InputError(
        f"network.weights={shown_path(str(network.weights))} cannot be read ({reason}); give a file of tensors: "
        "safetensors, or what torch.save writes of a state_dict"
    )


def rows(state: dict[str, Tensor], network: NetworkSettings) -> int:
    """The number of classes that weights are for; 0 where they have no classifier."""
    classifier: Any = _config(network).get("classifier")
    first = classifier if isinstance(classifier, str) or not classifier else classifier[0]
    weight = state.get(f"{first}.weight")
    return 0 if weight is None else len(weight)


def classes_of(network: NetworkSettings) -> int:
    """The number of classes that the weights a network starts from are for; 0 where they have no classifier."""
    return rows(read_weights(network), network) if network.weights else int(_config(network).get("num_classes") or 0)


def told_by(network: NetworkSettings) -> dict[str, Any]:
    """What is known of the weights that a network starts from: mean and std of the images that they were trained on."""
    if network.weights and (path := Path(network.weights).with_name(MODEL_FILE)).is_file():
        told = read_json(path, "model", max_bytes=32_000_000)
        return told if isinstance(told, dict) else {}
    if network.starts_fresh or not _config(network).get("published"):
        return {}
    return _config(network)


def _config(network: NetworkSettings) -> dict[str, Any]:
    """timm's description of a network and its published weights; empty for one that has none."""
    config = get_pretrained_cfg(network.name)
    return {} if config is None else config.to_dict() | {"published": bool(config.has_weights)}


def _channels(state: dict[str, Tensor], network: NetworkSettings) -> int:
    """The channels of the images that weights are for."""
    first: Any = _config(network).get("first_conv")
    weight = state.get(f"{first}.weight")
    return 3 if weight is None else weight.shape[1]


def _shapes(model: nn.Module) -> dict[str, Any]:
    return {name: value.shape for name, value in model.state_dict().items()}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Only errors of a logger: each failed attempt of a download would be a line."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
