"""Train a translator of images between two attributes, for objective=clamp."""

from dataclasses import dataclass
from pathlib import Path

import torch

from jointsearch.commands.names import as_started
from jointsearch.data.datasets import DataSettings
from jointsearch.data.group_datasets import ColoredDigits
from jointsearch.data.load import Loaded
from jointsearch.device import choose_device
from jointsearch.loops.translate import TranslatorRecipe, distance, train_translator
from jointsearch.settings import bounded, check_fields, group, setting
from search_spaces.errors import InputError
from search_spaces.plain_json import shown_path

SUBJECT = None
MOST_USED = ("dataset", "out", "steps")
TOLD = 10  # times that it says how far it is


@dataclass(frozen=True)
class Settings:
    """What is trained on what."""

    dataset: DataSettings = group(ColoredDigits, help="images that tell groups, of two attributes")
    out: str = setting("translator.safetensors", help="the file, for objective.translator of retrain.py")
    steps: int = bounded(500, 1, 10_000_000, help="of each class")
    width: int = bounded(16, 1, 1024, help="channels of the first convolution")
    seed: int = bounded(0, 0, 2**32 - 1, help="of the weights and batches, and of what is held out")
    overwrite: bool = setting(False, help="a file that is already there is replaced")
    device: str = setting("auto", help="auto, cpu, cuda, cuda:1, ...")
    threads: int | None = bounded(None, 1, 1024, help="CPU threads; null leaves torch's choice")
    plugins: tuple[str, ...] = setting((), help="Python files that add datasets of your own")

    def __post_init__(self) -> None:
        check_fields(self)


def main(given: Settings) -> None:
    """Train it, say how good it is where that is known, and write it."""
    if given.threads:
        torch.set_num_threads(given.threads)
    out = Path(given.out)
    if out.exists() and not (given.overwrite and out.is_file()):
        raise InputError(f"out={shown_path(out)} is already there; give overwrite=true, or another file")
    splits = Loaded(given.dataset).splits(given.seed)
    recipe = TranslatorRecipe(given.steps, given.width)
    made = train_translator(splits.train, recipe, given.seed, choose_device(given.device), _say)
    for name, value in distance(made, splits.validation).items():
        print(f"Distance of validation images from the true ones with the other attribute, {name}: {value:.3f}")
    try:
        made.save(out)
    except OSError as error:
        raise InputError(f"out={shown_path(out)} cannot be written ({error.strerror}); give another") from None
    print(f"Written to {shown_path(out)}")
    print(as_started(f"To use it: python scripts/retrain.py objective=clamp objective.translator={shown_path(out)}"))


def _say(step: int, steps: int) -> None:
    if step % max(1, steps // TOLD) == 0:
        print(f"step {step:,} of {steps:,}", flush=True)
