"""Images as bytes, whole and bad, that the tests of data share."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image, ImageOps

GRAIN = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8))


def encoded(image: Image.Image | np.ndarray, file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, file_format, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, color: int, row: bytes, *extra: bytes) -> bytes:
    """A PNG written by hand: its rows packed as given, after a filter byte that leaves them as they are."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" + row))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + pixels + chunk(b"IEND", b"")


def turned(orientation: int, file_format: str = "PNG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40, file_format, exif=exif)


WHOLE = {
    "jpeg": encoded(GRAIN, "JPEG"),
    "progressive": encoded(GRAIN, "JPEG", progressive=True),
    "png": encoded(GRAIN, "PNG"),
    "gif": encoded(GRAIN.convert("P"), "GIF"),
    "bmp": encoded(GRAIN, "BMP"),
    "tiff": encoded(GRAIN, "TIFF"),
    "lzw": encoded(GRAIN, "TIFF", compression="tiff_lzw"),
    "webp": encoded(GRAIN, "WEBP"),
    "ppm": encoded(GRAIN, "PPM"),
}
TRUNCATED = {
    f"{name}_cut_at_{share}%": data[: len(data) * share // 100]
    for name, data in WHOLE.items()
    for share in (20, 60, 95)
}


def flipped_bit(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


BAD = {
    **{name: (data, "") for name, data in TRUNCATED.items()},
    "empty": (b"", "is empty"),
    "text": (b"not an image\n" * 10, "not recognized"),
    "html_error_page": (b"<!doctype html><html><body>404</body></html>", "not recognized"),
    "zip_renamed": (b"PK\x03\x04" + bytes(100), "not recognized"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not recognized"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", "not recognized"),
    "zeros": (bytes(1000), "not recognized"),
    "jpeg_header_only": (WHOLE["jpeg"][:4], "not recognized"),
    "png_header_only": (WHOLE["png"][:33], "not recognized"),
    "png_wrong_pixel_checksum": (flipped_bit(WHOLE["png"], len(WHOLE["png"]) - 14), "damaged"),
    "png_wrong_header_checksum": (flipped_bit(WHOLE["png"], 30), "not recognized"),
    "png_pixels_missing": (png(4, 4, 8, 2, b"\1\2\3"), "damaged"),
    "float_with_nan": (encoded(np.array([[0, np.nan]], np.float32), "TIFF"), "floating-point"),
    "int32": (encoded(np.array([[0, 70000]], np.int32), "TIFF"), "32-bit integer"),
    "bomb": (png(20000, 20000, 8, 2, b""), "more than 67,108,864 pixels"),
    "larger_bomb": (png(60000, 60000, 8, 2, b""), "more than 67,108,864 pixels"),
    "two_frames": (encoded(GRAIN, "GIF", save_all=True, append_images=[ImageOps.mirror(GRAIN)]), "2 frames"),
    "two_pages": (encoded(GRAIN, "TIFF", save_all=True, append_images=[GRAIN]), "2 frames"),
    "animated_png": (encoded(GRAIN, "PNG", save_all=True, append_images=[ImageOps.mirror(GRAIN)]), "2 frames"),
    "gray16_transparent": (png(1, 1, 16, 0, b"\0\1", chunk(b"tRNS", b"\0\1")), "transparent level"),
}
