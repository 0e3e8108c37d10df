"""Adapts networks for 224x224 images to small images.

An ImageNet network halves its input five times, which leaves one pixel of a 32x32 image. This module removes halvings
from the front until a 4x4 map is left. A ResNet at 32x32 thus gets its well-known CIFAR form: a 3x3 convolution of
stride 1 in front, without pooling after it.
"""

import functools
import math
from collections import defaultdict
from typing import Any

import timm
import torch
from timm.models import register_model
from torch import Tensor, nn

from jointsearch.networks.network_settings import check_network_name
from search_spaces.errors import InputError

SMALL = "jointsearch_small"  # the name by which timm makes such a network
SMALLEST_MAP = 4
# Large enough that five halvings reach five different sizes.
PROBE_SIZE = 128
REMEDY = (
    "use a network of the ResNet, RegNet, EfficientNet, MobileNet or DenseNet family, a vision transformer by name "
    "(vit_*, deit_*), a Wide-ResNet (wide_resnet40_2), or larger images"
)


@register_model
def jointsearch_small(
    pretrained: bool = False, base: str = "resnet18", image_size: int = 32, **kwargs: Any
) -> nn.Module:
    """An ImageNet network of timm's, `base`, in its form for small images; weights are loaded before it is changed."""
    check_network_name(base)
    return small_image_stem(timm.create_model(base, pretrained=pretrained, **kwargs), image_size)


def small_image_stem(model: nn.Module, image_size: int) -> nn.Module:
    """Change `model` in place so that images of `image_size` end in a feature map of at least 4x4, and return it.

    A network that already does so is left unchanged. Weights are kept, but a stem larger than 3x3 becomes a fresh 3x3.
    What was changed stands in `model.adapted`, in words.
    """
    _check_supported(model)
    halvings = _halvings(model)
    removed = 0
    adapted: list[str] = []
    while removed < len(halvings) and math.ceil(image_size / 2 ** (len(halvings) - removed)) < SMALLEST_MAP:
        for name in halvings[removed]:
            before = model.get_submodule(name)
            after = _full_resolution(before, is_stem=removed == 0)
            adapted.append(_difference(name, before, after))
            model.set_submodule(name, after)
        removed += 1
    model.adapted = tuple(adapted)  # type: ignore[assignment]
    _correct_feature_info(model, removed)
    final = _last_map_size(model, image_size)
    if final < SMALLEST_MAP:
        raise InputError(
            f"{type(model).__name__} ends in a {final}x{final} feature map for {image_size}x{image_size} images, "
            f"{SMALLEST_MAP}x{SMALLEST_MAP} is needed, and removing its halvings does not give it; {REMEDY}"
        )
    return model


def small_patch_size(image_size: int) -> int:
    """The largest patch that cuts a small image into at least 8x8 whole patches: 4 for 32x32."""
    return max(patch for patch in range(1, max(1, image_size // 8) + 1) if image_size % patch == 0)


def _check_supported(model: nn.Module) -> None:
    name = type(model).__name__
    if getattr(model, "pretrained_cfg", {}).get("fixed_input_size"):
        raise InputError(f"{name} is built for one image size and has no small-image form; {REMEDY}")
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and _stride(module) > 1 and module.kernel_size[0] % 2 == 0:
            raise InputError(
                f"{name} cuts its input into patches of {module.kernel_size[0]}x{module.kernel_size[0]}, "
                f"which has no small-image form; {REMEDY}"
            )


def _stride(module: nn.Module) -> int:
    if not isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        return 1
    return module.stride if isinstance(module.stride, int) else module.stride[0]


def _halvings(model: nn.Module) -> list[list[str]]:
    """The names of the modules with stride 2, grouped by the size of their input, front first.

    A block's convolution and its shortcut have inputs of one size, and must change together.
    """
    by_size: dict[int, list[str]] = defaultdict(list)

    def note(name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        by_size[inputs[0].shape[-1]].append(name)

    hooks = [
        module.register_forward_pre_hook(functools.partial(note, name))
        for name, module in model.named_modules()
        if _stride(module) == 2
    ]
    try:
        _last_map_size(model, PROBE_SIZE)
    finally:
        for hook in hooks:
            hook.remove()
    return [by_size[size] for size in sorted(by_size, reverse=True)]


def _difference(name: str, before: nn.Module, after: nn.Module) -> str:
    """One change in words."""
    if not isinstance(after, nn.Conv2d):
        return f"{name} is left out"
    if after is before:
        return f"{name} has stride 1"
    return f"{name} is a fresh 3x3 convolution of stride 1"


def _full_resolution(module: nn.Module, is_stem: bool) -> nn.Module:
    """The same convolution with stride 1, a 3x3 convolution for a larger stem, or an identity for a pooling."""
    if not isinstance(module, nn.Conv2d):
        return nn.Identity()
    if is_stem and module.kernel_size[0] > 3:
        stem = nn.Conv2d(module.in_channels, module.out_channels, 3, padding=1, bias=module.bias is not None)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
        return stem.to(module.weight)
    module.stride = (1, 1)
    return module


def _correct_feature_info(model: nn.Module, removed: int) -> None:
    levels: Any = getattr(model, "feature_info", [])
    for level in levels:
        level["reduction"] = max(1, level["reduction"] // 2**removed)


def _last_map_size(model: nn.Module, image_size: int) -> int:
    weight = next(weight for weight in model.parameters() if weight.dim() == 4)
    images = weight.new_zeros(1, weight.shape[1], image_size, image_size)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            features: Any = model.forward_features(images)  # type: ignore[operator]
        return int(features.shape[-1])
    # torch and timm raise these if shapes do not fit: branches of different size, maps smaller than their kernel.
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"{type(model).__name__} does not run on {image_size}x{image_size} images in a small-image form "
            f"({reason}); {REMEDY}"
        ) from error
    finally:
        model.train(was_training)
