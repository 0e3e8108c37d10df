"""Decodes image files to uint8 pixels. Ambiguous, damaged and multi-frame files are refused, never guessed."""

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from jointsearch.data.files import shown
from search_spaces.errors import InputError

# Formats are listed, because Pillow would also start Ghostscript for a file that claims to be PostScript.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
MAX_PIXELS = 2**26
# The operations of EXIF orientations 2 to 8 on pixels (H, W, C). They run after the conversion to 8 bits, because
# Pillow's own transposition drops the file format and its tags, which define 16-bit levels.
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: np.rot90,
}
FITS = ("crop", "pad", "stretch")
ORIENTATION, BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 0x0112, 258, 262, 0


@dataclass(frozen=True)
class Form:
    """The size and channels of decoded images; None keeps those of the file."""

    image_size: int | None = None
    channels: int | None = None
    background: int = 255
    fit: str = FITS[0]  # how an image that is not square becomes one

    def decode(self, data: bytes, name: str) -> Tensor:
        """Decode the bytes to an image in this form, uint8 (C,H,W)."""
        return self.fitted(decode_image(data, name, self.channels, self.background))

    def fitted(self, image: Tensor) -> Tensor:
        """A decoded image in this form's size."""
        if self.image_size is None:
            return image
        if self.fit == "pad":
            return pad_square(image, self.image_size, self.background)
        return (
            _resized(image, self.image_size, self.image_size)
            if self.fit == "stretch"
            else resize_square(image, self.image_size)
        )


def decode_image(data: bytes, name: str, channels: int | None, background: int = 255) -> Tensor:
    """The image as uint8 (C,H,W), upright; transparent parts show the background's gray level (default white).

    `channels` None keeps gray images gray (C=1) and everything else RGB (C=3).
    """
    if not data:
        raise InputError(f"{shown(name)} is empty (0 bytes); remove it or get the file again")
    image, orientation = _opened(data, name)
    pixels = _pixels(image, name, background)
    if orientation in UPRIGHT:
        pixels = UPRIGHT[orientation](pixels)
    if channels == 1 and pixels.shape[2] == 3:
        pixels = np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))[:, :, None]
    if channels == 3 and pixels.shape[2] == 1:
        pixels = pixels.repeat(3, axis=2)
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous()


def resize_square(image: Tensor, size: int) -> Tensor:
    """The centre square of a uint8 image (C,H,W), resized with antialiasing to (C,size,size)."""
    height, width = image.shape[1:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return _resized(image[:, top : top + side, left : left + side], size, size)


def pad_square(image: Tensor, size: int, background: int) -> Tensor:
    """All of a uint8 image (C,H,W), its longer side resized to `size`, in the middle of a gray square."""
    height, width = image.shape[1:]
    longer = max(height, width)
    inside = _resized(image, max(1, round(height * size / longer)), max(1, round(width * size / longer)))
    square = torch.full((image.shape[0], size, size), background, dtype=torch.uint8)
    top, left = ((size - side) // 2 for side in inside.shape[1:])
    square[:, top : top + inside.shape[1], left : left + inside.shape[2]] = inside
    return square


def _resized(image: Tensor, height: int, width: int) -> Tensor:
    if image.shape[1:] == (height, width):
        return image
    return interpolate(image[None], (height, width), mode="bilinear", antialias=True)[0]


def image_shape(image: Tensor) -> tuple[int, int, int]:
    """Channels, height and width."""
    channels, height, width = image.shape
    return channels, height, width


def _opened(data: bytes, name: str) -> tuple[Image.Image, int]:
    """The decoded image and its EXIF orientation."""
    # For malformed bytes Pillow raises a dozen exception types (OSError, SyntaxError, struct.error, IndexError, ...)
    # and warnings; any of them means that the file cannot be trusted.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            _check_size(image, name)
            if image.format == "PNG":
                # Only verify() reads the checksums of the pixel blocks. It makes the image unusable.
                image.verify()
                image = Image.open(io.BytesIO(data), formats=FORMATS)
            image.load()
            return image, image.getexif().get(ORIENTATION, 1)
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(_too_large(name)) from error
    except Image.UnidentifiedImageError as error:
        kinds = ", ".join(FORMATS)
        raise InputError(
            f"{shown(name)} is not recognized as one of {kinds}, or is cut off at its start; convert it or remove it"
        ) from error
    except Exception as error:
        reason = shown(str(error).splitlines()[0]) if str(error) else type(error).__name__
        raise InputError(f"{shown(name)} is cut off or damaged ({reason}); remove it or get the file again") from error


def _check_size(image: Image.Image, name: str) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise InputError(_too_large(name))
    frames = getattr(image, "n_frames", 1)
    # A JPEG may hold previews after the photo (MPO). In the other formats no single frame is the image.
    if image.format in ("GIF", "TIFF", "WEBP", "PNG") and frames > 1:
        raise InputError(
            f"{shown(name)} holds {frames} frames or pages, but one image is wanted; save one of them alone"
        )


def _too_large(name: str) -> str:
    return f"{shown(name)} has more than {MAX_PIXELS:,} pixels; make it smaller or remove it"


def _pixels(image: Image.Image, name: str, background: int) -> np.ndarray:
    """uint8 pixels (H,W,1) of a gray image, (H,W,3) of any other."""
    if image.mode.startswith("I;16"):
        return _from_16_bit(image, name)
    if image.mode == "I" and image.format == "PPM":
        # Pillow scales the levels of a PGM with more than 8 bits to 0..65535.
        return _rescaled(np.asarray(image), 65535)
    if image.mode in ("I", "F"):
        kind = "32-bit integer" if image.mode == "I" else "floating-point"
        raise InputError(
            f"{shown(name)} has {kind} pixels, whose level of white is unknown; save it with 8 or 16 bits per channel"
        )
    gray = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        return _composited(np.asarray(image.convert("RGBA")), background)[:, :, : 1 if gray else 3]
    pixels = np.asarray(image.convert("L" if gray else "RGB"))
    return pixels[:, :, None] if gray else pixels


def _from_16_bit(image: Image.Image, name: str) -> np.ndarray:
    if image.has_transparency_data:
        raise InputError(f"{shown(name)} is 16-bit gray with a transparent level; save it without transparency")
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(BITS_PER_SAMPLE, (16,))[0]
    levels = np.asarray(image).astype(np.int64)
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        levels = 2**bits - 1 - levels
    return _rescaled(levels, 2**bits - 1)


def _rescaled(levels: np.ndarray, white: int) -> np.ndarray:
    # Pillow's own conversion clips: of a full 16-bit ramp 99.6 % becomes 255.
    rounded = (levels.astype(np.int64) * 255 + white // 2) // white
    return rounded.clip(0, 255).astype(np.uint8)[:, :, None]


def _composited(pixels: np.ndarray, background: int) -> np.ndarray:
    alpha = pixels[:, :, 3:].astype(np.int64)
    mixed = (pixels[:, :, :3] * alpha + background * (255 - alpha) + 127) // 255
    return mixed.astype(np.uint8)
