"""A trained network for other programs: ONNX, TorchScript or torch.export, with its normalization inside.

Every file takes images (B, C, H, W) in [0, 1], of any number B, and gives logits (B, classes). It holds its description
too. Before it is kept it is read again and compared with the network itself.
"""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.errors import InputError

LARGEST_DIFFERENCE = 1e-4  # of logits, or of the largest logit where that is above 1
DESCRIPTION = "model.json"  # the name of the description inside of a file
INPUT, OUTPUT = "images", "logits"
# Not one image: torch.export takes a batch of 1 for a constant. The number that is checked is another one.
TRACED_IMAGES, CHECKED_IMAGES = 2, 5


class Normalized(nn.Module):
    """A network behind its normalization: images in [0, 1] in, logits out."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] -> logits (B, classes)."""
        return self.network((images - self.mean) / self.std)


def write_onnx(model: nn.Module, images: Tensor, file: Path, description: str) -> None:
    """An ONNX file, all in one."""
    import onnx

    batch = {0: torch.export.Dim("batch")}
    program: Any = torch.onnx.export(
        model,
        (images,),
        dynamo=True,
        verbose=False,
        dynamic_shapes=(batch,),
        input_names=[INPUT],
        output_names=[OUTPUT],
    )
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {DESCRIPTION: description})
    onnx.save(proto, file)


def run_onnx(file: Path, images: Tensor) -> Tensor:
    """The logits by onnxruntime, or by ONNX's own slow reference where that is not installed."""
    try:
        from onnxruntime import InferenceSession
    except ImportError:
        from onnx.reference import ReferenceEvaluator as InferenceSession
    found = InferenceSession(str(file)).run(None, {INPUT: images.numpy()})
    return torch.from_numpy(found[0])


def write_torchscript(model: nn.Module, images: Tensor, file: Path, description: str) -> None:
    """A TorchScript file, for torch.jit.load and libtorch."""
    torch.jit.save(torch.jit.trace(model, images), str(file), _extra_files={DESCRIPTION: description})


def run_torchscript(file: Path, images: Tensor) -> Tensor:
    """The logits by torch.jit."""
    return torch.jit.load(str(file))(images)


def write_exported(model: nn.Module, images: Tensor, file: Path, description: str) -> None:
    """A program of torch.export, for torch.export.load."""
    program = torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, file, extra_files={DESCRIPTION: description})


def run_exported(file: Path, images: Tensor) -> Tensor:
    """The logits by torch.export."""
    return torch.export.load(file).module()(images)


# Of each format: the ending of its files, what writes one, and what reads it and gives its logits.
FORMATS: dict[str, tuple[str, Callable[..., None], Callable[[Path, Tensor], Tensor]]] = {
    "onnx": (".onnx", write_onnx, run_onnx),
    "torchscript": (".pt", write_torchscript, run_torchscript),
    "exported": (".pt2", write_exported, run_exported),
}


def export_model(network: nn.Module, told: dict[str, Any], file: Path, format: str) -> float:
    """Write a network with the description `told` to a file. Returns the largest difference from its own logits."""
    _, write, run = FORMATS[format]
    model = Normalized(network, told["mean"], told["std"]).eval()
    shape = (told["channels"], told["image_size"], told["image_size"])
    noise = torch.Generator().manual_seed(0)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # torch's, about its own ways of export
            write(model, torch.rand(TRACED_IMAGES, *shape, generator=noise), file, json.dumps(told))
            images = torch.rand(CHECKED_IMAGES, *shape, generator=noise)
            expected, found = model(images), run(file, images)
    except ImportError as error:
        raise InputError(f'format=onnx needs {error.name}; pip install "jointsearch[onnx]"') from None
    except Exception as error:  # an exporter raises whatever it likes about what it does not know
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"{told['network']} cannot be written as {format} ({reason}); choose another format"
        ) from error
    if found.shape != expected.shape:
        raise InputError(
            f"the {format} file gives {tuple(found.shape)} for {CHECKED_IMAGES} images; choose another format"
        )
    difference = float((found - expected).abs().max())
    if not difference <= LARGEST_DIFFERENCE * max(1.0, float(expected.abs().max())):
        raise InputError(f"the {format} file differs from the network by {difference:.2g}; choose another format")
    return difference
