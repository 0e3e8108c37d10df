"""A trained network as two plain files: its weights, and what it takes to build it."""

from pathlib import Path

import safetensors
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
    # Copies: weights that share memory, as tied ones do, are refused by safetensors.
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}
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
    try:
        options = dict(told["options"])
        if "genotype" in options:
            options["genotype"] = Genotype.from_darts(options["genotype"])
        sizes = len(told["classes"]), told["channels"], told["image_size"]
        network = create_network(told["network"], *sizes, 0.0, options)
        network.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS_FILE))
    except (KeyError, TypeError, AttributeError, RuntimeError, safetensors.SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"{NETWORK_FILE} and {WEIGHTS_FILE} in {shown_path(folder)} do not belong together, or are damaged "
            f"({type(error).__name__}: {reason}); restore them, or train again in a new folder"
        ) from error
    return network.eval()
