"""CycleGAN (Zhu et al., ICCV 2017), small: for each class of images, generators that give them another attribute."""

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from jointsearch.runs.run_folder import replace_file
from search_spaces.errors import InputError
from search_spaces.plain_json import parse_json, shown_path

BLOCKS = 3  # residual ones of a generator
MAX_BYTES = 2**28
FORMAT = "jointsearch-translator"
LARGEST = {"classes": 1000, "attributes": 2, "channels": 4, "width": 1024}  # that a file may ask for


class Generator(nn.Module):
    """Images (B, C, H, W) from -1 to 1 in, and as many out; its maps have half the side where it `halves` them."""

    def __init__(self, channels: int, width: int, halves: bool) -> None:
        super().__init__()
        inner, before, after = width * (2 if halves else 1), [], []
        if halves:
            before = [nn.Conv2d(width, inner, 3, 2, 1), *_normalized(inner)]
            after = [nn.Upsample(scale_factor=2), _conv(inner, width), *_normalized(width)]
        first = [_conv(channels, width), *_normalized(width), *before]
        blocks = [Residual(inner) for _ in range(BLOCKS)]
        self.layers = nn.Sequential(*first, *blocks, *after, _conv(width, channels), nn.Tanh())

    def forward(self, images: Tensor) -> Tensor:
        """The translated images."""
        return self.layers(images)


class Residual(nn.Module):
    """Two convolutions whose output is added to what they got."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            _conv(width, width), *_normalized(width), _conv(width, width), nn.InstanceNorm2d(width)
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Of the same size."""
        return maps + self.inner(maps)


class Discriminator(nn.Module):
    """Images (B, C, H, W) from -1 to 1 in; how real each patch of them looks out, (B, 1, H / 4, W / 4)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 3, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 3, 1, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """The patches."""
        return self.layers(images)


class Translator(nn.Module):
    """For every class and attribute a generator, which gives images of that class the attribute."""

    def __init__(
        self, classes: tuple[str, ...], attributes: tuple[str, ...], channels: int, width: int, halves: bool = False
    ) -> None:
        super().__init__()
        self.classes, self.attributes, self.channels = classes, attributes, channels
        self.width, self.halves = width, halves
        count = len(classes) * len(attributes)
        self.generators = nn.ModuleList(Generator(channels, width, halves) for _ in range(count))

    @torch.no_grad()
    def forward(self, images: Tensor, groups: Tensor, to: int) -> Tensor:
        """Images (B, C, H, W) in [0, 1] of these groups (B,) with another attribute, or with the one they have."""
        self.to(images.device)
        translated = torch.empty_like(images)
        for place in range(len(self.classes)):
            rows = torch.nonzero(groups // len(self.attributes) == place).flatten()
            if len(rows):
                generator = self.generators[place * len(self.attributes) + to]
                translated[rows] = as_pixels(generator(as_signed(images[rows])))
        return translated

    def check(self, train: Any) -> None:
        """Refuse training images of other classes, attributes or channels."""
        told = (self.classes, self.attributes, self.channels)
        wanted = (tuple(train.classes), tuple(train.groups.attributes), train.image_shape[0])
        for name, mine, theirs in zip(("classes", "attributes", "channels"), told, wanted, strict=True):
            if mine != theirs:
                raise InputError(
                    f"objective.translator was trained on images with {name} {_said(mine)}, and these have "
                    f"{_said(theirs)}; train one on this data set with scripts/translator.py"
                )

    def save(self, path: Path) -> None:
        """Write it as one file of tensors."""
        told: dict[str, Any] = {"format": FORMAT, "classes": self.classes, "attributes": self.attributes}
        told |= {"channels": self.channels, "width": self.width, "halves": self.halves}
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        replace_file(path, safetensors.torch.save(tensors, {"translator": json.dumps(told)}))


def load_translator(path: Path | str) -> Translator:
    """A translator out of its file. No code in it is carried out."""
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise InputError(f"{shown_path(path)} has {size:,} bytes, more than a translator may have; give another")
        with safetensors.safe_open(path, "pt") as file:
            metadata = (file.metadata() or {}).get("translator", "{}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
    except (OSError, safetensors.SafetensorError) as error:
        raise _no_translator(path, str(error)) from None
    told = parse_json(metadata, f"translator {shown_path(path)}")
    try:
        sizes = {name: len(told[name]) if isinstance(told[name], list) else int(told[name]) for name in LARGEST}
        if told.get("format") != FORMAT or any(not 0 < sizes[name] <= most for name, most in LARGEST.items()):
            raise _no_translator(path, "its header says so")
        classes, attributes = (tuple(map(str, told[name])) for name in ("classes", "attributes"))
        made = Translator(classes, attributes, sizes["channels"], sizes["width"], told["halves"] is True)
        made.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise _no_translator(path, " ".join(str(error).split())[:100]) from None
    return made.eval()


def file_digest(path: Path | str) -> str:
    """What tells the content of a file from that of another one."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise _no_translator(Path(path), str(error.strerror)) from None


def as_signed(images: Tensor) -> Tensor:
    """Images in [0, 1] from -1 to 1, as generators take them."""
    return images * 2 - 1


def as_pixels(images: Tensor) -> Tensor:
    """Images from -1 to 1 in [0, 1]."""
    return (images + 1) / 2


def _said(value: Any) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _no_translator(path: Path, why: str) -> InputError:
    return InputError(
        f"{shown_path(path)} cannot be used as a translator ({why}); give a file that scripts/translator.py has written"
    )


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, 1, 1, padding_mode="reflect")


def _normalized(width: int) -> tuple[nn.Module, nn.Module]:
    return nn.InstanceNorm2d(width), nn.ReLU()
