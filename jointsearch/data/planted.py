"""Drawn glyphs of 12x12 pixels with a known answer: of fifteen ops one helps, and one harms.

Every glyph is two classes, bright and dark on a ground between them.

`planted`: TranslateX helps, at a known magnitude. Training glyphs are centred, validation and test glyphs are 3 pixels
to the left or to the right. Solarize harms: the levels of the two classes mirror each other about 1/2, so that Solarize
at magnitude 1/2 turns a bright glyph into the dark one, and its label is wrong.

`planted_shades`: Brightness helps. Validation and test images are much darker or brighter. This is for networks of
convolutions, which recognize a glyph wherever it stands and so do not need TranslateX. Every image has a black and a
white pixel, so that AutoContrast and Equalize cannot undo the change. Invert harms: it swaps bright and dark.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from jointsearch.data.sets import DataSplits, ImageSet

Answer = dict[str, tuple[str, ...]]  # the ops to recover and to avoid

SIDE = 12
CELL = 2  # pixels
# Each glyph has five cells, and any two glyphs differ in at least four.
GLYPHS = {
    "cross": ("#.#", ".#.", "#.#"),
    "plus": (".#.", "###", ".#."),
    "corner": ("#..", "#..", "###"),
    "tee": ("###", ".#.", ".#."),
    "seven": ("###", "..#", "..#"),
}
LEVELS = {"bright": 0.9, "dark": 0.1}
GROUND = 0.4
NOISE = 0.1
CLASSES = tuple(f"{level}_{glyph}" for glyph in GLYPHS for level in LEVELS)
COUNTS = {"train": 1000, "validation": 1000, "test": 2000}
SHIFT_PIXELS = 3
PLANTED_ANSWER: Answer = {"recover": ("TranslateX",), "avoid": ("Solarize",)}
PLANTED_MAGNITUDE = SHIFT_PIXELS / (0.45 * SIDE)  # TranslateX at magnitude 1 moves by .45 of the width
SHADES = (0.42, 1.58)  # factors of Brightness at a magnitude of .64, either way
SHADES_ANSWER: Answer = {"recover": ("Brightness",), "avoid": ("Invert",)}


def planted(seed: int) -> DataSplits:
    """The three splits of this seed: training glyphs centred, validation and test glyphs moved to the sides."""
    generator = torch.Generator().manual_seed(seed)
    train = draw_planted(COUNTS["train"], 0, generator)
    validation = draw_planted(COUNTS["validation"], SHIFT_PIXELS, generator)
    return DataSplits(train, validation, draw_planted(COUNTS["test"], SHIFT_PIXELS, generator))


def planted_shades(seed: int) -> DataSplits:
    """The three splits of this seed: training images as drawn, validation and test images darker or brighter."""
    generator = torch.Generator().manual_seed(seed)
    train, validation, test = (_with_corners(draw_planted(count, 0, generator)) for count in COUNTS.values())
    return DataSplits(train, _shaded(validation, generator), _shaded(test, generator))


def draw_planted(count: int, shift: int, generator: torch.Generator) -> ImageSet:
    """Images of all classes in equal numbers, each moved by `shift` pixels to the left or to the right."""
    labels = torch.arange(count) % len(CLASSES)
    direction = torch.randint(2, (count, 1), generator=generator) * 2 - 1
    # The shift wraps around the edge; up to 3 pixels the glyph itself stays inside.
    column = (torch.arange(SIDE) - direction * shift) % SIDE  # (B, W)
    glyph = _centred_glyphs()[labels // len(LEVELS)]  # (B, H, W)
    inside = glyph.gather(2, column.unsqueeze(1).expand_as(glyph))
    level = torch.tensor(list(LEVELS.values()))[labels % len(LEVELS)].view(-1, 1, 1)
    images = torch.where(inside, level, GROUND) + NOISE * torch.randn(inside.shape, generator=generator)
    pixels = images.clamp(0, 1).mul(255).round().to(torch.uint8)
    return ImageSet(pixels.unsqueeze(1), labels, CLASSES)


def _with_corners(drawn: ImageSet) -> ImageSet:
    pixels = drawn.images.clone()
    pixels[..., 0, 0], pixels[..., 0, -1] = 0, 255
    return ImageSet(pixels, drawn.labels, drawn.classes)


def _shaded(drawn: ImageSet, generator: torch.Generator) -> ImageSet:
    factor = torch.tensor(SHADES)[torch.randint(len(SHADES), (len(drawn),), generator=generator)].view(-1, 1, 1, 1)
    pixels = (drawn.images * factor).clamp(0, 255).round().to(torch.uint8)
    return ImageSet(pixels, drawn.labels, drawn.classes)


def _centred_glyphs() -> Tensor:
    cells = torch.tensor([[[cell == "#" for cell in row] for row in rows] for rows in GLYPHS.values()])
    drawn = cells.repeat_interleave(CELL, 1).repeat_interleave(CELL, 2)  # (5, 6, 6)
    margin = (SIDE - drawn.shape[-1]) // 2
    return pad(drawn, (margin, margin, margin, margin))
