"""Drawn glyphs of 12x12 pixels with a known answer: of fifteen ops one helps, at a known magnitude, and one harms.

TranslateX helps: training glyphs are centred, validation and test glyphs are 3 pixels to the left or to the right.
Solarize harms: every glyph is two classes, bright and dark on a ground between them, whose levels mirror each other
about 1/2, and Solarize at magnitude 1/2 turns a bright glyph into the dark one, so that its label is wrong.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from jointsearch.data.sets import DataSplits, ImageSet

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
PLANTED_ANSWER = {"recover": ("TranslateX",), "avoid": ("Solarize",)}
PLANTED_MAGNITUDE = SHIFT_PIXELS / (0.45 * SIDE)  # TranslateX at magnitude 1 moves by .45 of the width


def planted(seed: int) -> DataSplits:
    """The three splits of this seed: training glyphs centred, validation and test glyphs moved to the sides."""
    generator = torch.Generator().manual_seed(seed)
    train = draw_planted(COUNTS["train"], 0, generator)
    validation = draw_planted(COUNTS["validation"], SHIFT_PIXELS, generator)
    return DataSplits(train, validation, draw_planted(COUNTS["test"], SHIFT_PIXELS, generator))


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


def _centred_glyphs() -> Tensor:
    cells = torch.tensor([[[cell == "#" for cell in row] for row in rows] for rows in GLYPHS.values()])
    drawn = cells.repeat_interleave(CELL, 1).repeat_interleave(CELL, 2)  # (5, 6, 6)
    margin = (SIDE - drawn.shape[-1]) // 2
    return pad(drawn, (margin, margin, margin, margin))
