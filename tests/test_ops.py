"""The contract of every op. The tests run over the whole table, so they cover every new row."""

import itertools
import math

import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from search_spaces.augment.apply import PolicyDraw, draw_of
from search_spaces.augment.erase import FILL
from search_spaces.augment.geometry import warp
from search_spaces.augment.objects import move_objects
from search_spaces.augment.op import AugOp, OpNoise, draw_op_noise
from search_spaces.augment.table import DADA_OPS, OPS, check_op_names, op_tables
from search_spaces.errors import InputError

EVERY_OP = pytest.mark.parametrize("op", OPS.values(), ids=OPS.keys())
WITH_MAGNITUDE = pytest.mark.parametrize(
    "op", [op for op in OPS.values() if op.has_magnitude], ids=[op.name for op in OPS.values() if op.has_magnitude]
)


def noise_for(batch: int, sign: float = 1.0, seed: int = 0) -> OpNoise:
    noise = draw_op_noise(batch, torch.Generator().manual_seed(seed))
    return OpNoise(torch.full((batch,), sign), noise.position, noise.partner)


def applied(op: AugOp, images: Tensor, magnitude: float | Tensor, sign: float = 1.0) -> Tensor:
    magnitudes = torch.as_tensor(magnitude, dtype=images.dtype).expand(len(images))
    return op(images, magnitudes, noise_for(len(images), sign))


# --- T-35: the same pixels as PIL and torchvision ---------------------------------------------------------------------


def through_pil(images: Tensor, change) -> Tensor:
    changed = []
    for image in images:
        pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        picture = change(Image.fromarray(pixels))
        changed.append(tv.pil_to_tensor(picture))
    return torch.stack(changed).float() / 255


def sheared(images: Tensor, amount: float, axis: int) -> Tensor:
    degrees = [0.0, 0.0]
    degrees[axis] = math.degrees(math.atan(amount))
    return tv.affine(images, 0.0, [0, 0], 1.0, degrees, interpolation=InterpolationMode.BILINEAR, center=[0, 0])


def shifted(images: Tensor, amount: float, axis: int) -> Tensor:
    pixels = [0, 0]
    pixels[axis] = round(amount * images.shape[-1 - axis])
    return tv.affine(images, 0.0, pixels, 1.0, [0.0, 0.0])


REFERENCES = {
    "ShearX": lambda images, amount: sheared(images, amount, 0),
    "ShearY": lambda images, amount: sheared(images, amount, 1),
    "TranslateX": lambda images, amount: shifted(images, amount, 0),
    "TranslateY": lambda images, amount: shifted(images, amount, 1),
    "Rotate": lambda images, amount: tv.rotate(images, amount, InterpolationMode.BILINEAR),
    "HorizontalFlip": lambda images, amount: through_pil(images, ImageOps.mirror),
    "AutoContrast": lambda images, amount: through_pil(images, ImageOps.autocontrast),
    "Invert": lambda images, amount: through_pil(images, ImageOps.invert),
    "Equalize": lambda images, amount: through_pil(images, ImageOps.equalize),
    "Solarize": lambda images, amount: through_pil(images, lambda p: ImageOps.solarize(p, amount * 255)),
    "Posterize": lambda images, amount: through_pil(images, lambda p: ImageOps.posterize(p, round(amount))),
    "Contrast": lambda images, amount: through_pil(images, lambda p: ImageEnhance.Contrast(p).enhance(amount)),
    "Color": lambda images, amount: through_pil(images, lambda p: ImageEnhance.Color(p).enhance(amount)),
    "Brightness": lambda images, amount: through_pil(images, lambda p: ImageEnhance.Brightness(p).enhance(amount)),
    "Sharpness": lambda images, amount: through_pil(images, lambda p: ImageEnhance.Sharpness(p).enhance(amount)),
}
OURS_ALONE = {"Cutout", "SamplePairing"}  # neither library has them; closed forms below


