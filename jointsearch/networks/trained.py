"""A trained network as two plain files: its weights, and what it takes to build it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
from torch import nn

from jointsearch.networks.create import Architecture, is_transformer
from jointsearch.networks.detectors import FasterRcnn, MaskRcnn, RetinaNet
from jointsearch.networks.detr import DFine
from jointsearch.networks.features import FeatureMaps
from jointsearch.networks.network_settings import check_network_name
from jointsearch.networks.weights import MODEL_FILE
from jointsearch.runs.run_folder import replace_file, write_json
from jointsearch.settings import build
from search_spaces.errors import InputError
from search_spaces.plain_json import read_json, shown_path

DETECTORS: dict[str, Any] = {cls.name: cls for cls in (RetinaNet, FasterRcnn, MaskRcnn, DFine)}
WEIGHTS_FILE = "model.safetensors"
# The policy of a description may be the longest that there is, and the backbone of a detector lies a level deeper.
MAX_BYTES, MAX_DEPTH = 32_000_000, 12  # it may hold a schedule
FETCHING = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"}
DAMAGE = (KeyError, TypeError, AttributeError, ValueError, RuntimeError, safetensors.SafetensorError)


def save_network(folder: Path, network: nn.Module, description: dict[str, object]) -> None:
    """Write weights and description, which has `architecture` and `model_args` for `timm.create_model`."""
    # Copies: weights that share memory, as tied ones do, are refused by safetensors.
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}
    replace_file(folder / WEIGHTS_FILE, safetensors.torch.save(tensors))
    write_json(folder / MODEL_FILE, description)


def read_description(folder: Path | str) -> dict[str, Any]:
    """What `model.json` of a finished training says: how its network is built, its classes and normalization."""
    folder = Path(folder)
    if not (folder / WEIGHTS_FILE).is_file():
        raise InputError(
            f"{shown_path(folder)} holds no {WEIGHTS_FILE}; give the folder of a finished training, as in "
            "runs/mine/found/seed0"
        )
    told = read_json(folder / MODEL_FILE, "model", MAX_BYTES, MAX_DEPTH)
    if not isinstance(told, dict) or not isinstance(told.get("classes"), list):
        raise InputError(f"{shown_path(folder / MODEL_FILE)} describes no network; restore it")
    return told


def build_network(told: dict[str, Any], any_size: bool = False) -> nn.Module:
    """The network of a description with fresh weights. With `any_size` a transformer takes images of other sizes."""
    name, args = told["architecture"], dict(told["model_args"])
    check_network_name(name)
    if fetching := sorted(FETCHING & set(args)):
        raise InputError(f"{MODEL_FILE} has {fetching[0]} in model_args, which would load other weights; leave it out")
    if any_size and is_transformer(name):
        args["dynamic_img_size"] = True
    return Architecture(name, args).build()


def load_network(folder: Path | str, any_size: bool = False) -> nn.Module:
    """The trained network of a finished training, as in load_network("runs/mine/found/seed0"), ready to predict.

    It takes normalized images; `model.json` holds the mean and the standard deviation beside the classes.
    """
    told = read_description(folder)
    if "detector" in told:
        raise InputError(f"{shown_path(Path(folder))} holds a detector; read it with load_detector")
    return _filled(Path(folder), lambda: build_network(told, any_size))


def load_detector(folder: Path | str) -> nn.Module:
    """The trained detector of a finished training of `detect`, ready to predict: `Padded` images in, boxes out."""
    told = read_description(folder)
    if "detector" not in told:
        raise InputError(f"{shown_path(Path(folder))} holds a classifier; read it with load_network")

    def fresh() -> nn.Module:
        plain = dict(told["detector"])
        settings = build(DETECTORS[plain.pop("name")], plain, "detector")
        maps = FeatureMaps(build_network(told["backbone"], any_size=True))
        return settings.build(maps, len(told["classes"]), told["side"])

    return _filled(Path(folder), fresh)


N = TypeVar("N", bound=nn.Module)


def _filled(folder: Path, fresh: Callable[[], N]) -> N:
    """A network with the weights of a folder, every one of them."""
    try:
        network = fresh()
        found = network.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS_FILE), strict=False)
    except DAMAGE as error:
        raise _not_together(folder, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}") from error
    wrong = [("missing", found.missing_keys), ("unexpected", found.unexpected_keys)]
    told = "; ".join(f"{len(names)} {kind}: {', '.join(names[:5])}" for kind, names in wrong if names)
    if told:
        raise _not_together(folder, told)
    return network.eval()


def _not_together(folder: Path, reason: str) -> InputError:
    return InputError(
        f"{MODEL_FILE} and {WEIGHTS_FILE} in {shown_path(folder)} do not belong together, or are damaged ({reason}); "
        "restore them, or train again in a new folder"
    )
