"""A classification network as a backbone: its feature maps of falling size, for detectors.

maps = FeatureMaps(create_network("resnet18", 10, image_size=32))
maps.channels, maps.strides  # of each map, as measured
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from search_spaces.errors import InputError

PROBE = (128, 192)  # height and width of the image on which strides are measured: a detector's are seldom square
REMEDY = "choose one that gives maps, as resnet50, wide_resnet16_1, convnext_atto or vit_tiny_patch16_224"


class FeatureMaps(nn.Module):
    """The last map of each size that a network computes, from fine to coarse."""

    def __init__(self, network: nn.Module, channels: int = 3) -> None:
        super().__init__()
        # timm's way to maps, which has many forms; ours have this one too.
        if not hasattr(network, "forward_intermediates"):
            raise InputError(f"{type(network).__name__} gives no feature maps; {REMEDY}")
        network.reset_classifier(0)  # type: ignore[operator]
        self.network = network
        self.in_bf16 = False  # whether maps are computed in bf16
        self.indices: list[int] | None = None
        shapes = self._measured(channels)
        last = {stride: number for number, (_, stride) in enumerate(shapes)}
        self.strides = tuple(sorted(last))
        self.indices = [last[stride] for stride in self.strides]
        self.channels = tuple(shapes[number][0] for number in self.indices)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (B, C, H, W) -> one map (B, channels, H / stride, W / stride) for every stride."""
        network: nn.Module = self.network
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.in_bf16):
            maps = network.forward_intermediates(  # type: ignore[operator]
                images, indices=self.indices, norm=False, output_fmt="NCHW", intermediates_only=True
            )
        return [found.float() for found in maps]

    @contextmanager
    def alone_in_bf16(self, images: Tensor) -> Iterator[None]:
        """Where the step runs in bf16, only the maps do: bf16 has steps of 4 pixels between 512 and 1024."""
        kind = images.device.type
        self.in_bf16 = torch.is_autocast_enabled(kind)
        with torch.autocast(kind, enabled=False):
            yield

    @torch.no_grad()
    def _measured(self, channels: int) -> list[tuple[int, int]]:
        """Channels and stride of every map."""
        was_training, height = self.network.training, PROBE[0]
        self.network.eval()
        try:
            maps = self(torch.zeros(1, channels, *PROBE))
        except Exception as error:  # other people's networks raise whatever they like
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{self._name} takes no images of {PROBE[1]}x{height} ({reason}); {REMEDY}") from error
        finally:
            self.network.train(was_training)
        shapes = [(found.shape[1], round(height / found.shape[2])) for found in maps if found.shape[2] > 1]
        if not shapes or len(shapes) < len(maps):
            raise InputError(f"{self._name} gives no feature maps; {REMEDY}")
        return shapes

    @property
    def _name(self) -> str:
        return type(self.network).__name__