def test_every_op_has_a_reference() -> None:
    assert set(REFERENCES) | OURS_ALONE == set(OPS)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("magnitude", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("name", REFERENCES)
def test_op_agrees_with_pil_or_torchvision(name: str, magnitude: float, sign: float, images: Tensor) -> None:
    op = OPS[name]
    if name.startswith("Translate"):
        # Whole pixels: between two, PIL and torchvision cut off where we interpolate.
        magnitude = round(magnitude * 14) / (0.45 * images.shape[-1 if name.endswith("X") else -2])
    amount = float(op.amount(torch.tensor(magnitude), torch.tensor(sign)))
    difference = (applied(op, images, magnitude, sign) - REFERENCES[name](images, amount)).abs() * 255
    if op.matrix is None:
        assert difference.mean() <= 1.0
        assert difference.max() <= 2.0
    else:
        assert difference[..., 4:-4, 4:-4].mean() <= 1.0
        assert difference[..., 4:-4, 4:-4].max() <= 2.0
        assert (
            difference > 2.0
        ).float().mean() <= 0.01  # a bilinear border pixel may be black in one and not the other


def test_cutout_covers_a_gray_square_of_its_size() -> None:
    images = torch.ones(1, 3, 20, 40)
    noise = OpNoise(torch.ones(1), torch.tensor([[0.25, 0.5]]), torch.zeros(1, dtype=torch.long))
    changed = OPS["Cutout"](images, torch.ones(1), noise)
    expected = images.clone()
    expected[:, :, 8:12, 8:12] = torch.tensor(FILL).reshape(1, 3, 1, 1)  # side .2 * 20 around column 10, row 10
    torch.testing.assert_close(changed, expected)


def test_cutout_border_pixels_are_covered_by_their_share() -> None:
    noise = OpNoise(torch.ones(1), torch.tensor([[0.5, 0.5]]), torch.zeros(1, dtype=torch.long))
    changed = OPS["Cutout"](torch.ones(1, 1, 10, 10), torch.tensor([0.75]), noise)  # side 1.5 around (5, 5)
    covered = (1 - changed) / (1 - sum(FILL) / 3)
    assert covered.sum().item() == pytest.approx(1.5**2, rel=1e-5)
    assert covered[0, 0, 5, 5].item() == pytest.approx(0.75**2, rel=1e-5)


def test_sample_pairing_mixes_the_partner_in(images: Tensor) -> None:
    noise = noise_for(len(images))
    changed = OPS["SamplePairing"](images, torch.full((len(images),), 0.5), noise)
    torch.testing.assert_close(changed, 0.8 * images + 0.2 * images[noise.partner])
    assert (noise.partner != torch.arange(len(images))).all()


# --- T-36: gradients --------------------------------------------------------------------------------------------------


def smooth_images() -> Tensor:
    # Bilinear warps have kinks where a sampling point crosses a pixel; on a smooth picture they are small.
    x = torch.linspace(0, math.pi, 16, dtype=torch.float64)
    wave = 0.5 + 0.2 * torch.sin(x)[None, :] * torch.cos(2 * x)[:, None]
    return torch.stack([wave, 0.8 * wave + 0.1, 1 - wave]).expand(2, 3, 16, 16).clone() * torch.tensor(
        [[[[1.0]]], [[[0.9]]]]
    )


@WITH_MAGNITUDE
def test_magnitude_gradient_equals_finite_differences(op: AugOp) -> None:
    if op.gradient != "pathwise":
        pytest.skip(f"its gradient is {op.gradient}")
    images = smooth_images()
    noise = noise_for(2)
    weights = torch.randn(images.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    pool = images.flip(0) * 0.7

    def loss(magnitude: Tensor) -> Tensor:
        return (op(images, magnitude, noise, pool) * weights).sum((1, 2, 3))

    magnitude = torch.tensor([0.31, 0.62], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(magnitude).sum(), magnitude)
    step = 1e-6
    numeric = (loss(magnitude.detach() + step) - loss(magnitude.detach() - step)) / (2 * step)
    torch.testing.assert_close(gradient, numeric, rtol=1e-4, atol=1e-6)
    assert (gradient != 0).all()


@WITH_MAGNITUDE
def test_straight_through_gradient_has_the_sign_of_a_large_step(op: AugOp, images: Tensor) -> None:
    if op.gradient != "straight-through":
        pytest.skip(f"its gradient is {op.gradient}")
    for middle in (0.3, 0.6):
        magnitude = torch.full((len(images),), middle, requires_grad=True)
        gradient = torch.autograd.grad(op(images, magnitude, noise_for(len(images))).sum(), magnitude)[0]
        step = (applied(op, images, middle + 0.25) - applied(op, images, middle - 0.25)).sum((1, 2, 3)) / 0.5
        assert torch.nn.functional.cosine_similarity(gradient, step, dim=0) > 0.9


def test_only_ops_that_round_have_a_gradient_that_is_not_their_own() -> None:
    assert [name for name, op in OPS.items() if op.gradient == "straight-through"] == ["Solarize", "Posterize"]
    assert [op.gradient for op in OPS.values()].count("pathwise") == 11


@EVERY_OP
def test_declared_gradient_is_the_one_there(op: AugOp, images: Tensor) -> None:
    magnitude = torch.full((len(images),), 0.4, requires_grad=True)
    changed = op(images, magnitude, noise_for(len(images)))
    assert changed.requires_grad == (op.gradient != "none")
    assert (op.gradient != "none") == op.has_magnitude


@EVERY_OP
def test_gradient_reaches_the_image(op: AugOp, images: Tensor) -> None:
    images = images.clone().requires_grad_()
    changed = applied(op, images, 0.4)
    gradient = torch.autograd.grad(changed.sum(), images)[0]
    assert gradient.isfinite().all()
    assert (gradient != 0).any()


@WITH_MAGNITUDE
def test_magnitude_gradient_is_the_same_behind_an_op_that_learns_too(op: AugOp, images: Tensor) -> None:
    def gradient(before: Tensor) -> Tensor:
        magnitude = torch.full((len(images),), 0.4, requires_grad=True)
        changed = op(before, magnitude, noise_for(len(images)))
        weights = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
        return torch.autograd.grad((changed * weights).sum(), magnitude)[0]

    torch.testing.assert_close(gradient(images.clone().requires_grad_()), gradient(images), rtol=0, atol=0)


@WITH_MAGNITUDE
def test_gradient_survives_at_magnitude_zero(op: AugOp, images: Tensor) -> None:
    if op.name == "Cutout":
        pytest.skip("the area of its square grows with the square of the magnitude: at 0 the slope is 0")
    magnitude = torch.zeros(len(images), requires_grad=True)
    changed = op(images, magnitude, noise_for(len(images)))
    assert torch.equal(changed, images)
    weights = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    assert (torch.autograd.grad((changed * weights).sum(), magnitude)[0] != 0).all()


# --- T-37: magnitude 0 is the identity, and more is more --------------------------------------------------------------


@WITH_MAGNITUDE
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_magnitude_zero_changes_nothing(op: AugOp, sign: float, images: Tensor) -> None:
    assert torch.equal(applied(op, images, 0.0, sign), images)
    # At sides that are no power of two a warp by the unit matrix rounds, and float images lie between 8-bit levels.
    odd = torch.rand(4, 3, 21, 29, generator=torch.Generator().manual_seed(0))
    assert torch.equal(applied(op, odd, 0.0, sign), odd)
    white = torch.ones_like(images)
    assert torch.equal(applied(op, white, 0.0, sign), white)


@WITH_MAGNITUDE
def test_distance_to_the_original_grows_with_the_magnitude(op: AugOp) -> None:
    images = smooth_images().float()
    pool = 1 - images
    noise = noise_for(2)
    distances = [
        (op(images, torch.full((2,), m), noise, pool) - images).abs().mean() for m in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    assert all(later >= earlier for earlier, later in itertools.pairwise(distances))
    assert distances[-1] > distances[0]


# --- T-38: range, dtype, shape, batch ---------------------------------------------------------------------------------


@EVERY_OP
@pytest.mark.parametrize(
    "shape", [(1, 3, 12, 12), (3, 1, 12, 20), (2, 3, 21, 9), (2, 2, 8, 8), (2, 5, 8, 8), (2, 3, 2, 1)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_range_shape_and_dtype_are_kept(op: AugOp, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    before = images.clone()
    for sign in (1.0, -1.0):
        changed = applied(op, images, 0.9, sign)
        assert changed.shape == images.shape
        assert changed.dtype == dtype
        assert changed.min() >= -1e-6
        assert changed.max() <= 1 + 1e-6
    assert torch.equal(images, before)


@EVERY_OP
def test_per_image_magnitudes_equal_one_by_one_application(op: AugOp, images: Tensor) -> None:
    generator = torch.Generator().manual_seed(3)
    magnitude = torch.rand(len(images), generator=generator)
    noise = draw_op_noise(len(images), generator)
    together = op(images, magnitude, noise)
    for place in range(len(images)):
        one = slice(place, place + 1)
        alone = op(images[one], magnitude[one], noise.rows(one), images)
        torch.testing.assert_close(together[one], alone, rtol=0, atol=1e-6)


@EVERY_OP
def test_same_noise_gives_the_same_result(op: AugOp, images: Tensor) -> None:
    results = [
        op(images, torch.full((len(images),), 0.7), draw_op_noise(len(images), torch.Generator().manual_seed(5)))
        for _ in range(2)
    ]
    assert torch.equal(*results)


@EVERY_OP
def test_flat_images_stay_finite(op: AugOp) -> None:
    for level in (0.0, 0.5, 1.0):
        assert applied(op, torch.full((2, 3, 6, 6), level), 1.0).isfinite().all()


# --- boxes and masks follow the pixels --------------------------------------------------------------------------------


def draw_with(op: AugOp, magnitude: float, sign: float) -> PolicyDraw:
    """One image under one op."""
    place = op_tables().ops.index(op)
    uniform = torch.tensor([[0.75 if sign > 0 else 0.25], [0.5], [0.5], [0.5]])
    return draw_of(torch.zeros(1, dtype=torch.int64), torch.tensor([[place]]), torch.tensor([[magnitude]]), uniform)


@pytest.mark.parametrize(
    "op", [op for op in OPS.values() if op.matrix], ids=[op.name for op in OPS.values() if op.matrix]
)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_box_follows_the_pixels_of_what_it_frames(op: AugOp, sign: float) -> None:
    height, width = 40, 60
    canvas = torch.zeros(1, 1, height, width)
    canvas[:, :, 15:25, 20:36] = 1
    box = torch.tensor([[[20.0, 15.0, 36.0, 25.0]]])
    magnitude = torch.tensor([0.5])
    moved = op(canvas, magnitude, noise_for(1, sign))
    assert op.matrix is not None
    matrix = op.matrix(op.amount(magnitude, torch.tensor([sign])), height, width)
    rows, columns = ((moved[0, 0].amax(dim) > 0.5).nonzero().flatten() for dim in (1, 0))
    seen = torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).float()
    framed = move_objects(box, draw_with(op, 0.5, sign), height, width).boxes[0, 0]
    assert (framed - seen).abs().max() <= 1.6  # corners of a turned box are thinner than half a pixel
    torch.testing.assert_close(warp(canvas, matrix), moved, rtol=0, atol=1e-5)


def test_a_box_moved_out_is_clipped_to_the_image() -> None:
    moved = move_objects(torch.tensor([[[4.0, 2.0, 8.0, 6.0]]]), draw_with(OPS["TranslateX"], 1.0, 1.0), 10, 10)
    torch.testing.assert_close(moved.boxes, torch.tensor([[[8.5, 2.0, 10.0, 6.0]]]))
    torch.testing.assert_close(moved.visible, torch.tensor([[1.5 / 4]]))


# --- the table --------------------------------------------------------------------------------------------------------


def test_op_names_are_the_fifteen_of_dada_and_two_more() -> None:
    assert set(OPS) == set(DADA_OPS) | {"SamplePairing", "HorizontalFlip"}
    assert len(set(DADA_OPS)) == 15


@pytest.mark.parametrize(
    ("names", "message"),
    [(["Rotat"], "did you mean Rotate"), (["Rotate", "Rotate"], "twice"), ([], "names no op"), (["rotate"], "Rotate?")],
)
def test_wrong_op_names_are_refused_with_a_remedy(names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        check_op_names(names, "policy_space")
