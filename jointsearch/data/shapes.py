"""Drawn shapes with a known answer: the ops that a policy search should find, and those that it must avoid."""

import math

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from jointsearch.data.sets import FoundSplits, ImageSet

SIDE = 32
FINE = 2  # drawn at twice the size and averaged down, so that edges are smooth
# The four tetrominoes that differ from their mirror image: a horizontal flip makes L a J and S a Z. Rows of cells.
TETROMINOES = {
    "L": ("#.", "#.", "##"),
    "J": (".#", ".#", "##"),
    "S": (".##", "##.", "..."),
    "Z": ("##.", ".##", "..."),
}
# Bright on dark and dark on bright are different classes, and inverting an image turns one into the other.
POLARITIES = ("bright", "dark")
CLASSES = tuple(f"{polarity}_{letter}" for letter in TETROMINOES for polarity in POLARITIES)
COUNTS = {"train": 800, "validation": 800, "test": 2000}
# Validation and test images are turned, moved and changed in brightness; training images are not.
MAX_TURN_DEGREES = 30.0
MAX_SHIFT_PIXELS = 6.0
MAX_BRIGHTNESS_CHANGE = 0.5
SHAPES_ANSWER = {
    "recover": ("Rotate", "TranslateX", "TranslateY", "Brightness"),
    "avoid": ("HorizontalFlip", "Invert", "Solarize"),
}


def read_shapes() -> FoundSplits:
    """The three splits, the same on every call."""
    sets = {}
    for seed, (split, count) in enumerate(COUNTS.items()):
        variation = 0.0 if split == "train" else 1.0
        sets[split] = draw_shapes(count, variation, torch.Generator().manual_seed(seed))
    return FoundSplits(sets["train"], sets["validation"], sets["test"])


def draw_shapes(count: int, variation: float, generator: torch.Generator) -> ImageSet:
    """Images of all classes in equal numbers; variation 1 turns, moves and brightens them like test images, 0 not."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator) * (high - low) + low

    labels = torch.arange(count) % len(CLASSES)
    turn = uniform(-1, 1) * variation * math.radians(MAX_TURN_DEGREES)
    shift = uniform(-1, 1, 2) * variation * MAX_SHIFT_PIXELS
    brightness = 1 + uniform(-1, 1, 1, 1, 1) * variation * MAX_BRIGHTNESS_CHANGE
    mask = tetromino_masks(labels // len(POLARITIES), uniform(4.0, 5.2), turn, shift)  # (B, 1, 64, 64)
    low = uniform(0.15, 0.35, 3, 1, 1)
    high = low + uniform(0.25, 0.4, 3, 1, 1)
    is_dark = (labels % len(POLARITIES) == 1).view(-1, 1, 1, 1)
    shape_color, ground_color = torch.where(is_dark, low, high), torch.where(is_dark, high, low)
    coverage = avg_pool2d(mask.float(), FINE)  # (B, 1, 32, 32)
    images = ground_color + coverage * (shape_color - ground_color)
    images = images + 0.04 * torch.randn(images.shape, generator=generator)
    pixels = (images * brightness).clamp(0, 1).mul(255).round().to(torch.uint8)
    return ImageSet(pixels, labels, CLASSES, _boxes(mask.squeeze(1)))


def tetromino_masks(letters: Tensor, cell: Tensor, turn: Tensor, shift: Tensor, side: int = SIDE) -> Tensor:
    """A mask of the fine grid's points inside each shape: (B, 1, 2 * side, 2 * side)."""
    cells = torch.tensor([_cells(rows) for rows in TETROMINOES.values()])  # (4, 3, 3)
    sizes = torch.tensor([_size(rows) for rows in TETROMINOES.values()])[letters]  # (B, 2) width, height in cells
    points = (torch.arange(side * FINE) + 0.5) / FINE - side / 2
    x = points.view(1, 1, -1) - shift[:, 0].view(-1, 1, 1)  # (B, 1, 64)
    y = points.view(1, -1, 1) - shift[:, 1].view(-1, 1, 1)  # (B, 64, 1)
    cosine, sine = turn.cos().view(-1, 1, 1), turn.sin().view(-1, 1, 1)
    unit = cell.view(-1, 1, 1)
    column = ((cosine * x + sine * y) / unit + sizes[:, 0].view(-1, 1, 1) / 2).floor().long()  # (B, 64, 64)
    row = ((cosine * y - sine * x) / unit + sizes[:, 1].view(-1, 1, 1) / 2).floor().long()
    inside = (column >= 0) & (column < 3) & (row >= 0) & (row < 3)
    filled = cells[letters.view(-1, 1, 1), row.clamp(0, 2), column.clamp(0, 2)]
    return (inside & filled).unsqueeze(1)


def _cells(rows: tuple[str, ...]) -> list[list[bool]]:
    return [[letter == "#" for letter in row.ljust(3, ".")] for row in rows]


def _size(rows: tuple[str, ...]) -> list[int]:
    height = sum("#" in row for row in rows)
    return [max(row.rfind("#") for row in rows) + 1, height]


def _boxes(masks: Tensor) -> Tensor:
    """The tightest box of each mask (B, 64, 64), x1 y1 x2 y2 in pixels of the image."""
    columns, rows = masks.any(1).int(), masks.any(2).int()
    edges = [
        columns.argmax(1),
        rows.argmax(1),
        SIDE * FINE - columns.flip(1).argmax(1),
        SIDE * FINE - rows.flip(1).argmax(1),
    ]
    return torch.stack(edges, 1) / FINE
