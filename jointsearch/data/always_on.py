"""What is done to every training image of a data set, with and without a policy, in a line for a person."""

from typing import Any

from jointsearch.data.check_text import counted
from jointsearch.data.standard import Standard

FITTED = {"crop": "the middle square of each", "pad": "padded to squares", "stretch": "stretched to squares"}


def always_on(settings: Any) -> str:
    """Of the settings of a data set: crop, flip, cutout and normalization; how photos are read and drawn."""
    parts = [_standard(settings.standard)]
    if getattr(settings, "image_size", None):
        parts.append(f"images of {settings.image_size}x{settings.image_size} pixels, {FITTED[settings.fit]}")
    if getattr(settings, "balanced", False):
        parts.append(f"every {getattr(settings, 'balances', 'class')} as often (dataset.balanced)")
    if skip := getattr(settings, "skip", ()):
        parts.append(f"without {counted(len(skip), 'image')} (dataset.skip)")
    return "; ".join(parts)


def _standard(standard: Standard) -> str:
    if standard.resized_crop is not None:
        crop = f"crops of {100 * standard.resized_crop.smallest:g} to 100 % of the image"
    else:
        crop = (
            f"crops shifted by up to {counted(standard.crop_padding, 'pixel')}" if standard.crop_padding else "no crop"
        )
    parts = [crop, "half of the images mirrored" if standard.flip else "no mirroring"]
    if standard.cutout:
        parts.append(f"a square of {standard.cutout} pixels erased")
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (standard.mean, standard.std))
    return f"{', '.join(parts)}; normalization by mean {mean}, std {std}"
