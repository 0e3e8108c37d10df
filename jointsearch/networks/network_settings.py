"""Which network is trained, and what it starts from: `network=resnet18 network.weights=FILE`."""

import difflib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import timm

from jointsearch.networks.supernet import SUPERNET
from jointsearch.settings import setting
from search_spaces.errors import InputError
from search_spaces.plain_json import shown_path

WEIGHTS = (".safetensors", ".pth", ".pt", ".bin", ".tar")  # what a file of weights ends in


@dataclass(frozen=True)
class NetworkSettings:
    """A network by its name. A text is enough where one is wanted: network="resnet18"."""

    WORD: ClassVar[str] = "name"  # the field that a single word sets

    name: str = setting("wide_resnet16_1", help="one of ours or any of timm's, as wide_resnet40_2 or resnet18")
    pretrained: bool = setting(False, help="start from the weights that timm publishes for it; they are downloaded")
    weights: str | None = setting(None, help="start from this file instead: .safetensors, or .pth of tensors")
    adapt: bool = setting(True, help="rebuild timm's networks for images up to 64 pixels; false leaves timm's own")

    @classmethod
    def of(cls, given: "NetworkSettings | str") -> "NetworkSettings":
        """Settings, also where only a name is given."""
        return cls(given) if isinstance(given, str) else given

    @property
    def starts_fresh(self) -> bool:
        """Whether its first weights are random."""
        return not (self.pretrained or self.weights)

    def check(self) -> None:
        """Refuse a name that no network has, and weights that cannot be read; nothing is built."""
        check_network_name(self.name)
        if self.pretrained and self.weights:
            raise InputError(
                "network.pretrained=true stands beside network.weights, and a network starts once; keep one"
            )
        if self.pretrained and not timm.models.is_model_pretrained(self.name):
            raise InputError(f"timm publishes no weights for network={self.name}; use network.weights=FILE")
        if self.weights and not (Path(self.weights).is_file() and self.weights.endswith(WEIGHTS)):
            raise InputError(
                f"network.weights={shown_path(self.weights)} is no file of weights; give one that ends in "
                f"{', '.join(WEIGHTS)}"
            )

    def identity(self) -> dict[str, Any]:
        """What decides results beside the name, as plain data: empty for a network as it is by default."""
        found: dict[str, Any] = {} if self.adapt else {"adapt": False}
        if self.pretrained:
            found["pretrained"] = True
        if self.weights:  # by content: the same file may lie elsewhere when a run is resumed
            found["weights"] = hashlib.sha256(Path(self.weights).read_bytes()).hexdigest()[:16]
        return found

    def plain(self) -> dict[str, Any]:
        """As settings.json has it: its name, and what else decides results, if anything does."""
        settings = self.identity()
        return {"network": self.name} | ({"network_settings": settings} if settings else {})

    def __str__(self) -> str:
        if self.starts_fresh:
            return self.name
        return f"{self.name} from {Path(self.weights).name if self.weights else 'the weights that timm publishes'}"


def check_network_name(name: str) -> None:
    """Refuse a name that no network has."""
    if name != SUPERNET and not timm.is_model(name):
        raise InputError(f"network={name} is not known; {_nearest(name)}")


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
    if near:
        return f"did you mean {', '.join(near)}?"
    return "use wide_resnet40_2, wide_resnet28_10, tiny_cnn, or a name that timm.list_models() gives"
