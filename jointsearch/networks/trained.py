"""A trained network as two plain files: its weights, and what it takes to build it."""

from pathlib import Path

import safetensors.torch
from torch import nn

from jointsearch.networks.create import create_network
from jointsearch.runs.run_folder import replace_file, write_json
from search_spaces.errors import InputError
from search_spaces.genotype import Genotype
from search_spaces.plain_json import read_json, shown_path

WEIGHTS_FILE, NETWORK_FILE = "weights.safetensors", "network.json"


def save_network(folder: Path, network: nn.Module, description: dict[str, object]) -> None:
    """Write weights and description; `description` has the arguments of `create_network`, a genotype in DARTS form."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    replace_file(folder / WEIGHTS_FILE, safetensors.torch.save(tensors))
    write_json(folder / NETWORK_FILE, description)


def load_network(folder: Path | str) -> nn.Module:
    """The trained network of a finished training, as in load_network("runs/mine/found/seed0"), ready to predict.

    It takes normalized images; `network.json` holds the mean and the standard deviation beside the classes.
    """
    folder = Path(folder)
    if not (folder / WEIGHTS_FILE).is_file():
        raise InputError(
            f"{shown_path(folder)} holds no {WEIGHTS_FILE}; give the folder of a finished training, as in "
            "runs/mine/found/seed0"
        )
    told = read_json(folder / NETWORK_FILE, "network")
    options = dict(told["options"])
    if "genotype" in options:
        options["genotype"] = Genotype.from_darts(options["genotype"])
    network = create_network(told["network"], len(told["classes"]), told["channels"], told["image_size"], 0.0, options)
    network.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS_FILE))
    return network.eval()
