"""Write a trained network for other programs: ONNX, TorchScript or torch.export."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from jointsearch.export.model import FORMATS, export_model
from jointsearch.networks.trained import load_network, read_description
from jointsearch.report.best import training_folder
from jointsearch.runs.run_folder import replace_file
from jointsearch.settings import choice, setting
from search_spaces.errors import InputError
from search_spaces.plain_json import shown_path

SUBJECT = "run"
MOST_USED = ()


@dataclass(frozen=True)
class Settings:
    """What is written, and where to."""

    run: str | None = setting(None, help="folder of a training, or a run folder, of which the best row is taken")
    format: str = choice(
        "onnx", *FORMATS, help="onnx needs the extra onnx; exported: torch.export; torchscript: deprecated by torch"
    )
    out: str | None = setting(
        None, help="the file; null: model.onnx, model.pt or model.pt2 in the folder of the training"
    )
    overwrite: bool = setting(False, help="a file that is already there is replaced")
    plugins: tuple[str, ...] = setting((), help="Python files that add networks of your own")


def main(given: Settings) -> None:
    """Write one file, and print by how much its outputs differ from those of the network."""
    if given.run is None:
        raise InputError("export_model needs run=; give the folder of a training, as in run=runs/mine/found/seed0")
    folder = training_folder(Path(given.run))
    told = read_description(folder)
    network = load_network(folder)
    out = Path(given.out) if given.out else folder / f"model{FORMATS[given.format][0]}"
    if out.exists() and not (given.overwrite and out.is_file()):
        raise InputError(f"out {shown_path(out)} is already there; give overwrite=true, or out= another file")
    with TemporaryDirectory() as scratch:
        file = Path(scratch, f"model{FORMATS[given.format][0]}")
        difference = export_model(network, told, file, given.format)
        try:
            replace_file(out, file.read_bytes())
        except OSError as error:
            raise InputError(f"out {shown_path(out)} cannot be written ({error.strerror}); give another") from None
    side, classes = told["image_size"], told["classes"]
    print(f"{out}: the network in {folder}")
    print(f"It takes images (B, {told['channels']}, {side}, {side}) in [0, 1]; normalization is inside.")
    print(f"It gives logits (B, {len(classes)}); the classes stand in {folder}/model.json, and inside of the file.")
    print(f"Largest difference from the network's own logits: {difference:.1g}")
