"""Conversions of readable images that their owner may not expect."""

import io
import warnings

from PIL import Image

from jointsearch.data.decode import FORMATS, ORIENTATION

ODD_MODES = {
    "1": "has 1 bit per pixel; it is read as black and white",
    "CMYK": "is in print colors (CMYK); it is converted to RGB, and colors may shift",
    "YCbCr": "is in YCbCr colors; it is converted to RGB",
    "I": "has 16 bits per pixel; it is scaled down to 8",
}


def oddities(data: bytes, background: int) -> list[str]:
    """The conversions of a readable image that its owner may not expect."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # decoding already handled Pillow's warnings
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        is_turned = image.getexif().get(ORIENTATION, 1) in range(2, 9)
    texts = [text for mode, text in ODD_MODES.items() if image.mode.split(";")[0] == mode]
    if image.has_transparency_data:
        texts.append(f"has transparency; it is shown on gray level {background}, which dataset.background sets")
    if is_turned:
        texts.append("is stored turned or mirrored (EXIF); it is set upright")
    return texts
