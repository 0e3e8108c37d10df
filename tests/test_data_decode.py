"""Image bytes are decoded to the right pixels, or refused by one line with the file and the remedy."""

import io
import struct
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms.v2 import functional as reference

from jointsearch.data.decode import Form, decode_image, resize_square
from search_spaces.errors import InputError
from tests.images_bench import BAD, WHOLE, chunk, encoded, png, turned


@pytest.mark.parametrize("name", BAD)
def test_a_bad_image_gives_one_line_with_file_and_remedy(name: str) -> None:
    data, words = BAD[name]
    with pytest.raises(InputError) as caught:
        decode_image(data, f"cat/{name}.jpg", None)
    message = str(caught.value)
    assert message.startswith(f"cat/{name}.jpg ")
    assert words in message
    assert "\n" not in message
    assert any(remedy in message for remedy in ("; remove it", "; convert it", "; save", "; make it smaller"))


def test_a_file_name_cannot_break_the_line_of_its_message() -> None:
    with pytest.raises(InputError, match=r"^a\\nb\\x1b\[0m\\udcff\.jpg is empty"):
        decode_image(b"", "a\nb\x1b[0m\udcff.jpg", None)


# Each expected value follows from the definition of its format: 16-bit levels v become v * 255 / 65535 rounded, a
# transparent pixel with opacity a over white becomes color * a / 255 + 255 - a.
ODD = {
    "gray16": (png(3, 1, 16, 0, struct.pack(">HHH", 0, 32768, 65535)), None, [[[0, 128, 255]]]),
    "rgb16": (png(1, 1, 16, 2, struct.pack(">HHH", 0, 32768, 65535)), None, [[[0]], [[128]], [[255]]]),
    "pgm16": (b"P5 3 1 65535\n" + struct.pack(">HHH", 0, 32768, 65535), None, [[[0, 128, 255]]]),
    "pgm12": (b"P5 3 1 4095\n" + struct.pack(">HHH", 0, 2048, 4095), None, [[[0, 128, 255]]]),
    "tiff16": (encoded(np.array([[0, 257, 65535]], np.uint16), "TIFF"), None, [[[0, 1, 255]]]),
    "gray_with_alpha": (png(2, 1, 8, 4, bytes([100, 0, 100, 51])), None, [[[255, 224]]]),
    "transparent_red": (
        png(2, 1, 8, 6, bytes([255, 0, 0, 0, 255, 0, 0, 51])),
        None,
        [[[255, 255]]] + [[[255, 204]]] * 2,
    ),
    "transparent_color": (
        png(2, 1, 8, 2, bytes([255, 0, 0, 9, 8, 7]), chunk(b"tRNS", b"\0\xff\0\0\0\0")),
        None,
        [[[255, 9]], [[255, 8]], [[255, 7]]],
    ),
    "transparent_gray_level": (png(2, 1, 8, 0, bytes([255, 7]), chunk(b"tRNS", b"\0\xff")), None, [[[255, 7]]]),
    "palette": (png(2, 1, 8, 3, b"\0\1", chunk(b"PLTE", bytes(range(6)))), None, [[[0, 3]], [[1, 4]], [[2, 5]]]),
    "transparent_palette": (
        png(2, 1, 8, 3, b"\0\1", chunk(b"PLTE", bytes(range(6))), chunk(b"tRNS", b"\0")),
        None,
        [[[255, 3]], [[255, 4]], [[255, 5]]],
    ),
    "one_bit": (png(2, 1, 1, 0, bytes([0b01000000])), None, [[[0, 255]]]),
    "two_bits": (png(4, 1, 2, 0, bytes([0b00011011])), None, [[[0, 85, 170, 255]]]),
    "bitmap_where_one_is_black": (b"P4 2 1\n" + bytes([0b01000000]), None, [[[255, 0]]]),
    "print_colors": (encoded(Image.new("CMYK", (1, 1), (0, 255, 255, 0)), "TIFF"), None, [[[255]], [[0]], [[0]]]),
    "gray_as_three": (png(2, 1, 8, 0, b"\1\2"), 3, [[[1, 2]]] * 3),
    # ITU-R 601: 0.299 * 100 + 0.587 * 200 + 0.114 * 50 = 153.
    "color_as_one": (png(1, 1, 8, 2, bytes([100, 200, 50])), 1, [[[153]]]),
    "one_pixel": (png(1, 1, 8, 2, b"\1\2\3"), None, [[[1]], [[2]], [[3]]]),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_image_has_the_pixels_that_its_format_defines(name: str) -> None:
    data, channels, expected = ODD[name]
    image = decode_image(data, name, channels)
    assert image.dtype == torch.uint8
    assert image.tolist() == expected


def test_transparency_shows_the_stated_background() -> None:
    image = decode_image(png(1, 1, 8, 6, bytes([200, 100, 0, 51])), "x", 3, background=10)
    assert image.flatten().tolist() == [48, 28, 8]  # 51/255 = 0.2: 0.2 * color + 0.8 * 10


def white_is_zero_tiff(bits: int, levels: list[int]) -> bytes:
    """A TIFF written by hand, whose level 0 is white."""
    packed = struct.pack(f"<{len(levels)}H", *levels)
    tags = [(256, len(levels)), (257, 1), (258, bits), (259, 1), (262, 0), (273, 8), (278, 1), (279, len(packed))]
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    start = 8 + len(packed)
    return b"II*\0" + struct.pack("<I", start) + packed + struct.pack("<H", len(tags)) + directory + bytes(4)


def test_a_tiff_whose_zero_is_white_is_not_read_as_a_negative() -> None:
    assert decode_image(white_is_zero_tiff(16, [0, 32768, 65535]), "x", None).flatten().tolist() == [255, 127, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_set_upright(orientation: int) -> None:
    data = turned(orientation)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert decode_image(data, "x", None)[0].tolist() == expected.tolist()


def test_a_photo_with_an_impossible_orientation_stays_as_it_is() -> None:
    assert torch.equal(decode_image(turned(77), "x", None), decode_image(turned(1), "x", None))


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_image_has_the_pixels_that_pillow_reads(name: str) -> None:
    expected = np.asarray(Image.open(io.BytesIO(WHOLE[name])).convert("RGB"))
    assert np.array_equal(decode_image(WHOLE[name], name, 3).permute(1, 2, 0).numpy(), expected)


def test_resizing_takes_the_centre_square() -> None:
    wide = torch.arange(24, dtype=torch.uint8).reshape(1, 2, 12)
    assert resize_square(wide, 2).tolist() == [[[5, 6], [17, 18]]]
    tall = wide.reshape(1, 12, 2)
    assert resize_square(tall, 2).tolist() == [[[10, 11], [12, 13]]]


@pytest.mark.parametrize("size", [8, 24, 31])
def test_resizing_is_antialiased_as_torchvision_does_it(size: int) -> None:
    image = decode_image(WHOLE["png"], "x", 3)[:, 2:22]
    expected = reference.resize(image, [size, size], antialias=True)
    assert (resize_square(image, size).int() - expected.int()).abs().max() <= 1


def test_a_form_resizes_and_converts() -> None:
    assert Form(image_size=9, channels=1).decode(WHOLE["jpeg"], "x").shape == (1, 9, 9)


def mutations(data: bytes, rng: np.random.Generator) -> bytes:
    """The bytes with some of them overwritten, removed or doubled."""
    at, count = int(rng.integers(len(data))), int(rng.integers(1, 9))
    change: Callable[[], bytes] = [
        lambda: rng.bytes(count),
        lambda: b"",
        lambda: data[at : at + count] * 2,
        lambda: b"\xff" * count,
    ][int(rng.integers(4))]
    return data[:at] + change() + data[at + count :]


def test_no_damaged_file_hangs_or_raises_another_error() -> None:
    rng = np.random.default_rng(1)
    slowest, read, messages = 0.0, 0, []
    for number in range(900):
        data = mutations(list(WHOLE.values())[number % len(WHOLE)], rng)
        start = time.monotonic()
        try:
            assert decode_image(data, "x", 3).shape[0] == 3
            read += 1
        except InputError as error:
            messages.append(str(error))
        slowest = max(slowest, time.monotonic() - start)
    assert slowest < 5
    assert not any("\n" in message for message in messages)
    assert 0 < read < 900
