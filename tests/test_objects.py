"""Boxes and masks under a policy: they are where their pixels are, and objects that are gone are told."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.augment.apply import apply_draw, draw_of, draw_policy
from search_spaces.augment.erase import FILL
from search_spaces.augment.objects import check_moves_objects, move_masks, move_objects
from search_spaces.augment.table import OPS, op_tables
from search_spaces.controls import named_policy
from search_spaces.errors import InputError
from search_spaces.policy import OpChoice, Policy, SubPolicy

HEIGHT, WIDTH, DRAWS = 60, 80, 500
GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "HorizontalFlip")


def geometric_policy():
    """Two geometric ops after one another, of any strength."""

    def op(name, strength):
        return OpChoice(name, 1.0, strength if OPS[name].has_magnitude else None)

    pairs = [(first, second) for first in GEOMETRIC for second in GEOMETRIC]
    return Policy(tuple(SubPolicy((op(a, s), op(b, 1 - s))) for a, b in pairs for s in (0.2, 0.6, 1.0)))


def drawn_rectangles(count, dice):
    """White rectangles on black, at whole pixels, and their boxes."""
    corner = torch.rand(count, 2, generator=dice) * torch.tensor([WIDTH * 0.5, HEIGHT * 0.5])
    size = 6 + torch.rand(count, 2, generator=dice) * torch.tensor([WIDTH * 0.35, HEIGHT * 0.35])
    boxes = torch.cat([corner, corner + size], 1).round()  # (B, 4)
    x, y = torch.arange(WIDTH) + 0.5, torch.arange(HEIGHT) + 0.5
    across = (x > boxes[:, :1]) & (x < boxes[:, 2:3])
    down = (y > boxes[:, 1:2]) & (y < boxes[:, 3:])
    return (down[:, :, None] & across[:, None]).float()[:, None], boxes[:, None]


def extent(mask):
    """The upright box of the pixels of a mask (H, W)."""
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    return torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=torch.float32)


def test_a_drawn_rectangle_and_its_box_agree_within_a_pixel_in_500_draws():
    dice = torch.Generator().manual_seed(0)
    images, boxes = drawn_rectangles(DRAWS, dice)
    draw = draw_policy(geometric_policy(), DRAWS, dice)
    pixels = apply_draw(images, draw)[:, 0]
    moved = move_objects(boxes, draw, HEIGHT, WIDTH).boxes[:, 0]
    compared = 0
    for cover, box in zip(pixels, moved, strict=True):
        half, any_of_it = cover >= 0.5, cover > 0.01  # the tip of a sharp corner covers less than half of a pixel
        if half.any():
            compared += 1
            inner, outer, sides = extent(half), extent(any_of_it), torch.tensor([1.0, 1.0, -1.0, -1.0])
            assert ((inner - box) * sides >= -1).all(), (inner, box)
            assert ((box - outer) * sides >= -1).all(), (outer, box)
    assert compared > 0.9 * DRAWS


def test_the_visible_share_is_the_share_of_the_pixels_that_are_left():
    dice = torch.Generator().manual_seed(1)
    images, boxes = drawn_rectangles(DRAWS, dice)
    draw = draw_policy(geometric_policy(), DRAWS, dice)
    left = apply_draw(images, draw).sum((1, 2, 3)) / images.sum((1, 2, 3))
    assert (left - move_objects(boxes, draw, HEIGHT, WIDTH).visible[:, 0]).abs().max() < 0.04


def test_masks_move_with_their_pixels_to_the_pixel():
    dice = torch.Generator().manual_seed(2)
    images, _ = drawn_rectangles(DRAWS, dice)
    draw = draw_policy(named_policy("trivialaugment", GEOMETRIC[:5]), DRAWS, dice)
    masks = torch.cat([images, 1 - images], 1)  # two objects in each image
    moved = move_masks(masks, draw)
    pixels = apply_draw(images, draw)[:, 0] >= 0.5
    assert torch.equal(moved[:, 0].bool(), pixels)
    assert torch.equal(moved[:, 1].bool(), apply_draw(1 - images, draw)[:, 0] >= 0.5)


@pytest.mark.parametrize("name", ["colors", "none"])
def test_colors_leave_boxes_and_masks_alone(name):
    colors = Policy(tuple(SubPolicy((OpChoice(op, 1.0, 0.7),)) for op in ("Contrast", "Solarize", "Brightness")))
    policy = {"colors": colors, "none": named_policy("none")}[name]
    dice = torch.Generator().manual_seed(3)
    images, boxes = drawn_rectangles(30, dice)
    draw = draw_policy(policy, 30, dice)
    moved = move_objects(boxes, draw, HEIGHT, WIDTH)
    assert torch.allclose(moved.boxes, boxes, atol=1e-3)
    assert torch.allclose(moved.visible, torch.ones(30, 1))
    assert torch.equal(move_masks(images, draw), images)


@pytest.mark.parametrize("later", [None, "Rotate", "TranslateX"])
def test_a_square_that_covers_an_object_takes_from_its_visible_share(later):
    names = ["Cutout", *([later] if later else [])]
    dice = torch.Generator().manual_seed(4)
    images, boxes = drawn_rectangles(200, dice)
    op = torch.tensor([[op_tables().ops.index(OPS[name]) for name in names]]).expand(200, -1)
    uniform = torch.rand(4 * len(names), 200, generator=dice)
    draw = draw_of(torch.zeros(200, dtype=torch.int64), op, torch.full((200, len(names)), 0.9), uniform)
    gray = sum(FILL) / 3  # of the square; on a ground of the same gray, only the object tells it
    on_gray = apply_draw(images * (1 - gray) + gray, draw) - gray
    left = on_gray.clamp(min=0).sum((1, 2, 3)) / (1 - gray) / images.sum((1, 2, 3))
    visible = move_objects(boxes, draw, HEIGHT, WIDTH).visible[:, 0]
    assert (left - visible).abs().max() < 0.05
    assert visible.min() < 0.8


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 50), min_size=4, max_size=4), st.floats(-0.3, 0.3), st.floats(-30, 30))
def test_nothing_is_visible_that_was_not_there_and_all_is_finite(numbers, shift, angle):
    x0, y0, width, height = numbers
    boxes = torch.tensor([[[x0, y0, x0 + width, y0 + height]]])
    op = torch.tensor([[op_tables().ops.index(OPS[name]) for name in ("TranslateX", "Rotate")]])
    magnitude = torch.tensor([[abs(shift) / 0.45, abs(angle) / 30]])
    draw = draw_of(torch.zeros(1, dtype=torch.int64), op, magnitude, torch.full((8, 1), 0.3))
    moved = move_objects(boxes, draw, HEIGHT, WIDTH)
    assert torch.isfinite(moved.boxes).all()
    assert ((moved.visible >= 0) & (moved.visible <= 1)).all()
    assert (moved.boxes >= -0.01).all()
    assert (moved.boxes[..., 2] <= WIDTH + 0.01).all()


def test_a_policy_that_mixes_images_is_refused_with_the_op_and_the_remedy():
    policy = Policy((SubPolicy((OpChoice("SamplePairing", 0.5, 0.5),)),), name="mine")
    with pytest.raises(InputError, match=r"policy mine uses SamplePairing.*give a policy without it"):
        check_moves_objects(policy)
    check_moves_objects(named_policy("trivialaugment"))
